"""`lps-search noise-floor`: what a difference of two latencies is worth on this device."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, parse_size, print_table
from search.cli.options import AsJson, Backend, Classes, Device, ImageSize, Precision, Seconds, Threads, make_conditions


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("noise-floor")(noise_floor)


def noise_floor(
    architecture: Annotated[str, typer.Argument(help="Name (lps-search networks) or text of a network.")] = "LPS-Net-S",
    size: ImageSize = "512x1024",
    classes: Classes = 19,
    boundary: Annotated[str, typer.Option(help="scores, logits or labels.")] = "scores",
    repeats: Annotated[int, typer.Option(help="Measurements of one loaded network.", min=2)] = 3,
    rebuilds: Annotated[int, typer.Option(help="Times it is built and loaded.", min=2)] = 3,
    backend: Backend = "ort",
    device: Device = "cpu",
    precision: Precision = "fp32",
    threads: Threads = 0,
    seconds: Seconds = 1.0,
    as_json: AsJson = False,
) -> None:
    """Measure one network again and again, in one session and built anew: smaller gaps than this mean nothing here."""
    import dataclasses

    from latency.backends import usable_backend
    from latency.compare import noise_floor as find_noise_floor
    from latency.environment import environment
    from latency.protocols import MeasurementFailed
    from lpsnet.zoo import build, canonical

    name = canonical(architecture)
    conditions = make_conditions(parse_size(size), boundary, backend, device, precision, threads, seconds)
    with Live() as live:
        try:
            found = find_noise_floor(
                build(name, classes, deployed=True),
                conditions,
                repeats=repeats,
                rebuilds=rebuilds,
                on_repeat=lambda done, total: live.work("latencies", done, total, name),
            )
        except MeasurementFailed as failure:
            raise UserError(f"{name} cannot be measured: {failure}") from failure
    spreads = {
        "coefficient_of_variation": found.coefficient_of_variation,
        "repeat_spread": found.repeat_spread,
        "rebuild_spread": found.rebuild_spread,
        "floor": found.floor,
    }
    if as_json:
        told = {"architecture": name, "size": parse_size(size), "boundary": boundary, "backend": backend, "device": device}
        here = dataclasses.asdict(environment(usable_backend(backend, device), device))
        print(json.dumps({**told, "threads": conditions.threads, "environment": here, "medians_ms": found.medians_ms, **spreads}))
        return
    rows = [[what.replace("_", " "), f"{value:.2%}"] for what, value in spreads.items()]
    print_table(f"{name}: {rebuilds} builds, {repeats} measurements each", ["what", "found"], rows)
    print(f"two single measurements that differ by less than {found.floor:.1%} do not differ; measure A B --interleave resolves finer gaps")
