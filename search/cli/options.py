"""Options that several verbs take, and what they are turned into."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import parse_size

if TYPE_CHECKING:
    from latency.measurement import Conditions, TimingPlan
    from lpsnet.recipe import TrainRecipe

Backend = Annotated[str, typer.Option(help="Runtime: ort (ONNX Runtime), torch, tensorrt, tensorrt-rtx.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="fp32, or on a GPU tf32 or fp16.")]
Threads = Annotated[int, typer.Option(help="CPU threads of the runtime; 0 for all cores.", min=0, max=1024)]
Classes = Annotated[int, typer.Option(help="Number of classes.", min=1, max=255)]
Seconds = Annotated[float, typer.Option(help="Sample each latency for at least this many seconds.", min=0.0, max=86_400.0)]
StorePath = Annotated[Path | None, typer.Option("--store", help="Latency store of this machine; default in your data folder.")]
CudaGraph = Annotated[bool, typer.Option("--cuda-graph/--enqueue", help="On a GPU: launch recorded runs as one, or each kernel.")]
ArchitectureOption = Annotated[
    str, typer.Option("--architecture", "--network", help="What a .pth file holds; what a checkpoint must hold: a name or a text.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LatencyLimit = Annotated[
    float, typer.Option(help="End a single latency after this many seconds, as failed; 0: no limit.", min=0.0, max=86_400.0)
]
DATA_HELP = "Data set, NAME or NAME:PATH: camvid:PATH, cityscapes:PATH, bdd100k:PATH, folder:PATH, synthetic."
Data = Annotated[str, typer.Option(help=DATA_HELP)]
TrainingDevice = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
ImageSize = Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the image.")]
OwnSize = Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH. Default: the data set's own.")]
Boundary = Annotated[str, typer.Option(help="Where the timed graph ends: scores (as in the paper), logits or labels.")]
Recipe = Annotated[str, typer.Option(help="paper-cityscapes, strong-cityscapes, paper-bdd100k, paper-camvid or camvid.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a field of the recipe, NAME=VALUE; may be repeated.")]
TrainingPrecision = Annotated[
    str, typer.Option("--precision", help="Of trainings: fp32, bf16 (a GPU, or a CPU that computes in it) or fp16 (a GPU).")
]
Compiler = Annotated[str, typer.Option("--compile", help="off, default (torch.compile), or on a GPU cuda-graphs.")]
TrainingThreads = Annotated[int, typer.Option("--threads", help="CPU threads; 0 for all cores.", min=0)]
Parallel = Annotated[int, typer.Option(help="Trainings at a time, in processes that share the threads.", min=1)]
Batch = Annotated[int, typer.Option(help="Images an iteration.", min=1)]


def make_conditions(
    size: tuple[int, int],
    boundary: str,
    backend: str,
    device: str,
    precision: str,
    threads: int,
    seconds: float,
    *,
    cuda_graph: bool = True,
) -> Conditions:
    """Conditions from what the command line says.

    Raises:
        BackendError: an unknown or unusable backend.
        UserError: an unknown boundary or precision.
    """
    from latency.backends import usable_backend
    from latency.environment import available_cores
    from latency.measurement import Conditions

    usable_backend(backend, device)
    try:
        return Conditions(
            backend=backend,
            device=device,
            shape=(1, 3, *size),
            boundary=boundary,
            precision=precision,
            threads=threads or available_cores(),
            plan=timing_plan(seconds),
            cuda_graph=cuda_graph,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def timing_plan(seconds: float) -> TimingPlan:
    """Samples for at least so many seconds."""
    from latency.measurement import TimingPlan

    return TimingPlan(min_s=seconds, max_s=max(TimingPlan.max_s, 2 * seconds))


def measuring(backend: str, device: str, threads: int, seconds: float, store: Path | None) -> dict[str, Any]:
    """What the functions that measure tables share: conditions and an open store. Raises as `make_conditions` does."""
    from latency.store import Store, default_store_path

    at = make_conditions((1, 1), "scores", backend, device, "fp32", threads, seconds)
    same = {name: getattr(at, name) for name in ("backend", "device", "threads", "plan")}
    return {**same, "store": Store(store or default_store_path())}


def given_options(context: typer.Context) -> dict[str, str]:
    """The options that were given on the command line, as they are called there, by the names of their parameters."""
    source = context.get_parameter_source
    return {p.name: p.opts[0] for p in context.command.params if p.name and getattr(source(p.name), "name", "") == "COMMANDLINE"}


def resolve_device(name: str, option: str = "--device") -> str:
    """Where torch computes: what is named by `option`, or for "auto" a GPU where torch sees one. Raises `UserError`."""
    from lpsnet.errors import UserError

    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r} of {option}; there are: auto, cpu, cuda")
    if name == "cpu":
        return name
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{option} cuda: torch sees no CUDA device; use {option} cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"


def data_fields(text: str, size: str) -> dict[str, Any]:
    """The data set's canonical text, and the height and width asked for or its own."""
    from lpsnet.data import DataSpec, native_size

    spec = DataSpec.parse(text)
    height, width = parse_size(size) if size else native_size(spec)
    return {"data": str(spec), "height": height, "width": width}


def classes_of(data: str) -> int:
    """Number of classes of a data set. Raises `UserError`."""
    from lpsnet.data import DataSpec, native_size, open_split

    spec = DataSpec.parse(data)
    return open_split(spec, "val", native_size(spec)).num_classes


def recipe_of(name: str, changes: list[str] | None, *, iterations: int = 0, option: str = "--iterations", size: str = "") -> TrainRecipe:
    """A named recipe at another length and input size: its warm-up is at most a tenth of the one, its crop no larger than the other.

    Args:
        name: of the recipe.
        changes: of its fields.
        iterations: 0 for its own.
        option: that says `iterations`.
        size: HEIGHTxWIDTH of the input; empty for its own.

    Raises:
        UserError: an unknown recipe or field, or a field that another option says.
    """
    from lpsnet.recipe import changed, named_recipe

    told, fields = named_recipe(name), {change.partition("=")[0] for change in changes or []}
    for says, given, names in ((option, iterations, {"iterations"}), ("--input", size, {"input_height", "input_width"})):
        if given and (twice := sorted(names & fields)):
            raise UserError(f"{says} says that already; leave out --set {twice[0]}")
    if iterations:
        told = dataclasses.replace(told, iterations=iterations, warmup_iterations=min(told.warmup_iterations, max(1, iterations // 10)))
    if size:
        height, width = parse_size(size)
        crop: dict[str, Any] = {"crop_height": min(told.crop_height, height), "crop_width": min(told.crop_width, width)}
        told = dataclasses.replace(told, input_height=height, input_width=width, **crop)
    return changed(told, changes or [])
