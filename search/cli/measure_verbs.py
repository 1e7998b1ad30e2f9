"""`lps-search measure` and `doctor`: what a network costs on this device, and what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, parse_size, print_table, visible, write_rows
from search.cli.options import (
    AsJson,
    Backend,
    Classes,
    CudaGraph,
    Device,
    ImageSize,
    Precision,
    Seconds,
    StorePath,
    Threads,
    make_conditions,
)

if TYPE_CHECKING:
    from latency.measurement import Conditions
    from latency.store import Store

_EXTRAS = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx-cu13-bindings": "tensorrt-rtx",
    "pycuda": "tensorrt",
    "ray": "ray",
    "psycopg": "postgresql",
}
"""Which extra brings a package."""


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("measure")(measure)
    app.command("doctor")(doctor)


def measure(
    architectures: Annotated[list[str], typer.Argument(help="Names and texts of networks (see lps-search networks), or table-4.")],
    size: ImageSize = "1024x2048",
    classes: Classes = 19,
    boundary: Annotated[str, typer.Option(help="scores, logits, labels, or all.")] = "all",
    backend: Backend = "ort",
    device: Device = "cpu",
    precision: Precision = "fp32",
    threads: Threads = 0,
    seconds: Seconds = 1.0,
    cuda_graph: CudaGraph = True,
    interleaved: Annotated[bool, typer.Option("--interleave", help="Run two networks in turns: is one faster?")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write a row a network and boundary to this CSV file.")] = None,
    turns: Annotated[int, typer.Option(help="Turns of --interleave.", min=6)] = 40,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Measure the latency of networks on this device, at one or all boundaries; or compare two in turns."""
    from latency.measurement import BOUNDARIES
    from latency.store import Store, default_store_path
    from lpsnet.architecture import TABLE_4
    from lpsnet.zoo import canonical

    named = [canonical(network) for text in architectures for network in (TABLE_4 if text == "table-4" else (text,))]
    shape = parse_size(size)
    if boundary != "all" and boundary not in BOUNDARIES:
        raise UserError(f"unknown boundary {boundary!r}; there are: {', '.join(BOUNDARIES)}, all")
    ends = BOUNDARIES if boundary == "all" else (boundary,)
    conditions = make_conditions(shape, ends[0], backend, device, precision, threads, seconds, cuda_graph=cuda_graph)
    if interleaved:
        if out is not None or store is not None:
            raise UserError("--interleave keeps nothing; leave out --out and --store")
        compare_in_turns(named, classes, turns, conditions, as_json)
        return
    opened = Store(store or default_store_path())
    same = {name: getattr(conditions, name) for name in ("backend", "device", "precision", "threads", "plan", "cuda_graph")}
    summaries: list[dict[str, Any]] = []
    for one in dict.fromkeys(named):
        summaries += (mine := network_summaries(one, classes, ends, size=shape, store=opened, **same))
        if not as_json:
            _print_measurements(one, mine)
        if out is not None:  # after each network, so that a killed call leaves what it has
            write_rows(out, [{name: value for name, value in row.items() if name != "reasons"} for row in summaries])
    if as_json:
        print(json.dumps(summaries))


def network_summaries(
    name: str, classes: int, boundaries: tuple[str, ...], *, size: tuple[int, int], store: Store, **conditions: Any
) -> list[dict[str, Any]]:
    """What was measured at each boundary, with the network's size, of the network of a name, as `lpsnet.zoo.canonical` gives it.

    Raises:
        UserError: the network cannot be measured at that size.
    """
    from latency.measure import measure as measure_latency
    from latency.protocols import MeasurementFailed
    from lpsnet.zoo import build, complexity_of

    try:
        cost = complexity_of(name, classes, size)
    except ValueError as error:
        raise UserError(str(error)) from error
    network, subject = build(name, classes, deployed=True), f"{name} classes={classes}"
    try:
        found = [measure_latency(network, size=size, boundary=ends, subject=subject, store=store, **conditions) for ends in boundaries]
    except MeasurementFailed as failure:
        raise UserError(f"{name} cannot be measured: {failure}") from failure
    return [{**one.summary(), "parameters": cost.parameters, "macs_giga": cost.macs / 1e9} for one in found]


