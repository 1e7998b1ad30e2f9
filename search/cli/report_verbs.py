"""`lps-search report`: a run as a page to show to others, as Markdown and as CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.console import Live, visible
from search.cli.many_values import ManyValues
from search.cli.options import AsJson

if TYPE_CHECKING:
    from search.pages.pictures import Pick

SHOWN_OMISSIONS = 5
"""So many of what a report lacks are told on the terminal; the report tells all."""


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("report", cls=ManyValues)(report)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report. Default: report in the run's folder.")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--with", help="Folder of compare, bench-table or rival to show beside the run; may be repeated. Others are found."),
    ] = None,
    picks: Annotated[
        list[str] | None, typer.Option("--pick", help="Pictures of networks by step, each with a name: S=1 L=2. Default: the run's picks.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames to show pictures of; 0: none.", min=0, max=50)] = 4,
    data: Annotated[str, typer.Option(help="Where the run's data set lies now, NAME:PATH. Default: where it lay.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write a run's report: one HTML page that needs no network, the same as Markdown, and its tables as CSV."""
    import dataclasses

    from search.pages.build import ReportPlan, write_run_report
    from search.pages.pictures import PicturePlan
    from search.run import Run

    folder = out or run / "report"
    shown = [parse_pick(text) for text in picks] if picks else remembered(run)
    pictures = PicturePlan(picks=tuple(shown), frames=frames, data=data, folder=folder)
    with Run.read(run) as opened, Live() as live:
        written = write_run_report(opened, ReportPlan(out=folder, pictures=pictures, beside=beside or []), live)
    if as_json:
        print(json.dumps({**dataclasses.asdict(written), "page": str(written.page)}))
        return
    summary = f"{written.bytes / 1e6:.1f} MB, {written.tables} tables, {written.pictures} pictures, in {written.seconds:.1f} s"
    print(visible(f"{written.page}: {summary}; report.md and tables/ lie beside it"))
    for omission in written.omissions[:SHOWN_OMISSIONS]:
        print(visible(f"note: {omission}"))
    if len(written.omissions) > SHOWN_OMISSIONS:
        print(f"note: {len(written.omissions) - SHOWN_OMISSIONS} more are in the report")


def remembered(run: Path) -> list[Pick]:
    """What `lps-search family` keeps in a run, from the first step on. Raises `RunError` for a damaged file."""
    from search.pages.pictures import Pick
    from search.picks import read_picks

    picked = read_picks(run).picked
    return sorted(
        (Pick(name=name, step=one.step, architecture=one.architecture) for name, one in picked.items()), key=lambda pick: pick.step
    )


def parse_pick(text: str) -> Pick:
    """Read NAME=STEP, for example S=7.

    Raises:
        UserError: the text is something else.
    """
    from lpsnet.errors import UserError
    from search.pages.pictures import Pick

    name, separator, step = text.rpartition("=")
    if not separator or not name.strip() or not step.isdecimal():
        raise UserError(f"--pick takes NAME=STEP, such as S=7, got {text!r}")
    return Pick(name=name.strip(), step=int(step))
