"""Tables and pictures for every verb's files alike: CSV, also one that grows by rows, Markdown, PNG."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lpsnet.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def csv_text(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows as CSV, numbers with six digits; nothing stands for None and for what is no number.

    Args:
        rows: by column.
        columns: in order; by default those of all rows, in the order they come.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def digest_of(path: Path) -> str:
    """SHA-256 of a file; empty where there is none. Raises `UserError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def uncomputed(text: str) -> str:
    """A text for a CSV file that a spreadsheet would compute begins with an apostrophe."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def open_alone(path: Path) -> IO[str]:
    """Open a file of a folder to read and append to, which keeps others who open it so out of the folder until it is closed.

    Raises:
        UserError: it cannot be written, or another process has it open.
    """
    try:
        file = path.open("a+")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; name another folder with --out") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(f"{path.parent} is in use by another process; name another folder with --out") from None
    return file


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file, which is made when absent; a last line that a kill has torn gives way.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            whole = file.read().rpartition(b"\n")
            file.truncate(len(whole[0] + whole[1]))
            _, _, line = csv_text([row]).partition("\n")
            file.write((line if whole[0] else csv_text([row])).encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def grown_rows(path: Path) -> list[dict[str, str]]:
    """The rows that `append_row` wrote, none where there is no file; a last line that a kill has torn is none.

    Raises:
        ValueError: the file is no CSV.
    """
    text = path.read_text() if path.exists() else ""
    return csv_rows(text[: text.rfind("\n") + 1])


def csv_rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV text. Raises `ValueError` where it is none, or a row has more cells or fewer than the first line has names."""
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has not as many cells as there are columns")
    return rows


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if value == value else ""


def plain(text: str) -> str:
    """A text that Markdown shows as it is, in a line and in a cell: no markup of its own or of HTML, no line break."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~#!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", line)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table, whose cells are shown as they are."""
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in cells)]


def made_by(provenance: Mapping[str, Any]) -> str:
    """The line of a report that says where it comes from, of what `search.run.provenance` gives and the `seconds` it took, if known."""
    command, commit, created = (provenance.get(name) or "unknown" for name in ("command", "commit", "created"))
    spent = f", in {seconds / 60:.1f} minutes" if (seconds := provenance.get("seconds")) else ""
    return f"Made by `{command}` at commit {commit} on {created}{spent}."


def new_figure(width: float, height: float, dpi: int = 120) -> Figure:
    """An empty figure of so many inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def latency_axis(axes: Axes) -> None:
    """Make the horizontal axis one of latencies: logarithmic, with its ticks as plain numbers that leave each other room.

    Args:
        axes: in which everything is drawn that has a latency.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    least, most = axes.dataLim.intervalx
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if most > 10 * least else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("latency in ms")


def name_points(axes: Axes, points: Sequence[tuple[float, float, str]], fontsize: float = 6) -> None:
    """Write names beside points, moved off each other, with a line to the point where one had to go far.

    Args:
        axes: with everything else in them drawn, as what comes later could cover a name.
        points: across, up, name.
        fontsize: of the names.
    """
    from adjustText import adjust_text

    if not points:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # where things lie is known only then
    texts = [axes.text(across, up, name, fontsize=fontsize) for across, up, name in points]
    line = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.4}
    adjust_text(texts, ax=axes, iter_lim=300, expand=(1.15, 1.35), arrowprops=line)


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