def _print_measurements(name: str, summaries: list[dict[str, Any]]) -> None:
    first = summaries[0]
    where = f"{first['backend']} on {first['device']}, {first['threads']} threads, input {first['shape'][2]}x{first['shape'][3]}"
    where += f", {first['precision']}, {first['caches']} caches"
    parts = {"enqueue": "enqueue_ms", "host": "host_ms"} if "host_ms" in first else {}
    columns = ["boundary", "median ms", "min", "p90", "p95", "p99", *parts, "CV %", "IQR %", "samples", "verdict"]
    rows = [
        [
            s["boundary"],
            *(f"{s[key]:.3f}" for key in ("latency_ms", "min_ms", "p90_ms", "p95_ms", "p99_ms", *parts.values())),
            *(f"{100 * s[key]:.1f}" for key in ("coefficient_of_variation", "spread")),
            s["samples"],
            "stable" if s["stable"] else "unstable",
        ]
        for s in summaries
    ]
    print_table(f"{name}: {first['parameters']:,} parameters, {first['macs_giga']:.3f} G MACs; {where}", columns, rows)
    for summary in summaries:
        for reason in summary["reasons"]:
            print(visible(f"{summary['boundary']}: {reason}"))


def compare_in_turns(names: list[str], classes: int, turns: int, conditions: Conditions, as_json: bool) -> None:
    """Measure two networks in turns, print both, and say whether one is faster."""
    from latency.compare import interleave
    from latency.protocols import MeasurementFailed
    from lpsnet.zoo import build

    if len(names) != 2:
        raise UserError(f"--interleave compares two networks, got {len(names)}; lps-search compare takes more")
    first, second = (build(name, classes, deployed=True) for name in names)
    with Live() as live:
        try:
            watch = lambda done, total: live.work("latencies", done, total, "turns")  # noqa: E731 - named for the line's length
            found = interleave(first, second, conditions, turns=turns, on_turn=watch).summary()
        except MeasurementFailed as failure:
            raise UserError(f"the networks cannot be measured: {failure}") from failure
    if as_json:
        print(json.dumps({"first": names[0], "second": names[1], "boundary": conditions.boundary, **found}))
        return
    rows: list[list[Any]] = [[name, f"{found[key]:.3f}"] for name, key in zip(names, ("first_ms", "second_ms"), strict=True)]
    print_table(f"{turns} turns at the {conditions.boundary}, {conditions.backend} on {conditions.device}", ["network", "median ms"], rows)
    ratio = f"second / first = {found['ratio']:.3f}, 95 % between {found['ratio_low']:.3f} and {found['ratio_high']:.3f}"
    verdict = {"first": f"{names[0]} is faster", "second": f"{names[1]} is faster", "tie": "the gap is within the noise"}
    print(f"{ratio}: {verdict[found['faster']]}")


def doctor(
    engine: Annotated[Path | None, typer.Option(help="An engine file: what it is, and whether it may run here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this machine has: device, backends, versions, and what is missing with the way to get it."""
    import platform

    if engine is not None:
        _examine(engine, as_json)
        return

    from latency.backends import backend_names, make_backend
    from latency.environment import available_cores, cpu_name, package_version
    from latency.measurement import DEVICES
    from latency.store import default_store_path

    packages = dict.fromkeys(("torch", "onnx", "onnxscript", "onnxruntime", "optuna", "kornia", "numpy", "scipy", "pandas"), "")
    for name, extra in _EXTRAS.items():
        packages[name] = f"; pip install 'lps-search[{extra}]' brings it"
    states: list[dict[str, str]] = []
    for name in backend_names():
        for device in DEVICES:
            try:
                missing = make_backend(name).unavailable(device)
            except Exception as error:  # a broken package must not hide the others
                missing = f"broken: {' '.join(str(error).split())}"
            gpu_note = " (not yet executed on a GPU)" if device == "cuda" else ""
            states.append({"backend": name, "device": device, "state": missing or "ready" + gpu_note})
    versions = {name: package_version(name) or f"not installed{way}" for name, way in packages.items()}
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


def _examine(path: Path, as_json: bool) -> None:
    """Say what an engine is. Raises `BackendError` where it may not run here."""
    from latency.engine_check import read_engine
    from latency.state import compute_capability

    here = compute_capability()
    _, description = read_engine(path, here)
    description["gpu_here"] = here
    if as_json:
        print(json.dumps(description))
        return
    shown = ("runs_on", "precision", "graph", "inputs", "outputs", "optimization_level", "bytes", "build_s", "timing_cache")
    print_table(str(path), ["what", "found"], [[name.replace("_", " "), str(description.get(name))] for name in shown])
    print(f"it may run on the GPU here, of compute capability {here}" if here else "no GPU is found here; it may run where one is")
