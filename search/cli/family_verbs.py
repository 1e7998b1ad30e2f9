"""`lps-search family` and `package`: choose networks of a finished or running search, and write them as files to hand on."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, print_table
from search.cli.many_values import ManyValues
from search.cli.options import AsJson

if TYPE_CHECKING:
    from search.family import Family, Move, Pick
    from search.package import PackagePlan
    from search.picks import Picked, Picks
    from search.run import Run
    from search.step import Step


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("family", cls=ManyValues)(family)
    app.command("package")(package)


def family(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    pick: Annotated[list[str] | None, typer.Option(help="Networks by step, each with a name: S=7 M=8 L=10.")] = None,
    budget_ms: Annotated[list[str] | None, typer.Option(help="The most accurate within so many ms: 5 10 20, or S=5 M=10.")] = None,
    fps: Annotated[list[str] | None, typer.Option(help="The most accurate at so many images a second: 60, or M=60.")] = None,
    miou: Annotated[list[str] | None, typer.Option(help="The fastest with so much mIoU in percent: 70, or L=70.")] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The network after which more latency pays least, as pick 'knee'.")] = False,
    boundary: Annotated[str, typer.Option(help="Latency to the: scores, logits or labels. Default: the run's.")] = "",
    memory: Annotated[bool, typer.Option("--memory", help="Measure the memory of each network that is not known yet.")] = False,
    forget: Annotated[list[str] | None, typer.Option(help="A pick to forget; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run's networks with latency and memory, and pick some by step, latency, rate, mIoU or knee; the run remembers them."""
    from search.family_memory import measure_memory
    from search.picks import check_chain, read_picks
    from search.run import Run
    from search.runner import replay

    with Run.read(run) as opened:
        steps = replay(opened).steps
        if not steps:
            raise UserError(f"{run} has decided nothing yet; look again later, or go on with lps-search resume {run}")
        ends = boundary or opened.config.boundary
        members = _members(opened, steps, ends)
        asked = _asked(members, pick=pick or [], budget_ms=budget_ms or [], fps=fps or [], miou=miou or [], knee=knee)
        picks = _remembered(opened, members, asked, ends, forget or []) if asked or forget else read_picks(run)
        check_chain(run, steps, picks)
        if memory:
            with Live() as live:
                measure_memory(opened, [member.architecture for member in members], ends, live)
        rows = _rows(opened, steps, members, picks, ends)
        if as_json:
            print(json.dumps({"run": str(run), "boundary": ends, "family": rows, "picks": _told_picks(members, picks)}))
            return
        _print_family(run, ends, rows)
        for name, picked in picks.picked.items():
            print(_sentence(name, picked, members, ends))


def _members(run: Run, steps: list[Step], boundary: str) -> Family:
    """The chain with its latencies at a boundary, NaN where one is not known. Raises `UserError` for an unknown boundary."""
    from latency.measurement import BOUNDARIES, Measurement
    from search.executor import conditions, subject

    if boundary not in BOUNDARIES:
        raise UserError(f"unknown boundary {boundary!r}; there are: {', '.join(BOUNDARIES)}")
    if boundary == run.config.boundary:
        return [step.chosen for step in steps]
    members = []
    for step in steps:
        at, name = conditions(run.config, boundary), subject(step.chosen.architecture, len(run.class_names))
        found = run.store.find(name, at, run.environment)
        members.append(dataclasses.replace(step.chosen, latency_ms=found.latency_ms if isinstance(found, Measurement) else math.nan))
    return members


def _asked(members: Family, *, pick: list[str], budget_ms: list[str], fps: list[str], miou: list[str], knee: bool) -> list[Pick]:
    """The picks that the options ask for. Raises `UserError` where one cannot be had."""
    from search.family import at_fps, at_knee, at_miou, at_step, named, within_ms

    made = []
    kinds = (("--pick", "STEP", pick, at_step), ("--budget-ms", "MS", budget_ms, within_ms))
    for option, kind, texts, choose in (*kinds, ("--fps", "RATE", fps, at_fps), ("--miou", "PERCENT", miou, at_miou)):
        for text in texts:
            name, number = named(text, option, kind)
            made.append(choose(members, number, name))
    if knee:
        made.append(at_knee(members))
    if doubled := [one.name for one in made if sum(other.name == one.name for other in made) > 1]:
        raise UserError(f"two picks would be named {doubled[0]}; give each a name of its own, NAME=VALUE")
    return made


