"""`lps-search latency-table`, `latency-predictor` and `predict-latency`: what layers cost here, and what follows for networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, parse_size, print_table, write_rows
from search.cli.measure_verbs import AsJson, Backend, Device, Seconds, StorePath, Threads, make_conditions

if TYPE_CHECKING:
    from latency.predict import ErrorReport
    from latency.table import ConvRow

Folder = Annotated[Path, typer.Option("--out", help="Folder of the device's results.")]
SPEARMAN_TARGET, WITHIN_TARGET = 0.99, 0.90


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("latency-table")(latency_table)
    app.command("latency-predictor")(latency_predictor)
    app.command("predict-latency")(predict_latency)


def latency_table(
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the feature map.")] = "64x128",
    widths: Annotated[str, typer.Option(help="Channel widths: numbers and ranges FIRST-LAST or FIRST-LAST:STEP.")] = "1-17,24-72:8",
    backend: Backend = "ort",
    device: Device = "cpu",
    threads: Threads = 0,
    seconds: Seconds = 0.3,
    store: StorePath = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file, and a plot beside it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure 3x3 convolutions, standard and separable, over channel widths: latency, FLOPs-efficiency, sweet spots (Fig. 4, 5)."""
    from dataclasses import asdict

    from latency.protocols import MeasurementFailed
    from latency.table import conv_table

    numbers, shape = parse_widths(widths), parse_size(size)
    conditions = _conditions(backend, device, threads, seconds, store)
    table = []
    with Live() as live:
        done = 0

        def count(_: object) -> None:
            nonlocal done
            done += 1
            live.work("latencies", done, 2 * len(numbers), "3x3 convolutions")

        live.work("latencies", 0, 2 * len(numbers), "3x3 convolutions")
        try:
            for separable in (False, True):
                table += conv_table(numbers, shape, separable=separable, on_row=count, **conditions)
        except MeasurementFailed as failure:
            raise UserError(f"a convolution cannot be measured: {failure}") from failure
    rows = [asdict(row) for row in table]
    if out is not None:
        from search.figures import draw_widths

        write_rows(out, rows)
        draw_widths(table, out.with_suffix(".png"), f"{shape[0]}x{shape[1]}, {backend} on {device}")
    if as_json:
        print(json.dumps(rows))
        return
    _print_widths(table, f"{shape[0]}x{shape[1]}, {backend} on {device}")


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


def latency_predictor(
    out: Folder,
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the image.")] = "360x480",
    fitted: Annotated[int, typer.Option("--fit", help="Networks the predictor is fitted to.", min=12)] = 40,
    tested: Annotated[int, typer.Option("--test", help="Unseen networks it is tested on, drawn after the fit.", min=3)] = 100,
    max_macs: Annotated[float, typer.Option(help="Largest network, in G MACs.", min=0.001)] = 1.5,
    seed: Annotated[int, typer.Option(help="Of the networks.")] = 0,
    backend: Backend = "ort",
    device: Device = "cpu",
    threads: Threads = 0,
    seconds: Seconds = 0.3,
    store: StorePath = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 where the targets are missed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a layer table, fit a latency predictor to it, and test that on networks it has not seen."""
    from latency.protocols import MeasurementFailed
    from search.latency_space import PredictorPlan, make_predictor

    conditions = _conditions(backend, device, threads, seconds, store)
    study = PredictorPlan(size=parse_size(size), fitted=fitted, tested=tested, max_macs=max_macs * 1e9, seed=seed)
    with Live() as live:
        try:
            report = make_predictor(study, out, live, **conditions)
        except MeasurementFailed as failure:
            raise UserError(f"a network or layer cannot be measured: {failure}") from failure
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        _print_report(report)
    if check and not (report.spearman >= SPEARMAN_TARGET and report.within_10_percent >= WITHIN_TARGET):
        raise typer.Exit(1)


def predict_latency(
    architecture: Annotated[str, typer.Argument(help="Name or text of a network.")],
    table: Annotated[Path, typer.Option(help="Folder that latency-predictor wrote.")],
    as_json: AsJson = False,
) -> None:
    """Predict the latency of a network, to its scores, from the layer table of a device; nothing is measured."""
    from dataclasses import asdict

    from lpsnet.architecture import Architecture
    from search.forecast import PREDICTOR_FILE, layers_of_architecture, load_predictor
    from search.latency_space import CLASSES

    parsed, predictor = Architecture.parse(architecture), load_predictor(table)
    height, width = json.loads((table / PREDICTOR_FILE).read_text())["input_size"]
    found = predictor.predict(layers_of_architecture(parsed, CLASSES, (height, width)))
    if as_json:
        print(json.dumps({"architecture": str(parsed), **asdict(found)}))
        return
    span = f"95 % between {found.low_ms:.3f} and {found.high_ms:.3f}"
    print(f"{parsed} at {height}x{width}: about {found.latency_ms:.3f} ms, {span} (predicted, not measured)")


def _print_report(report: ErrorReport) -> None:
    rows: list[list[Any]] = [
        ["networks it had not seen", report.networks, ""],
        ["Spearman", f"{report.spearman:.4f}", f">= {SPEARMAN_TARGET}"],
        ["within 10 %", f"{report.within_10_percent:.1%}", f">= {WITHIN_TARGET:.0%}"],
        ["median error", f"{report.median_error:.1%}", ""],
        ["worst error", f"{report.worst_error:.1%} ({report.worst})", ""],
        ["inside their interval", f"{report.inside_interval:.1%}", ""],
    ]
    print_table("latency predictor", ["what", "found", "target"], rows)


def _conditions(backend: str, device: str, threads: int, seconds: float, store: Path | None) -> dict[str, Any]:
    """What the measuring functions share."""
    from latency.store import Store, default_store_path

    at = make_conditions((1, 1), "scores", backend, device, "fp32", threads, seconds)
    same = {name: getattr(at, name) for name in ("backend", "device", "threads", "plan")}
    return {**same, "store": Store(store or default_store_path())}


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
        if not all(number.isdigit() and int(number) for number in numbers):
            raise UserError(f"--widths takes numbers and ranges such as 1-17,24-72:8, got {part.strip()!r}")
        found.update(range(int(numbers[0]), int(numbers[1]) + 1, int(numbers[2])))
    if not found:
        raise UserError(f"--widths names no width: {text!r}")
    return tuple(sorted(found))
