"""`lps-search ablate blocks` and `ablate interactions`: Tables 2 and 3 of the paper on this device and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, complain, print_table, visible
from search.cli.options import (
    AsJson,
    Backend,
    Boundary,
    Changes,
    Data,
    Device,
    LatencyLimit,
    Parallel,
    Precision,
    Recipe,
    Seconds,
    StorePath,
    Threads,
    TrainingDevice,
    TrainingPrecision,
    classes_of,
    given_options,
    make_conditions,
    recipe_of,
    resolve_device,
)

if TYPE_CHECKING:
    from search.ablation import AblationPlan
    from search.ablation_run import Ablation

Width = Annotated[
    int | None, typer.Option(help="c of the baseline, whose stages have c, 2c, 4c, 8c and 8c channels. Default: the paper's.", min=1)
]
Fit = Annotated[
    bool, typer.Option("--fit", help="Interactions also at the width whose latency is nearest the baseline's, as blocks always are.")
]
Size = Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the network's input. Default: the recipe's, or the data set's own.")]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Measure and train nothing; report what has accrued in --out.")]

REPORTS_TAKE = ("table", "out", "report_only", "as_json")


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("ablate")(ablate)


def ablate(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="blocks (the paper's Table 2) or interactions (Table 3).")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; what is there is not repeated. Default: ablation-TABLE.")] = None,
    only: Annotated[str, typer.Option(help="Compare these with the baseline, comma-separated. Default: all.")] = "",
    width: Width = None,
    fit: Fit = False,
    target_ms: Annotated[float | None, typer.Option(help="Fit widths to this latency. Default: that of the baseline at --width.")] = None,
    size: Size = "",
    boundary: Boundary = "scores",
    backend: Backend = "ort",
    device: Device = "cpu",
    latency_precision: Precision = "fp32",
    threads: Threads = 0,
    seconds: Seconds = 0.4,
    limit: LatencyLimit = 900.0,
    store: StorePath = None,
    data: Data = "synthetic",
    recipe: Recipe = "camvid",
    iterations: Annotated[int, typer.Option(help="Of every training; 0 for the recipe's own.", min=0)] = 0,
    changes: Changes = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each network; one gives no interval and no verdict.", min=1)] = 3,
    precision: TrainingPrecision = "fp32",
    parallel: Parallel = 1,
    training_device: TrainingDevice = "auto",
    report_only: ReportOnly = False,
    as_json: AsJson = False,
) -> None:
    """Blocks at a width of equal latency, or interactions at one width, measured, trained and scored; killed, it goes on."""
    from lpsnet.data import DataSpec, native_size
    from search.ablation import TABLES, AblationPlan

    if table not in TABLES:
        raise UserError(f"unknown ablation {table!r}; there are: {', '.join(TABLES)}")
    folder = out or Path(f"ablation-{table}")
    if report_only:
        _report_only(context, table, folder, as_json)
        return
    chosen, spec = recipe_of(recipe, changes, iterations=iterations, size=size), DataSpec.parse(data)
    conditions = make_conditions(chosen.input_size(native_size(spec)), boundary, backend, device, latency_precision, threads, seconds)
    same: dict[str, Any] = {"data": str(spec), "recipe": chosen, "target_ms": target_ms, "fit": fit, "seeds": seeds, "precision": precision}
    same |= {"classes": classes_of(data), "training_device": resolve_device(training_device, "--training-device")}
    same |= {"kinds": tuple(name.strip() for name in only.split(",")) if only else TABLES[table].kinds}
    same |= {"width": TABLES[table].width if width is None else width}
    plan = AblationPlan(table=table, conditions=conditions, **same)
    _ablate(plan, folder, store, limit, parallel, as_json)


def _report_only(context: typer.Context, table: str, out: Path, as_json: bool) -> None:
    from search.ablation_run import read_ablation

    for name, option in given_options(context).items():
        if name not in REPORTS_TAKE:
            raise UserError(f"{option} does not go with --report-only, which reports all that has accrued in --out")
    _report(read_ablation(table, out), out, as_json)


def _ablate(plan: AblationPlan, out: Path, store: Path | None, limit: float, parallel: int, as_json: bool) -> None:
    """Measure, train, write the files after each training, and print the table; exit code 1 where nothing could be measured."""
    from latency.store import Store, default_store_path
    from search.ablation_report import write_files
    from search.ablation_run import run_ablation

    def on_part(part: Ablation) -> None:
        write_files(out, part, picture=False)

    opened = Store(store or default_store_path())
    with Live() as live:
        try:
            known = run_ablation(plan, out, opened, live, on_part, limit_s=limit, parallel=parallel)
        finally:
            opened.close()
    _report(known, out, as_json)
    if all(row.latency_ms is None for row in known.placed):
        raise typer.Exit(complain("none of the networks could be measured", 1))


def _report(known: Ablation, out: Path, as_json: bool) -> None:
    from search.ablation_report import reading, table, title, write_files

    rows = write_files(out, known)
    if as_json:
        print(json.dumps(rows))
        return
    columns, cells = table(known, rows, brief=True)
    print_table(title(known), columns, cells)
    for line in reading(known, rows):
        print(visible(line))
    print(visible(f"table, figure and provenance are in {out}"))
