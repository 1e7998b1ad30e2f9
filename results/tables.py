"""Writes the tables of README and docs from the files in this folder: `python results/tables.py`, or `--check` to compare only.

A table stands between `<!-- table: FILE COLUMN COLUMN ... -->` and `<!-- end -->`; FILE is a CSV below this folder.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent
PAGES = (RESULTS.parent / "README.md", *sorted((RESULTS.parent / "docs").glob("*.md")))
BLOCK = re.compile(r"(<!-- table: (\S+) ([^>]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def cell(text: str) -> str:
    """A number with four significant digits, anything else as it is."""
    try:
        value = float(text)
    except ValueError:
        return text or "-"
    return text if value.is_integer() and "." not in text else f"{value:.4g}"


def table(path: Path, columns: list[str]) -> str:
    """A Markdown table of some columns of a CSV file, with a column `row` of them in bold where `chosen` is True."""
    rows = list(csv.DictReader(path.read_text().splitlines()))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        values = [cell(row[name]) for name in columns]
        if row.get("chosen") == "True":
            values = [f"**{value}**" for value in values]
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """A page with every table written anew."""
    return BLOCK.sub(lambda match: match[1] + table(RESULTS / match[2], match[3].split()) + match[5], text)


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text()
        after = written(before)
        if before != after and "--check" in sys.argv[1:]:
            sys.exit(f"the tables of {page.name} differ from results/; run python results/tables.py")
        if before != after:
            page.write_text(after)
