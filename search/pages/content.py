"""What a report says, as values that know no output form: sections of text, facts, tables, plots and pictures. Pure.

`html.py` and `markdown.py` write them; every string in them is plain text, so that what escapes it is the form alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from search.step import slope_text

Cell = str | float | int | bool | None
"""A number stays a number: it is rounded only where it is shown."""

SLOPE = "slope"
"""The form of a column of slopes, whose infinities have words."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Args:
        name: what stands above it, with its unit.
        form: format of its numbers, such as ".2f"; `SLOPE`; empty for text.
        breaks: whether long texts may be broken at underscores and slashes.
        whole: whether its texts stay on a line.
    """

    name: str
    form: str = ""
    breaks: bool = False
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that a reader can sort.

    Args:
        key: name of its CSV file, and its anchor.
        title: caption.
        columns: of every row.
        rows: a cell a column.
        marked: indices of rows that stand out.
        totals: how many of the last rows sum the others up, and are not sorted with them.
        groups: a text a row by which rows can be chosen; empty where they cannot.
        group_name: what the groups are.
        note: what a reader must know to read it.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()
    totals: int = 0
    groups: tuple[str, ...] = ()
    group_name: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """What a plot's legend names: some of its traces, shown and hidden together.

    Args:
        name: for a reader.
        colour: name of a colour of the page's style, such as "depth".
        shape: of its swatch: "circle", "square", "diamond", "triangle", "star", "line" or "dash".
        traces: indices.
    """

    name: str
    colour: str
    shape: str
    traces: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """An interactive plot.

    Args:
        key: its anchor.
        title: caption.
        description: what it shows, for a reader who does not see it.
        traces: of plotly; where a colour is due, "--NAME" is one of the page's style.
        layout: of plotly, without what the page's style decides.
        series: its legend.
        table: key of the table that holds its numbers.
        ranges: x range by group of that table, to which the plot turns when the group is chosen.
        height: pixels.
        note: what a reader must know to read it.
    """

    key: str
    title: str
    description: str
    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    series: tuple[Series, ...] = ()
    table: str = ""
    ranges: dict[str, list[float]] = field(default_factory=dict)
    height: int = 420
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with values; `wide` where the values are sentences."""

    key: str
    title: str
    rows: tuple[tuple[str, str], ...]
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture: its file within the report's folder, type, bytes, and what it shows."""

    file: str
    mime: str
    data: bytes
    title: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Rows of pictures of one frame each.

    Args:
        key: its anchor.
        title: caption.
        rows: name of the frame and its pictures, as many in every row.
        legend: classes with their RGB.
        note: where the frames come from, and how they may be used.
    """

    key: str
    title: str
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]
    legend: tuple[tuple[str, tuple[int, int, int]], ...]
    note: str


Item = Table | Plot | Facts | Gallery


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report: a heading, paragraphs, and what follows them."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report.

    Args:
        title: its name.
        lead: what was found, in a sentence or two.
        sections: its parts.
        made: how it was made.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    made: str

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table, in the order of the page."""
        return tuple(item for section in self.sections for item in section.items if isinstance(item, Table))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture, in the order of the page."""
        galleries = [item for section in self.sections for item in section.items if isinstance(item, Gallery)]
        return tuple(picture for gallery in galleries for _, pictures in gallery.rows for picture in pictures)


def number(value: Cell) -> float | None:
    """What a cell is sorted and plotted by: a finite or infinite number; None for text and for what is not there."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def shown(column: Column, value: Cell) -> str:
    """A cell as a reader sees it; "-" where there is nothing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return slope_text(value) if column.form == SLOPE else format(value, column.form or "g")


def listed(values: Sequence[str]) -> str:
    """Texts as an enumeration: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)