def _remembered(run: Run, members: Family, asked: list[Pick], boundary: str, forget: list[str]) -> Picks:
    """Keep picks in the run's folder, beside those there are; returns all of them."""
    from search.picks import Picked, Picks, find_pick, read_picks, write_picks

    for name in forget:
        find_pick(run.path, name)
    known = read_picks(run.path)
    picked = {name: one for name, one in known.picked.items() if name not in forget}
    for one in asked:
        member = members[one.step]
        latency = None if math.isnan(member.latency_ms) else member.latency_ms
        picked[one.name] = Picked(
            step=one.step,
            architecture=str(member.architecture),
            why=one.why,
            boundary=boundary,
            latency_ms=latency,
            miou_percent=member.miou_percent,
        )
    picks = Picks(picked=picked, trainings=known.trainings)
    write_picks(run.path, picks)
    return picks


def _rows(run: Run, steps: list[Step], members: Family, picks: Picks, boundary: str) -> list[dict[str, Any]]:
    from lpsnet.complexity import complexity
    from search.family import fastest_for_their_miou
    from search.family_memory import known_memory

    memory = known_memory(run, [member.architecture for member in members], boundary)
    front = fastest_for_their_miou(members)
    rows = []
    for step, member in zip(steps, members, strict=True):
        cost, held = complexity(member.architecture, len(run.class_names), run.config.size), memory.get(member.architecture)
        rows.append(
            {
                "step": step.number,
                "expansion": step.chosen_trial.candidate.text,
                "architecture": str(member.architecture),
                "latency_ms": None if math.isnan(member.latency_ms) else member.latency_ms,
                "memory_bytes": held if isinstance(held, int) else None,
                "memory_failure": held if isinstance(held, str) else "",
                "miou_percent": member.miou_percent,
                "parameters": cost.parameters,
                "macs_giga": cost.macs / 1e9,
                "on_front": step.number in front,
                "picks": [name for name, one in picks.picked.items() if one.step == step.number],
            }
        )
    return rows


def _print_family(run: Path, boundary: str, rows: list[dict[str, Any]]) -> None:
    columns = ["step", "expansion", "network", "ms", "images/s", "memory MiB", "mIoU", "parameters", "G MACs", "front", "picks"]
    cells = []
    for row in rows:
        latency, held = row["latency_ms"], row["memory_bytes"]
        cells.append(
            [
                row["step"],
                row["expansion"],
                row["architecture"],
                "-" if latency is None else f"{latency:.3f}",
                "-" if latency is None else f"{1e3 / latency:.1f}",
                row["memory_failure"] or ("-" if held is None else f"{held / 2**20:.1f}"),
                f"{row['miou_percent']:.2f}",
                f"{row['parameters']:,}",
                f"{row['macs_giga']:.3f}",
                "yes" if row["on_front"] else "no",
                " ".join(row["picks"]),
            ]
        )
    print_table(f"{run}: {len(rows)} networks, latency to the {boundary}, mIoU of the search's short training", columns, cells)
    if all(row["memory_bytes"] is None and not row["memory_failure"] for row in rows):
        print("memory is not measured yet at this boundary; add --memory")


def _told_picks(members: Family, picks: Picks) -> dict[str, Any]:
    from search.family import moves

    told = {}
    for name, picked in picks.picked.items():
        down, up = (None if move is None else _finite(dataclasses.asdict(move)) for move in moves(members, picked.step))
        told[name] = {**dataclasses.asdict(picked), "step_down": down, "step_up": up}
    return told


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _sentence(name: str, picked: Picked, members: Family, boundary: str) -> str:
    """A pick, and what the next step up or down would cost to the boundary that is shown."""
    from search.family import moves

    latency = "latency unknown" if picked.latency_ms is None else f"{picked.latency_ms:.4g} ms to the {picked.boundary}"
    what = f"{name}: step {picked.step}, {picked.architecture}, {latency}, {picked.miou_percent:.2f} mIoU ({picked.why})"
    down, up = moves(members, picked.step)
    where = "" if boundary == picked.boundary else f" to the {boundary},"
    return f"{what};{where} a step up: {_move(up)}; a step down: {_move(down)}"


