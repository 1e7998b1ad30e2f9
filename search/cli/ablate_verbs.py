"""`lps-search ablate blocks` and `ablate interactions`: Tables 2 and 3 of the paper on this device and data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, complain, parse_size, print_table
from search.cli.measure_verbs import AsJson, Backend, Device, Precision, Seconds, StorePath, Threads, make_conditions
from search.cli.search_verbs import LatencyLimit
from search.cli.train_verbs import Data, TrainingDevice

if TYPE_CHECKING:
    from lpsnet.recipe import TrainRecipe
    from search.ablation import AblationPlan
    from search.ablation_run import Ablation

Out = Annotated[Path, typer.Option(help="Folder of the results; what is there is not repeated.")]
Only = Annotated[str, typer.Option(help="Compare these with the baseline, comma-separated. Default: all.")]
Width = Annotated[int, typer.Option(help="c of the baseline, whose stages have c, 2c, 4c, 8c and 8c channels.", min=1)]
Target = Annotated[float | None, typer.Option(help="Fit widths to this latency. Default: that of the baseline at --width.")]
Size = Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the network's input. Default: the recipe's, or the data set's own.")]
Boundary = Annotated[str, typer.Option(help="Where the timed graph ends: scores (as in the paper), logits or labels.")]
Recipe = Annotated[str, typer.Option(help="Of every training, see lps-search train.")]
Iterations = Annotated[int, typer.Option(help="Of every training; 0 for the recipe's own.", min=0)]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a field of the recipe, NAME=VALUE; may be repeated.")]
Seeds = Annotated[int, typer.Option(help="Trainings of each network; one gives no interval and no verdict.", min=1)]
TrainingPrecision = Annotated[str, typer.Option("--precision", help="Of the trainings: fp32, bf16 or fp16.")]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Measure and train nothing; report what has accrued in --out.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    group = typer.Typer(help="Repeat the paper's Tables 2 and 3 here.", no_args_is_help=True)
    group.command("blocks")(blocks)
    group.command("interactions")(interactions)
    app.add_typer(group, name="ablate")


def blocks(
    out: Out = Path("ablation-blocks"),
    only: Only = "",
    width: Width = 14,
    target_ms: Target = None,
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
    iterations: Iterations = 0,
    changes: Changes = None,
    seeds: Seeds = 3,
    precision: TrainingPrecision = "fp32",
    training_device: TrainingDevice = "auto",
    report_only: ReportOnly = False,
    as_json: AsJson = False,
) -> None:
    """Table 2: every block at the width whose latency is nearest the others', trained and scored; killed, it goes on."""
    measuring = {"boundary": boundary, "backend": backend, "device": device, "precision": latency_precision, "threads": threads}
    training = {"recipe": recipe, "iterations": iterations, "changes": changes or []}
    rest = {"width": width, "target_ms": target_ms, "seeds": seeds, "precision": precision}
    if report_only:
        _report_only("blocks", out, as_json)
        return
    plan = _plan("blocks", only, data, size, training_device, {**measuring, "seconds": seconds}, training, rest)
    _ablate(plan, out, store, limit, as_json)


def interactions(
    out: Out = Path("ablation-interactions"),
    only: Only = "",
    width: Width = 16,
    fit: Annotated[bool, typer.Option("--fit", help="Also each at the width whose latency is nearest the baseline's.")] = False,
    target_ms: Target = None,
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
    iterations: Iterations = 0,
    changes: Changes = None,
    seeds: Seeds = 3,
    precision: TrainingPrecision = "fp32",
    training_device: TrainingDevice = "auto",
    report_only: ReportOnly = False,
    as_json: AsJson = False,
) -> None:
    """Table 3: every interaction at one width, each with its own latency, trained and scored; killed, it goes on."""
    measuring = {"boundary": boundary, "backend": backend, "device": device, "precision": latency_precision, "threads": threads}
    training = {"recipe": recipe, "iterations": iterations, "changes": changes or []}
    rest = {"width": width, "target_ms": target_ms, "fit": fit, "seeds": seeds, "precision": precision}
    if report_only:
        _report_only("interactions", out, as_json)
        return
    plan = _plan("interactions", only, data, size, training_device, {**measuring, "seconds": seconds}, training, rest)
    _ablate(plan, out, store, limit, as_json)


def _plan(
    table: str,
    only: str,
    data: str,
    size: str,
    training_device: str,
    measuring: dict[str, Any],
    training: dict[str, Any],
    rest: dict[str, Any],
) -> AblationPlan:
    """What the command line asks for. Raises `UserError`."""
    from lpsnet.data import DataSpec, native_size, open_split
    from search.ablation import TABLES, AblationPlan
    from search.cli.search_verbs import resolve_device

    chosen = _recipe(**training, size=size)
    spec = DataSpec.parse(data)
    kinds = tuple(name.strip() for name in only.split(",")) if only else TABLES[table].kinds
    conditions = make_conditions(chosen.input_size(native_size(spec)), **measuring)
    return AblationPlan(
        table=table,
        kinds=kinds,
        conditions=conditions,
        classes=open_split(spec, "val", native_size(spec)).num_classes,
        data=str(spec),
        recipe=chosen,
        training_device=resolve_device(training_device, "--training-device"),
        **rest,
    )


def _recipe(recipe: str, iterations: int, changes: list[str], size: str) -> TrainRecipe:
    """A named recipe at another length and input size: its warm-up is at most a tenth of the one, its crop no larger than the other.

    Raises:
        UserError: an unknown recipe or field, or a field that another option says.
    """
    from lpsnet.recipe import changed, named_recipe

    told, fields = named_recipe(recipe), {change.partition("=")[0] for change in changes}
    for option, given, names in (("--iterations", iterations, {"iterations"}), ("--input", size, {"input_height", "input_width"})):
        if given and (twice := sorted(names & fields)):
            raise UserError(f"{option} says that already; leave out --set {twice[0]}")
    if iterations:
        told = dataclasses.replace(told, iterations=iterations, warmup_iterations=min(told.warmup_iterations, max(1, iterations // 10)))
    if size:
        height, width = parse_size(size)
        crop: dict[str, Any] = {"crop_height": min(told.crop_height, height), "crop_width": min(told.crop_width, width)}
        told = dataclasses.replace(told, input_height=height, input_width=width, **crop)
    return changed(told, changes)


def _ablate(plan: AblationPlan, out: Path, store: Path | None, limit: float, as_json: bool) -> None:
    """Measure, train, write the files after each training, and print the table; exit code 1 where nothing could be measured."""
    from latency.store import Store, default_store_path
    from search.ablation_report import write_files
    from search.ablation_run import run_ablation

    def on_part(part: Ablation) -> None:
        write_files(out, part, picture=False)

    opened = Store(store or default_store_path())
    with Live() as live:
        try:
            known = run_ablation(plan, out, opened, live, on_part, limit_s=limit)
        finally:
            opened.close()
    _report(known, out, as_json)
    if all(row.latency_ms is None for row in known.placed):
        raise typer.Exit(complain("none of the networks could be measured", 1))


def _report_only(table: str, out: Path, as_json: bool) -> None:
    from search.ablation_run import read_ablation

    _report(read_ablation(table, out), out, as_json)


def _report(known: Ablation, out: Path, as_json: bool) -> None:
    from search.ablation_report import reading, table, title, write_files

    rows = write_files(out, known)
    if as_json:
        print(json.dumps(rows))
        return
    columns, cells = table(known, rows, brief=True)
    print_table(title(known), columns, cells)
    for line in reading(known, rows):
        print(line)
    print(f"table, figure and provenance are in {out}")
