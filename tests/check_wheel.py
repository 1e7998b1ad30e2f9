"""Checks that a built wheel holds every module, the type marker, the report's templates and the command: `check_wheel.py WHEEL`."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

wheel = zipfile.ZipFile(sys.argv[1])
held = set(wheel.namelist())
root = Path(__file__).resolve().parents[1]
wanted = {str(path.relative_to(root)) for name in ("lpsnet", "latency", "search") for path in (root / name).rglob("*.py")}
wanted |= {f"{name}/py.typed" for name in ("lpsnet", "latency", "search")}
wanted |= {str(path.relative_to(root)) for path in (root / "search" / "pages" / "templates").iterdir()}
missing = sorted(wanted - held)
strange = sorted(name for name in held if name.startswith(("tests/", "results/")))
(entry_points,) = (name for name in held if name.endswith("entry_points.txt"))
if missing or strange or "lps-search = search.cli:main" not in wheel.read(entry_points).decode():
    sys.exit(f"the wheel lacks {missing}, or holds {strange}, or its command is wrong")
print(f"{Path(sys.argv[1]).name}: {len(wanted)} files and the command lps-search")
