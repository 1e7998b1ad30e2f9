"""`lps-search latency-table`: what layers and networks cost on the device at hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, parse_size, print_table, write_rows
from search.cli.measure_verbs import network_summaries
from search.cli.options import AsJson, Backend, Device, ImageSize, Seconds, StorePath, Threads, measuring

if TYPE_CHECKING:
    from latency.layers import LayerRow
    from latency.table import ConvRow

PARTS = ("widths", "layers", "networks")
MAX_WIDTH = 4096

STRIDE_OF_STAGE_3 = 8
"""The widths are measured on the feature map of a network's third stage."""


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("latency-table")(latency_table)


def latency_table(
    size: ImageSize = "512x1024",
    parts: Annotated[str, typer.Option(help="Which tables: widths, layers, networks, or several with commas.")] = ",".join(PARTS),
    widths: Annotated[str, typer.Option(help="Channel widths: numbers and ranges FIRST-LAST or FIRST-LAST:STEP.")] = "1-17,24-72:8",
    backend: Backend = "ort",
    device: Device = "cpu",
    threads: Threads = 0,
    seconds: Seconds = 0.3,
    store: StorePath = None,
    out: Annotated[Path | None, typer.Option(help="Also write the tables as CSV, and plots, to this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what convolutions and networks cost here; killed and started again it goes on.

    widths: 3x3 convolutions, standard and separable, over channel widths, with the sweet spots (the paper's Fig. 4 and 5).
    layers: the convolutions that span the search space at the input size. networks: the chain of Table 4, with S, M and L.
    """
    from latency.protocols import MeasurementFailed
    from search.run import make_folder

    wanted, numbers, shape = parse_parts(parts), parse_widths(widths), parse_size(size)
    conditions = measuring(backend, device, threads, seconds, store)
    where, found = f"{backend} on {device}", {}
    if out is not None:
        make_folder(out)
    with Live() as live:
        try:
            for part in wanted:
                found[part] = _measured(part, numbers, shape, live, conditions)
                if out is not None:
                    _write(out, part, found[part], where)
        except MeasurementFailed as failure:
            raise UserError(f"a layer or network cannot be measured: {failure}") from failure
    if as_json:
        print(json.dumps({part: [_plain(row) for row in rows] for part, rows in found.items()}))
        return
    for part, rows in found.items():
        _print(part, rows, where)


def _measured(part: str, widths: tuple[int, ...], size: tuple[int, int], live: Live, conditions: dict[str, Any]) -> list[Any]:
    """The rows of one table."""
    from latency.layers import measure_layers
    from latency.table import conv_table
    from lpsnet.architecture import TABLE_4
    from search import latency_space

    done = 0

    def count(_: object) -> None:
        nonlocal done
        done += 1
        live.work("latencies", done, total, part)

    if part == "widths":
        total = 2 * len(widths)
        stage = (max(1, size[0] // STRIDE_OF_STAGE_3), max(1, size[1] // STRIDE_OF_STAGE_3))
        return [row for separable in (False, True) for row in conv_table(widths, stage, separable=separable, on_row=count, **conditions)]
    if part == "layers":
        convs = latency_space.table_convs(size)
        total = len(convs)
        return measure_layers(convs, on_row=count, **conditions)
    total, rows = len(TABLE_4), []
    for network in TABLE_4:
        rows += network_summaries(str(network), latency_space.CLASSES, ("scores",), size=size, **conditions)
        count(network)
    return rows


def _write(out: Path, part: str, rows: list[Any], where: str) -> None:
    from search.figures import draw_layers, draw_widths

    write_rows(out / f"{part}.csv", [_plain(row) for row in rows])
    if part == "widths":
        draw_widths(rows, out / "widths.png", where)
    elif part == "layers":
        draw_layers(rows, out / "layers.png", where)


def _plain(row: Any) -> dict[str, Any]:
    """A row as the columns of its table."""
    if isinstance(row, dict):
        return {name: value for name, value in row.items() if name != "reasons"}
    values = asdict(row)
    return {**values.pop("conv", {}), **values}


def _print_widths(table: list[ConvRow], where: str) -> None:
    columns = ["width", "convolution", "latency ms", "G MACs", "G MACs/ms", "sweet spot", "verdict"]
    cells = [
        [
            r.width,
            "separable" if r.separable else "standard",
            f"{r.latency_ms:.4f}",
            f"{r.macs_giga:.4f}",
            f"{r.efficiency:.3f}",
            "yes" if r.sweet_spot else "",
            "stable" if r.stable else "unstable",
        ]
        for r in table
    ]
    print_table(f"3x3 convolutions, stride 1, {where}", columns, cells)
    spots = [r.width for r in table if r.sweet_spot and not r.separable]
    print(f"widths worth using here (no wider one costs the same): {', '.join(map(str, spots))}")


def _print_layers(table: list[LayerRow], where: str) -> None:
    unstable = sum(not row.stable for row in table)
    slowest = max(table, key=lambda row: row.latency_ms)
    print(
        f"{len(table)} layers, {where}: {min(row.latency_ms for row in table):.4f} ms to {slowest.latency_ms:.4f} ms ({slowest.conv} on "
        f"{slowest.conv.height}x{slowest.conv.width}), {unstable} of them unstable; --out FOLDER writes them"
    )


def _print_networks(table: list[dict[str, Any]], where: str) -> None:
    columns = ["network", "median ms", "min", "p90", "p95", "p99", "verdict"]
    keys = ("latency_ms", "min_ms", "p90_ms", "p95_ms", "p99_ms")
    cells = [[row["subject"].split()[0], *(f"{row[key]:.3f}" for key in keys), "stable" if row["stable"] else "unstable"] for row in table]
    print_table(f"the chain of Table 4 to the scores, {where}", columns, cells)


def _print(part: str, rows: list[Any], where: str) -> None:
    if part == "widths":
        _print_widths(rows, where)
    elif part == "layers":
        _print_layers(rows, where)
    else:
        _print_networks(rows, where)


def parse_parts(text: str) -> tuple[str, ...]:
    """Read the names of tables, separated by commas, in the order of `PARTS`.

    Raises:
        UserError: an unknown name, or none.
    """
    names = {part.strip() for part in text.split(",") if part.strip()}
    if not names or not names <= set(PARTS):
        raise UserError(f"--parts takes any of {', '.join(PARTS)}, separated by commas, got {text!r}")
    return tuple(part for part in PARTS if part in names)


def parse_widths(text: str) -> tuple[int, ...]:
    """Read widths such as `1-17,24-72:8` in rising order.

    Raises:
        UserError: a part is neither a number nor a range.
    """
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.strip().partition(":")
        first, dash, last = span.partition("-")
        numbers = (first, last if dash else first, step or "1")
        if not all(number.isdecimal() and 1 <= int(number) <= MAX_WIDTH for number in numbers):
            raise UserError(f"--widths takes numbers up to {MAX_WIDTH} and ranges such as 1-17,24-72:8, got {part.strip()!r}")
        found.update(range(int(numbers[0]), int(numbers[1]) + 1, int(numbers[2])))
    if not found:
        raise UserError(f"--widths names no width: {text!r}")
    return tuple(sorted(found))
