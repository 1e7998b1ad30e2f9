"""The report as Markdown: the same text, facts, tables and pictures; of a plot its title and what it shows, its numbers being a table."""

from __future__ import annotations

import re

from search.files import plain
from search.pages.content import Facts, Gallery, Item, Plot, Report, Section, Table, shown


def markdown(report: Report, trajectory: str) -> str:
    """The Markdown form; `trajectory` is the path of the run's picture of its search, empty for none."""
    lines = [f"# {plain(report.title)}", "", plain(report.lead), ""]
    if trajectory:
        lines += [f"![every candidate and the chain]({_target(trajectory)})", ""]
    for section in report.sections:
        lines += _section(section)
    return "\n".join([*lines, plain(report.made)]) + "\n"


def _section(section: Section) -> list[str]:
    lines = [f"## {plain(section.title)}", ""]
    for text in section.text:
        lines += [plain(text), ""]
    for item in section.items:
        lines += [f"### {plain(item.title)}", "", *_item(item), ""]
    return lines


def _item(item: Item) -> list[str]:
    if isinstance(item, Table):
        return [*_table([column.name for column in item.columns], _cells(item)), *_note(item.note)]
    if isinstance(item, Plot):
        return [
            f"{plain(item.description)} The plot is in the page" + (f", its numbers are in tables/{item.table}.csv." if item.table else ".")
        ]
    if isinstance(item, Facts):
        return _table(["", ""], [list(row) for row in item.rows])
    return _gallery(item)


def _cells(table: Table) -> list[list[str]]:
    return [[shown(column, cell) for column, cell in zip(table.columns, row, strict=True)] for row in table.rows]


def _gallery(gallery: Gallery) -> list[str]:
    if not gallery.rows:
        return []
    head = ["frame", *("" for _ in gallery.rows[0][1])]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, pictures in gallery.rows:
        cells = [f"![{plain(picture.description)}]({_target(picture.file)}) {plain(picture.title)}" for picture in pictures]
        lines.append(f"| {' | '.join([plain(name), *cells])} |")
    return [*lines, *_note(gallery.note)]


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(map(plain, columns))} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(map(plain, row))} |" for row in rows)]


def _note(text: str) -> list[str]:
    return ["", plain(text)] if text else []


def _target(path: str) -> str:
    """A path as the target of a link."""
    return re.sub(r"[^A-Za-z0-9_./-]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), path)
