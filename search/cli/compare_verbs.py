"""`lps-search compare`: any networks side by side, under the same conditions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.console import Live, complain, parse_size, print_table, visible
from search.cli.options import (
    AsJson,
    Backend,
    Changes,
    Classes,
    Device,
    Parallel,
    Precision,
    Recipe,
    Threads,
    TrainingDevice,
    classes_of,
    make_conditions,
    recipe_of,
    resolve_device,
)

if TYPE_CHECKING:
    from lpsnet.recipe import TrainRecipe
    from search.compare_plan import ComparePlan


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("compare")(compare)


def compare(
    networks: Annotated[
        list[str] | None, typer.Argument(help="Names and texts of networks, checkpoints (.safetensors), ONNX files (.onnx) of any tool.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every network that has a name, too (lps-search networks).")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results; a comparison that was stopped is continued.")] = Path("comparison"),
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the image; default: what --train trains at, else 512x1024.")] = "",
    classes: Classes = 19,
    boundary: Annotated[str, typer.Option(help="Where they are ranked: labels, scores or logits; labels and scores are shown.")] = "labels",
    backend: Backend = "ort",
    device: Device = "cpu",
    precision: Precision = "fp32",
    threads: Threads = 0,
    rounds: Annotated[int, typer.Option(help="Turns of each network, and at most as many more where they do not agree.", min=1)] = 2,
    seconds: Annotated[float, typer.Option(help="Sample a network for this long in a turn, at least once.", min=0.0, max=86_400.0)] = 0.4,
    limit: Annotated[
        float,
        typer.Option(help="End building, or a turn, of a network after so many seconds; 0: no limit, no memory.", min=0.0, max=86_400.0),
    ] = 300.0,
    data: Annotated[str, typer.Option(help="Data set, NAME or NAME:PATH, to score checkpoints on and to train with.")] = "",
    iterations: Annotated[int, typer.Option("--train", help="Train the networks without weights for so many iterations.", min=0)] = 0,
    recipe: Recipe = "camvid",
    changes: Changes = None,
    seed: Annotated[int, typer.Option(help="Of these trainings.", min=0, max=2**63 - 1)] = 0,
    seeds: Annotated[int, typer.Option(help="Trainings of each network, with the seed and those after it.", min=1, max=1000)] = 1,
    training_precision: Annotated[str, typer.Option(help="fp32, bf16 (a GPU, or a CPU that computes in it) or fp16 (a GPU).")] = "fp32",
    parallel: Parallel = 1,
    training_device: TrainingDevice = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure latency and memory of networks in turns, count what they cost, and score or train them; killed, it goes on."""
    from search.compare_entries import parse_entries
    from search.compare_plan import ComparePlan

    trained = recipe_of(recipe, changes, iterations=iterations, option="--train") if iterations else None
    shape = parse_size(size) if size else _default_size(trained, data)
    plan = ComparePlan(
        conditions=make_conditions(shape, boundary, backend, device, precision, threads, seconds),
        entries=parse_entries(networks or [], shape, classes_of(data) if data else classes, every=every),
        boundary=boundary,
        rounds=rounds,
        limit_s=limit,
        data=data,
        recipe=trained,
        seeds=tuple(range(seed, seed + seeds)),
        precision=training_precision,
        parallel=parallel,
        training_device=resolve_device(training_device, "--training-device"),
    )
    _compare(plan, out, as_json)


def _default_size(recipe: TrainRecipe | None, data: str) -> tuple[int, int]:
    """A latency is to be that of the input which a score is of."""
    from lpsnet.data import DataSpec, native_size

    return recipe.input_size(native_size(DataSpec.parse(data))) if recipe and data else (512, 1024)


def _compare(plan: ComparePlan, out: Path, as_json: bool) -> None:
    """Compare, write the files, and print the table; exit code 1 where no network could be measured."""
    from latency.backends import usable_backend
    from latency.environment import environment
    from search.compare_report import rows_of, table, write_files
    from search.compare_run import run_comparison

    at = plan.conditions
    here = dataclasses.asdict(environment(usable_backend(at.backend, at.device), at.device))
    with Live() as live:
        found = run_comparison(plan, out, live, lambda part: write_files(out, rows_of(part, plan), plan, here, picture=False))
        rows = rows_of(found, plan)
        write_files(out, rows, plan, here)
    if as_json:
        print(json.dumps(rows))
    else:
        columns, cells = table(rows, plan)
        print_table(f"{len(rows)} networks at {at.shape[2]}x{at.shape[3]}, {at.backend} on {here['device']}", columns, cells)
        print(visible(f"table, figure and provenance are in {out}"))
    if not any(row["rounds"] for row in rows):
        raise typer.Exit(complain("none of the networks could be measured", 1))
