"""`lps-search latency-predictor` and `predict-latency`: a device's layer table turned into latencies of networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, parse_size, print_table
from search.cli.options import AsJson, Backend, Device, ImageSize, Seconds, StorePath, Threads, measuring

if TYPE_CHECKING:
    from latency.predict import ErrorReport

Folder = Annotated[Path, typer.Option("--out", help="Folder of the device's results.")]
SPEARMAN_TARGET, WITHIN_TARGET = 0.99, 0.90


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("latency-predictor")(latency_predictor)
    app.command("predict-latency")(predict_latency)


def latency_predictor(
    out: Folder,
    size: ImageSize = "360x480",
    fitted: Annotated[int, typer.Option("--fit", help="Networks it is fitted to, with three expansions of each.", min=10)] = 40,
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

    conditions = measuring(backend, device, threads, seconds, store)
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

    from lpsnet.zoo import lps_net
    from search.forecast import input_size, layers_of_architecture, load_predictor
    from search.latency_space import CLASSES

    parsed, predictor = lps_net(architecture, "predict-latency"), load_predictor(table)
    parsed.require_plain("latencies are predicted")
    height, width = input_size(table)
    layers = layers_of_architecture(parsed, CLASSES, (height, width))
    found, beyond = predictor.predict(layers), predictor.lookup.outside(layers.convs)
    if as_json:
        print(json.dumps({"architecture": str(parsed), **asdict(found), "outside_table": beyond}))
        return
    span = f"95 % between {found.low_ms:.3f} and {found.high_ms:.3f}"
    print(f"{parsed} at {height}x{width}: about {found.latency_ms:.3f} ms, {span} (predicted, not measured)")
    if beyond:
        print(f"not to be trusted: the table does not reach as far as {beyond}")


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
