"""What every verb shares on the terminal: one-line complaints, parsing of sizes, tables, and the live progress of a search."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from lpsnet.errors import UserError
from search.observer import Observer

MOST_LETTERS = 4000
"""Of a complaint; what a file holds in place of a name may be long."""


def complain(message: str, code: int) -> int:
    """Print one line to stderr and return the exit code."""
    line = visible(" ".join(message.split()))
    print("error: " + (line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]} ..."), file=sys.stderr)
    return code


def visible(text: str) -> str:
    """A text in which what would command the terminal is written out: names and reasons may come from files of others."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def parse_size(text: str, option: str = "--input") -> tuple[int, int]:
    """Read HxW, for example 360x480, as (height, width).

    Raises:
        UserError: the text is something else.
    """
    height, separator, width = text.lower().partition("x")
    if not (separator and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UserError(f"{option} takes a size as HEIGHTxWIDTH in pixels, such as 360x480, got {text!r}")
    return int(height), int(width)


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas, for example 100,200; none from an empty text.

    Raises:
        UserError: the text is something else.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"{option} takes whole numbers separated by commas, such as 100,200, got {text!r}") from None


def print_table(title: str, columns: list[str], rows: list[list[Any]], *, marked: int | None = None) -> None:
    """Print a table to stdout; the row at index `marked` stands out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(title)), title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for number, row in enumerate(rows):
        table.add_row(*(Text(visible(str(value))) for value in row), style="bold green" if number == marked else None)
    # A pipe has no width of its own; a table cut to 80 columns there would lose text.
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows to a CSV file and make its folder.

    Raises:
        UserError: the path cannot be written.
    """
    from latency.files import replace_file
    from search.files import csv_text

    try:
        replace_file(path, csv_text(rows).encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


class Live(Observer):
    """Progress bars on a terminal; on anything else a line now and then."""

    _LABELS: ClassVar = {
        "steps": "steps",
        "latencies": "measuring",
        "candidates": "training",
        "frames": "  frames",
        "iterations": "  iterations",
        "epochs": "epochs",
        "validation": "  validation",
    }
    _QUIET_S = 5.0

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:13}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self._spoken = 0.0
        self._context = ""

    def __enter__(self) -> Live:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def work(self, what: str, done: int, total: int, detail: str = "") -> None:
        """See `Observer.work`."""
        if what in ("latencies", "candidates"):
            self._context = detail
        if not self._console.is_terminal:
            self._speak(what, done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(self._LABELS[what], total=total, detail=detail)
        elif done < self._counts[what][0] or total != self._counts[what][1]:
            self._bars.reset(self._tasks[what], total=total)
        self._counts[what] = (done, total)
        finished_inner = done == total and what in ("frames", "iterations", "validation")
        self._bars.update(self._tasks[what], completed=done, detail=visible(detail), visible=not finished_inner)

    def note(self, text: str) -> None:
        """See `Observer.note`."""
        self._console.print(visible(text), markup=False, highlight=False)

    def _speak(self, what: str, done: int, total: int) -> None:
        if what == "steps" or time.monotonic() - self._spoken < self._QUIET_S:
            return
        self._spoken = time.monotonic()
        self.note(f"{self._context + ': ' if self._context else ''}{self._LABELS[what].strip()} {done}/{total}")
