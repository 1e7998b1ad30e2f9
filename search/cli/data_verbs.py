"""`lps-search data check` and `data study`: is a data set as expected, and does it reward depth, width and scale."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from lpsnet.recipe import PROXY_BATCH
from search.cli.console import Live, parse_size, print_table, visible, write_rows
from search.cli.options import (
    AsJson,
    Batch,
    Changes,
    Compiler,
    Data,
    OwnSize,
    Recipe,
    TrainingDevice,
    TrainingPrecision,
    recipe_of,
    resolve_device,
)

if TYPE_CHECKING:
    from lpsnet.data.frames import Source

_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    group = typer.Typer(help="Look at data sets.", no_args_is_help=True)
    group.command("check")(check)
    group.command("study")(study)
    app.add_typer(group, name="data")
    app.command("bench-data")(bench_data)


def check(
    data: Annotated[str, typer.Argument(help="NAME or NAME:PATH, for example camvid:data/camvid.")],
    sheet: Annotated[Path | None, typer.Option(help="Also draw a contact sheet of frames with their labels to this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decode every frame of a data set, in parallel, and report counts, sizes, class shares and what cannot be used."""
    import json

    from lpsnet.data import DATASETS, DataSpec, native_size
    from lpsnet.data.frames import DataError
    from search.sheets import check_sheet, draw_sheet

    spec = DataSpec.parse(data)
    row = DATASETS[spec.name]
    if sheet is not None:
        check_sheet(sheet)
    reports: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    with Live() as live:
        for split in ("train", "val", "test"):
            try:
                source = row.open(spec.path, split, native_size(spec))
            except DataError:
                if split == "test":  # a test split is often kept elsewhere
                    continue
                raise
            reports[split], found = _inspect(source, live)
            problems += found
    if sheet is not None:
        draw_sheet(row.open(spec.path, "train", native_size(spec)), sheet)
    if as_json:
        print(json.dumps({"data": str(spec), "splits": reports, "problems": problems}))
    else:
        names = list(next(iter(reports.values()))["class_share_percent"])
        rows = [[s, r["frames"], ", ".join(r["sizes"]), *(f"{r['class_share_percent'][n]:.2f}" for n in names)] for s, r in reports.items()]
        print_table(f"{spec}: share of each class in percent of the labelled pixels", ["split", "frames", "sizes", *names], rows)
        for problem in problems[:_SHOWN]:
            print(visible(problem))
    if problems:
        raise UserError(f"{spec} has {len(problems)} faults; the first: {problems[0]}")


def study(
    data: Annotated[str, typer.Argument(help="NAME or NAME:PATH.")] = "synthetic",
    out: Annotated[Path, typer.Option(help="Folder of the results; rows that are there are not repeated.")] = Path("results/synthetic"),
    size: OwnSize = "",
    iterations: Annotated[int, typer.Option(help="Training iterations a network.", min=1)] = 600,
    batch: Batch = PROXY_BATCH,
    changes: Changes = None,
    seeds: Annotated[int, typer.Option(help="Seeds a network.", min=2)] = 3,
    as_json: AsJson = False,
) -> None:
    """Train N0 and one expansion of each dimension with several seeds: which dimensions does this data set reward?"""
    import dataclasses
    import json

    from lpsnet.data import DataSpec, native_size
    from lpsnet.recipe import changed, proxy_recipe
    from search.data_study import gains, run_study
    from search.run import provenance, write_json

    spec = DataSpec.parse(data)
    shape = parse_size(size) if size else native_size(spec)
    recipe = changed(dataclasses.replace(proxy_recipe(iterations), batch_size=batch), changes or [])
    with Live() as live:
        rows = run_study(spec, shape, recipe, seeds, out, on_progress=live.work)
    found = [dataclasses.asdict(gain) for gain in gains(rows)]
    write_json(out / "summary.json", {**provenance(), "data": str(spec), "input_size": shape, "recipe": recipe.to_dict(), "gains": found})
    write_rows(out / "gains.csv", found)
    if as_json:
        print(json.dumps(found))
        return
    table = [
        [
            g["dimension"],
            g["architecture"],
            g["seeds"],
            *(f"{g[n]:+.2f}" for n in ("gain_mean", "gain_low", "gain_high", "gain_min")),
            "yes" if g["beyond_noise"] else "no",
        ]
        for g in found
    ]
    columns = ["dimension", "network", "seeds", "mean gain", "95 % from", "to", "least gain", "beyond noise"]
    print_table(f"{spec} at {shape[0]}x{shape[1]}, {iterations} iterations: mIoU over N0, paired by seed", columns, table)


def bench_data(
    data: Data = "synthetic",
    architecture: Annotated[str, typer.Option("--architecture", "--network", help="Name or text of a network.")] = "N0",
    recipe: Recipe = "camvid",
    changes: Changes = None,
    iterations: Annotated[int, typer.Option(help="Batches to time.", min=2)] = 20,
    device: TrainingDevice = "auto",
    precision: TrainingPrecision = "fp32",
    compiler: Compiler = "off",
    as_json: AsJson = False,
) -> None:
    """Images a second of the loader alone, the network alone, and both: does a training wait for its data?"""
    import dataclasses
    import json

    from lpsnet.parallel import lane_for
    from search.data_bench import bench_data as bench

    lane = lane_for(resolve_device(device), precision, compiler)
    with Live() as live:
        found = bench(data, architecture, recipe_of(recipe, changes), iterations, lane, live)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    rows = [["loader alone", f"{found.loader:.1f}"], ["network alone", f"{found.network:.1f}"], ["both", f"{found.both:.1f}"]]
    print_table(f"{architecture} on {data}", ["what", "images/s"], rows)
    print(f"the network waits for data {found.idle_percent:.2f} % of the time")


def _inspect(source: Source, live: Live) -> tuple[dict[str, Any], list[str]]:
    """Counts, sizes and class shares of one split, and a line for each frame that cannot be used."""
    import numpy as np

    from lpsnet.data.frames import IGNORE_INDEX, DataError, check_frame

    counts = np.zeros(256, np.int64)
    sizes: set[str] = set()
    problems: list[str] = []

    def look(index: int) -> tuple[np.ndarray, str] | str:
        try:
            image, label = source.decode(index)
            check_frame(source.name_of(index), image, label, len(source.class_names))
        except DataError as error:
            return str(error)
        return np.bincount(label.ravel(), minlength=256), f"{label.shape[0]}x{label.shape[1]}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, found in enumerate(pool.map(look, range(len(source)))):
            if isinstance(found, str):
                problems.append(found)
            else:
                counts += found[0]
                sizes.add(found[1])
            live.work("frames", index + 1, len(source))
    labelled = int(counts[: len(source.class_names)].sum())
    if not labelled and not problems:
        problems.append(f"no pixel of the split of {source.name_of(0)} is labelled: every label is {IGNORE_INDEX}")
    shares = {name: round(100 * int(counts[i]) / max(1, labelled), 4) for i, name in enumerate(source.class_names)}
    return {"frames": len(source), "sizes": sorted(sizes), "class_share_percent": shares}, problems
