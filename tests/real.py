"""Where real CamVid frames lie, for the tests that use them when they are there."""

from __future__ import annotations

from pathlib import Path

_PLACES = (Path(__file__).resolve().parents[1] / "data" / "camvid", Path("/work/shared/data/camvid"))

CAMVID: Path | None = next((place for place in _PLACES if (place / "val").is_dir()), None)
"""A folder in the layout of the SegNet tutorial, or None."""