def _move(move: Move | None) -> str:
    if move is None:
        return "none"
    cost = "latency unknown" if math.isnan(move.cost_ms) else f"{move.cost_ms:+.3f} ms"
    return f"{cost}, {move.gain_percent:+.2f} mIoU"


def package(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    names: Annotated[list[str] | None, typer.Argument(help="Picks; all where none is named.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the package. Default: package in the run's.")] = None,
    boundary: Annotated[str, typer.Option(help="Where the graphs end: scores, logits or labels.")] = "labels",
    precision: Annotated[str, typer.Option(help="Of graphs and engines: fp32 or fp16.")] = "fp32",
    normalised: Annotated[bool, typer.Option("--normalised", help="Graphs hold the normalisation and take 8-bit RGB images.")] = False,
    engine: Annotated[bool, typer.Option("--engine/--no-engine", help="Build engines where a builder is at hand.")] = True,
    flavour: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")] = "tensorrt-rtx",
    compute_capability: Annotated[str, typer.Option(help="Of the GPUs the engines are for, such as 8.6,8.9. Default: the GPU here.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write the picks of a run as checkpoint, ONNX graph, engine and model card, with one manifest; the same command goes on."""
    from search.package import MANIFEST, write_package
    from search.run import Run
    from search.runner import replay

    plan = _package_plan(boundary, precision, normalised, engine, flavour, compute_capability)
    folder = out or run / "package"
    with Live() as live, Run.read(run) as opened:
        manifest = write_package(opened, replay(opened).steps, names or [], plan, folder, live)
    if as_json:
        print(json.dumps(manifest))
        return
    rows = [[name, *_package_cells(entry)] for name, entry in manifest["picks"].items()]
    columns = ["pick", "network", "weights of the", "mIoU", "checkpoint MB", "ONNX MB", "engine"]
    print_table(f"{folder / MANIFEST}: {len(rows)} networks", columns, rows)


def _package_cells(entry: dict[str, Any]) -> list[str]:
    miou, engine = entry["miou_percent"], entry["engine"]
    sizes = [f"{entry[part]['bytes'] / 1e6:.2f}" for part in ("checkpoint", "onnx")]
    built = f"{engine['bytes'] / 1e6:.2f} MB" if "bytes" in engine else f"none: {engine['none']}"
    return [entry["architecture"], entry["weights_from"], "-" if miou is None else f"{miou:.2f}", *sizes, built]


def _package_plan(boundary: str, precision: str, normalised: bool, engine: bool, flavour: str, capabilities: str) -> PackagePlan:
    """What is made. Where nobody asked for a certain engine and none can be built, the reason why.

    Raises:
        UserError: an unknown boundary or precision, or a compute capability without an engine.
        BackendError: engines for a compute capability that cannot be built here.
    """
    from latency.engine import EngineOptions, check_options
    from latency.protocols import BackendError
    from latency.state import compute_capability
    from search.export import ExportPlan
    from search.package import PackagePlan

    ExportPlan(size=(1, 1), boundary=boundary, precision=precision)  # says what is wrong before anything is loaded
    wanted = tuple(part.strip() for part in capabilities.split(",") if part.strip())
    same: dict[str, Any] = {"boundary": boundary, "precision": precision, "normalised": normalised, "flavour": flavour}
    if not engine:
        if wanted:
            raise UserError("--compute-capability is for engines; leave out --no-engine")
        return PackagePlan(**same)
    options = EngineOptions(precision=precision, compute_capabilities=wanted)
    try:
        check_options(flavour, options)
    except BackendError as missing:
        if wanted:
            raise
        return PackagePlan(**same, no_engine=" ".join(str(missing).split()))
    if not wanted and compute_capability() is None:
        return PackagePlan(**same, no_engine="no GPU is found here to build for; name the target's by --compute-capability, such as 8.6")
    return PackagePlan(**same, engine=options)
