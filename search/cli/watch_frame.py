"""A run at a moment as a picture of text: the chain, the step at work with its candidates, time and cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lpsnet.data import data_name
from search.cli.console import visible
from search.step import slope_text
from search.watch import FAILED, SCORED, TRAINING, Row, View, Work

if TYPE_CHECKING:
    from search.step import Step

_STYLES = {"running": "bold green", "finished": "bold blue", "paused": "bold yellow", "stopped": "bold red"}
_FIXED_LINES = 12
"""Of a frame, besides the rows of its two tables."""


def frame(view: View, now: datetime, *, height: int = 0, hint: str = "") -> RenderableType:
    """What is shown.

    Args:
        view: the run.
        now: UTC.
        height: lines there are; of a longer chain only its end is shown. 0 for any number.
        hint: a last line, such as how to leave.
    """
    work = view.work
    room = max(2, height - _FIXED_LINES - (len(work.rows) + 3 if work and work.rows else 0)) if height else len(view.steps)
    parts: list[RenderableType] = [_head(view), _time_line(view, now), Text(""), _chain(view.steps, room)]
    if work is not None:
        parts += [Text(""), *_at_work(work, running=view.state == "running")]
    if view.stopped:
        parts.append(Text(visible(f"the search stopped: {view.stopped}"), style="red"))
    if hint:
        parts += [Text(""), Text(hint, style="dim")]
    return Group(*parts)


def duration(seconds: float) -> str:
    """A time for a reader, in two units at most: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = round(max(0.0, seconds))
    for size, unit, below, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def _head(view: View) -> Text:
    config = view.config
    text = Text()
    text.append(f"{visible(str(view.path))}  ", style="bold")
    text.append(view.state, style=_STYLES[view.state])
    if view.driver is not None and view.state == "running":
        text.append(f" by process {view.driver}")
    if view.state == "paused":
        text.append(f": nobody drives it on this machine; go on with lps-search resume {visible(str(view.path))}")
    taken = max(0, len(view.steps) - 1)
    text.append(f"\n{taken} of {config.steps} steps, {data_name(config.data)} at {config.height}x{config.width}, ")
    return text.append(f"latency to the {config.boundary} by {config.backend} on {view.device}")


def _time_line(view: View, now: datetime) -> Text:
    """When, how long, and what it took."""
    end = now if view.state == "running" else view.changed
    cost = view.cost
    text = Text(f"began {view.began.astimezone():%Y-%m-%d %H:%M}, {duration((end - view.began).total_seconds())} ")
    text.append("so far" if view.state == "running" else "to its last change")
    if view.state == "running":
        text.append(f", last change {duration((now - view.changed).total_seconds())} ago")
    if view.work is not None and view.state != "stopped":
        left = "unknown until a training has ended" if view.remaining_s is None else f"about {duration(view.remaining_s)} (estimated)"
        text.append(f"; left: {left}")
    text.append(f"\ntook {cost.trainings} trainings in {duration(cost.training_s)}")
    return text.append(f" and {cost.latencies} latencies in {duration(cost.latency_s)}")


def _chain(steps: Sequence[Step], room: int) -> Table:
    shown = steps[-room:]
    hidden = len(steps) - len(shown)
    title = "the chain" + (f" (without its first {hidden})" if hidden else "") + (": nothing is decided yet" if not steps else "")
    table = _table(title, ("step", "expansion", "network"), ("ms", "mIoU", "gain", "gain/ms"))
    for step in shown:
        chosen, parent = step.chosen, step.parent
        table.add_row(
            str(step.number),
            step.chosen_trial.candidate.text,
            str(chosen.architecture),
            f"{chosen.latency_ms:.3f}",
            f"{chosen.miou_percent:.2f}",
            "-" if parent is None else f"{chosen.miou_percent - parent.miou_percent:+.2f}",
            slope_text(step.chosen_trial.slope),
        )
    return table


def _at_work(work: Work, *, running: bool) -> list[RenderableType]:
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text(f"step {work.step}: {work.text}"), ProgressBar(total=work.total, completed=work.done, width=24), f"{work.done}/{work.total}"
    )
    if not work.rows:
        return [bar]
    table = _table("", ("candidate", "network"), ("ms", "mIoU", "gain", "gain/ms", "time", "state"))
    best = max((row.slope for row in work.rows if row.slope is not None), default=None)
    for row in work.rows:
        leading = row.slope is not None and row.slope == best
        table.add_row(
            *map(Text, _cells(row, running)), style={TRAINING: "cyan", FAILED: "red"}.get(row.state, "bold green" if leading else "")
        )
    return [bar, table]


def _cells(row: Row, running: bool) -> tuple[str, ...]:
    state = "begun" if row.state == TRAINING and not running else row.state
    return (
        row.expansion,
        row.architecture,
        f"{row.latency_ms:.3f}",
        "-" if row.miou_percent is None else f"{row.miou_percent:.2f}",
        "-" if row.gain_percent is None else f"{row.gain_percent:+.2f}",
        "-" if row.slope is None else slope_text(row.slope),
        duration(row.seconds) if row.seconds is not None and (running or row.state in (SCORED, FAILED)) else "-",
        visible(f"failed: {row.failure}") if row.state == FAILED else state,
    )


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    from rich import box

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right" if name != "state" else "left", overflow="fold")
    return table
