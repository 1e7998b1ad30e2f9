"""A run's report put together, and written as one page, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency.files import replace_file
from lpsnet.errors import UserError
from search.files import uncomputed
from search.journal import without_password
from search.observer import Observer
from search.pages.candidates import candidates_section
from search.pages.chain import chain_section
from search.pages.classes import classes_section
from search.pages.content import Cell, Report, Table
from search.pages.costs import cost_section, environment_section, omissions_section, when
from search.pages.facts import RunFacts, read_facts
from search.pages.front import front_section
from search.pages.html import page
from search.pages.latencies import latency_section
from search.pages.markdown import markdown
from search.pages.others import read_others
from search.pages.picked import picked_section
from search.pages.pictures import PicturePlan, check_plan, pictures_section
from search.run import Run, provenance, read_json

PAGE, TEXT, TABLES = "report.html", "report.md", "tables"

NOT_ALWAYS = ("picks", "picked-classes", "classes", "networks", "searches", "unstable", "omissions")
"""Tables that not every report has: those of an earlier report go when a new one lacks them."""


@dataclass(frozen=True, kw_only=True)
class ReportPlan:
    """What to report, besides the run.

    Args:
        out: folder of the report.
        beside: folders of results of other commands to show beside the run.
        pictures: which pictures.
    """

    out: Path
    pictures: PicturePlan
    beside: list[Path] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written.

    Args:
        page: file of the page.
        bytes: its size.
        seconds: spent.
        tables: how many.
        pictures: how many.
        omissions: what the report lacks, for a reader.
    """

    page: Path
    bytes: int
    seconds: float
    tables: int
    pictures: int
    omissions: list[str]


def write_run_report(run: Run, plan: ReportPlan, observer: Observer) -> Written:
    """Write the report of an open run.

    Raises:
        UserError: a run that has decided nothing, a folder or step that cannot be used, or an `out` that cannot be written.
    """
    start = time.perf_counter()
    facts = read_facts(run)
    report = build_report(facts, plan, observer)
    text = page(report)
    try:
        for key in NOT_ALWAYS:
            (plan.out / TABLES / f"{key}.csv").unlink(missing_ok=True)
        for table in report.tables:
            replace_file(plan.out / TABLES / f"{table.key}.csv", table_csv(table).encode())
        replace_file(plan.out / TEXT, markdown(report, _trajectory(run, plan.out)).encode())
        replace_file(plan.out / PAGE, text.encode())
    except OSError as error:
        raise UserError(f"cannot write {plan.out}: {error}; name another folder with --out") from error
    return Written(
        page=plan.out / PAGE,
        bytes=len(text.encode()),
        seconds=time.perf_counter() - start,
        tables=len(report.tables),
        pictures=len(report.pictures),
        omissions=[": ".join(part for part in (omission.where, omission.what, omission.why) if part) for omission in facts.omissions],
    )


def build_report(facts: RunFacts, plan: ReportPlan, observer: Observer) -> Report:
    """All that the report says. Raises as `write_run_report`."""
    check_plan(facts, plan.pictures)
    others = read_others(facts, plan.beside)
    told = _environment(facts.run.path)
    pictures = pictures_section(facts, plan.pictures, observer)
    first, last = facts.steps[0].chosen, facts.steps[-1].chosen
    config = facts.run.config
    lead = (
        f"{len(facts.steps)} networks in {len(facts.steps) - 1} steps on {facts.data} at {config.height}x{config.width}: from "
        f"{first.miou_percent:.2f} % mIoU at {first.latency_ms:.3f} ms to {last.miou_percent:.2f} % at {last.latency_ms:.3f} ms "
        f"({config.backend} on {facts.run.environment.device}, to the {config.boundary})."
    )
    picked = picked_section(facts)
    sections = (
        *(
            chain_section(facts),
            *([picked] if picked else []),
            candidates_section(facts),
            front_section(facts, others),
            classes_section(facts),
            pictures,
        ),
        *(latency_section(facts, others.noise), cost_section(facts), environment_section(facts, told), omissions_section(facts)),
    )
    here = provenance()
    made = (
        f"Made by {without_password(here['command'])} at commit {here['commit'] or 'unknown'} on {when(here['created'])}, "
        f"from the stores of {facts.run.path}; nothing was measured or trained for it."
    )
    return Report(title=f"{facts.run.path.resolve().name}: a family of networks", lead=lead, sections=sections, made=made)


def _environment(path: Path) -> dict[str, Any]:
    """What `environment.json` says; the run was opened, so it can be read."""
    return read_json(path / "environment.json")


def _trajectory(run: Run, out: Path) -> str:
    """The run's picture of its search as the Markdown form finds it, empty where there is none."""
    picture = run.path / "trajectory.png"
    if not picture.is_file():
        return ""
    return Path(os.path.relpath(picture.resolve(), out.resolve())).as_posix()


def table_csv(table: Table) -> str:
    """A table as CSV: numbers unrounded but for their last digits. A text that a spreadsheet would compute begins with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_csv_cell(column.name) for column in table.columns])
    writer.writerows([[_csv_cell(cell) for cell in row] for row in table.rows])
    return text.getvalue()


def _csv_cell(value: Cell) -> str | int | bool:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return uncomputed(value) if isinstance(value, str) else value
