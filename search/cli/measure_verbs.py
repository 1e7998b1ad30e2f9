"""`lps-search measure`, `latency-table` and `doctor`: what a network or a layer costs on this device, and what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, parse_size, print_table, write_rows

if TYPE_CHECKING:
    from lpsnet.architecture import Architecture

Backend = Annotated[str, typer.Option(help="Runtime: ort (ONNX Runtime) or torch.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="CPU threads of the runtime; 0 for all cores.", min=0)]
Seconds = Annotated[float, typer.Option(help="Sample each latency for at least this many seconds.", min=0.0)]
StorePath = Annotated[Path | None, typer.Option("--store", help="Latency store of this machine; default in your data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("measure")(measure)
    app.command("latency-table")(latency_table)
    app.command("doctor")(doctor)


def measure(
    architecture: Annotated[str, typer.Argument(help="Name (LPS-Net-S, N0) or text (B1-3-3-10-10_C8-24-48-96-96_R6-2).")],
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the image.")] = "1024x2048",
    classes: Annotated[int, typer.Option(help="Number of classes.", min=1)] = 19,
    boundary: Annotated[str, typer.Option(help="scores, logits, labels, or all.")] = "all",
    backend: Backend = "ort",
    device: Device = "cpu",
    threads: Threads = 0,
    seconds: Seconds = 1.0,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Measure the latency of a network on this device, at one or all boundaries."""
    from latency.backends import usable_backend
    from latency.environment import available_cores
    from latency.measurement import BOUNDARIES, TimingPlan
    from latency.store import Store, default_store_path
    from lpsnet.architecture import Architecture

    parsed, shape = Architecture.parse(architecture), parse_size(size)
    if boundary != "all" and boundary not in BOUNDARIES:
        raise UserError(f"unknown boundary {boundary!r}; there are: {', '.join(BOUNDARIES)}, all")
    usable_backend(backend, device)
    summaries = _summaries(
        parsed,
        classes,
        BOUNDARIES if boundary == "all" else (boundary,),
        size=shape,
        backend=backend,
        device=device,
        threads=threads or available_cores(),
        plan=TimingPlan(min_s=seconds),
        store=Store(store or default_store_path()),
    )
    if as_json:
        print(json.dumps(summaries))
        return
    _print_measurements(str(parsed), summaries)


def _summaries(
    architecture: Architecture, classes: int, boundaries: tuple[str, ...], *, size: tuple[int, int], **conditions: Any
) -> list[dict[str, Any]]:
    """What was measured at each boundary, with the network's size."""
    from latency.measure import measure as measure_latency
    from latency.protocols import MeasurementFailed
    from lpsnet.complexity import complexity
    from lpsnet.network import LPSNet

    network = LPSNet(architecture, classes, deployed=True)
    try:
        cost = complexity(architecture, classes, size)
    except ValueError as error:
        raise UserError(str(error)) from error
    subject = f"{architecture} classes={classes}"
    try:
        found = [measure_latency(network, size=size, boundary=ends, subject=subject, **conditions) for ends in boundaries]
    except MeasurementFailed as failure:
        raise UserError(f"{architecture} cannot be measured: {failure}") from failure
    return [{**one.summary(), "parameters": cost.parameters, "macs_giga": cost.macs / 1e9} for one in found]


def _print_measurements(name: str, summaries: list[dict[str, Any]]) -> None:
    first = summaries[0]
    where = f"{first['backend']} on {first['device']}, {first['threads']} threads, input {first['shape'][2]}x{first['shape'][3]}"
    columns = ["boundary", "median ms", "min", "p90", "p99", "CV %", "IQR %", "samples", "verdict"]
    rows = [
        [
            s["boundary"],
            *(f"{s[key]:.3f}" for key in ("latency_ms", "min_ms", "p90_ms", "p99_ms")),
            *(f"{100 * s[key]:.1f}" for key in ("coefficient_of_variation", "spread")),
            s["samples"],
            "stable" if s["stable"] else "unstable",
        ]
        for s in summaries
    ]
    print_table(f"{name}: {first['parameters']:,} parameters, {first['macs_giga']:.3f} G MACs; {where}", columns, rows)
    for summary in summaries:
        for reason in summary["reasons"]:
            print(f"{summary['boundary']}: {reason}")


def latency_table(
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the feature map.")] = "64x128",
    widths: Annotated[str, typer.Option(help="Channel widths: numbers and ranges FIRST-LAST or FIRST-LAST:STEP.")] = "1-17,24-72:8",
    backend: Backend = "ort",
    device: Device = "cpu",
    threads: Threads = 0,
    seconds: Seconds = 0.3,
    store: StorePath = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure 3x3 convolutions over channel widths on this device: latency and FLOPs-efficiency (paper Fig. 5)."""
    from dataclasses import asdict

    from latency.backends import usable_backend
    from latency.environment import available_cores
    from latency.measurement import TimingPlan
    from latency.protocols import MeasurementFailed
    from latency.store import Store, default_store_path
    from latency.table import conv_table

    numbers, shape = parse_widths(widths), parse_size(size)
    usable_backend(backend, device)
    done = 0

    def count(_: object) -> None:
        nonlocal done
        done += 1
        live.work("latencies", done, len(numbers), "3x3 convolutions")

    with Live() as live:
        live.work("latencies", 0, len(numbers), "3x3 convolutions")
        try:
            table = conv_table(
                numbers,
                shape,
                backend=backend,
                device=device,
                threads=threads or available_cores(),
                plan=TimingPlan(min_s=seconds),
                store=Store(store or default_store_path()),
                on_row=count,
            )
        except MeasurementFailed as failure:
            raise UserError(f"a convolution cannot be measured: {failure}") from failure
    rows = [asdict(row) for row in table]
    if out is not None:
        write_rows(out, rows)
    if as_json:
        print(json.dumps(rows))
        return
    best = max(range(len(table)), key=lambda index: table[index].efficiency)
    print_table(
        f"3x3 convolution, stride 1, {shape[0]}x{shape[1]}, {backend} on {device}",
        ["width", "latency ms", "G MACs", "G MACs/ms", "verdict"],
        [
            [r.width, f"{r.latency_ms:.4f}", f"{r.macs_giga:.4f}", f"{r.efficiency:.3f}", "stable" if r.stable else "unstable"]
            for r in table
        ],
        marked=best,
    )


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


def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has: device, backends, versions, and what is missing with the way to get it."""
    import platform

    from latency.backends import BACKENDS
    from latency.environment import available_cores, cpu_name, package_version
    from latency.measurement import DEVICES
    from latency.store import default_store_path

    packages = ("torch", "onnx", "onnxscript", "onnxruntime", "optuna", "kornia", "numpy", "pandas", "tensorrt", "pycuda", "ray")
    states: list[dict[str, str]] = []
    for name, make in BACKENDS.items():
        for device in DEVICES:
            missing = make().unavailable(device)
            gpu_note = " (not yet executed on a GPU)" if device == "cuda" else ""
            states.append({"backend": name, "device": device, "state": missing or "ready" + gpu_note})
    versions = {name: package_version(name) or "not installed" for name in packages}
    system = {
        "processor": cpu_name(),
        "cores": str(available_cores()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "latency store": str(default_store_path()),
    }
    if as_json:
        print(json.dumps({"system": system, "backends": states, "packages": versions}))
        return
    print_table("This machine", ["what", "found"], [[key, value] for key, value in {**system, **versions}.items()])
    print_table("Backends", ["backend", "device", "state"], [[s["backend"], s["device"], s["state"]] for s in states])
