"""Where real CamVid frames lie, for the tests that use them when they are there."""

from __future__ import annotations

import os
from pathlib import Path

_PLACE = Path(os.environ.get("LPS_SEARCH_CAMVID") or Path(__file__).resolve().parents[1] / "data" / "camvid")

CAMVID: Path | None = _PLACE if (_PLACE / "val").is_dir() else None
"""A folder in the layout of the SegNet tutorial, `$LPS_SEARCH_CAMVID` or `data/camvid`, or None."""
