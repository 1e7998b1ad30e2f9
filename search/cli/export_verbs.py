"""`lps-search export`: a network as an ONNX graph and a TensorRT engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.console import parse_size
from search.cli.options import ArchitectureOption, AsJson

if TYPE_CHECKING:
    from latency.engine import EngineOptions
    from lpsnet.zoo import Network
    from search.export import ExportPlan


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("export")(export)


PAPER_SIZE = (1024, 2048)
"""Input of a network whose checkpoint says none."""


def export(
    network: Annotated[str, typer.Argument(help="Checkpoint file, shipped network, or name or text of one, which gets random weights.")],
    out: Annotated[Path | None, typer.Option(help="The ONNX file. Default: the network's name in this folder.")] = None,
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the image. Default: a checkpoint's own, else 1024x2048.")] = "",
    classes: Annotated[
        int | None, typer.Option(help="Number of classes, where no checkpoint says it. Default: 19.", min=1, max=255)
    ] = None,
    architecture: ArchitectureOption = "",
    boundary: Annotated[str, typer.Option(help="Where the graph ends: scores, logits or labels.")] = "labels",
    precision: Annotated[str, typer.Option(help="fp32, tf32 (engine only) or fp16.")] = "fp32",
    normalised: Annotated[bool, typer.Option("--normalised", help="Hold the normalisation: the graph takes 8-bit RGB images.")] = False,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the number of images open.")] = False,
    engine: Annotated[bool, typer.Option("--engine", help="Also build a TensorRT engine.")] = False,
    flavour: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")] = "tensorrt-rtx",
    compute_capability: Annotated[str, typer.Option(help="Of the GPUs the engine is for, such as 8.6,8.9. Default: the GPU here.")] = "",
    timing_cache: Annotated[Path | None, typer.Option(help="Timing cache shared by builds.")] = None,
    optimization_level: Annotated[int, typer.Option(help="Of an engine, 1 to 5.")] = 3,
    aux_streams: Annotated[
        int | None, typer.Option(help="Streams of an engine besides the main one. Default: as it likes.", min=0, max=64)
    ] = None,
    workspace_mib: Annotated[
        int | None, typer.Option(help="Most scratch memory of an engine's kernel. Default: all.", min=1, max=2**22)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a network for deployment, checked against torch, with a JSON beside each file that says what it is."""
    from lpsnet.errors import UserError
    from search.export import ExportPlan

    asked: dict[str, Any] = {"compute_capabilities": compute_capability, "timing_cache": timing_cache, "max_aux_streams": aux_streams}
    options = _engine_options(
        engine, flavour, precision=precision, optimization_level=optimization_level, workspace_mib=workspace_mib, **asked
    )
    if engine and dynamic_batch:
        raise UserError("an engine is built for one image; leave out --dynamic-batch or --engine")
    model, own_size = _network(network, classes, architecture)
    shape = parse_size(size) if size else own_size
    stored = "fp32" if precision == "tf32" else precision
    plan = ExportPlan(size=shape, boundary=boundary, precision=stored, normalised=normalised, dynamic_batch=dynamic_batch)
    path = out or Path(f"{_stem(network, model)}_{shape[0]}x{shape[1]}_{boundary}_{precision}.onnx")
    if path.suffix != ".onnx":
        raise UserError(f"--out names the ONNX file and must end in .onnx, got {path}")
    written = _written(model, plan, path, network, (flavour, options) if options else None)
    if as_json:
        print(json.dumps(written))
        return
    for name, description in written.items():
        print(f"{name}: {_told(description)}")


def _written(
    model: Network, plan: ExportPlan, path: Path, source: str, engine: tuple[str, EngineOptions] | None
) -> dict[str, dict[str, Any]]:
    """Description by file of what was written. Raises `UserError` where the network cannot be exported."""
    from latency.protocols import MeasurementFailed
    from lpsnet.checkpoint import is_shipped, read_description
    from lpsnet.errors import UserError
    from search.export import export_engine, export_onnx

    is_file = Path(source).is_file() or is_shipped(source)
    told = read_description(source) if is_file else None
    try:
        written = {str(path): export_onnx(model, plan, path, weights=source if is_file else "random", told=told)}
        if engine is not None:
            built = path.with_suffix(".engine")
            written[str(built)] = export_engine(path, *engine, built)
    except MeasurementFailed as failure:
        raise UserError(f"{model.name} cannot be exported: {failure}") from failure
    return written


def _engine_options(
    wanted: bool, flavour: str, *, compute_capabilities: str, workspace_mib: int | None, **values: Any
) -> EngineOptions | None:
    """Options of an engine from what the command line says, None where no engine is wanted.

    Raises:
        UserError: options that do not go together.
        BackendError: an engine that cannot be built here.
    """
    from latency.engine import EngineOptions, check_options
    from lpsnet.errors import UserError

    capabilities = tuple(part.strip() for part in compute_capabilities.split(",") if part.strip())
    if not wanted:
        if capabilities or values["timing_cache"] or values["precision"] == "tf32":
            raise UserError("--compute-capability, --timing-cache and --precision tf32 are for engines; add --engine")
        return None
    try:
        options = EngineOptions(compute_capabilities=capabilities, workspace_bytes=workspace_mib and workspace_mib * 2**20, **values)
    except ValueError as error:
        raise UserError(str(error)) from error
    check_options(flavour, options)
    return options


def _network(text: str, classes: int | None, architecture: str) -> tuple[Network, tuple[int, int]]:
    """The network that a checkpoint, a shipped name, or a name or text names, and its input size."""
    from lpsnet.checkpoint import TRAIN_ONLY, is_shipped
    from lpsnet.errors import UserError
    from lpsnet.zoo import build, canonical

    if Path(text).is_dir():
        raise UserError(f"{text} is a folder; give a checkpoint file, or a name or text of a network")
    if not (text.lower().endswith((".pth", ".safetensors", TRAIN_ONLY)) or Path(text).is_file() or is_shipped(text)):
        network = build(text, classes or 19, deployed=True)
        if architecture and (expected := canonical(architecture)) != network.name:
            raise UserError(f"{text} is {network.name}, expected {expected}; leave out --architecture")
        print(f"{text}: random weights; give a checkpoint to export trained ones", file=sys.stderr)
        return network, PAPER_SIZE
    if text.endswith(".pth") and not architecture:
        raise UserError(f"{text} does not say its architecture; add --architecture, for example --architecture LPS-Net-S")
    network, size = _loaded(text, architecture)
    if classes not in (None, network.num_classes):
        raise UserError(f"{text} has {network.num_classes} classes; leave out --classes {classes}")
    return network, size


def _stem(text: str, network: Network) -> str:
    """What files are called by default; a shipped network that was trained on the train split alone is told from the other."""
    from lpsnet.checkpoint import TRAIN_ONLY, is_shipped

    return network.name + (TRAIN_ONLY if is_shipped(text) and text.lower().endswith(TRAIN_ONLY) else "")


def _loaded(text: str, architecture: str) -> tuple[Network, tuple[int, int]]:
    from lpsnet.checkpoint import load, read_description

    network, told = load(text, architecture or None), read_description(text)
    return network, PAPER_SIZE if told is None else told.input_size


def _told(description: dict[str, Any]) -> str:
    if "flavour" in description:
        return f"{description['bytes'] / 1e6:.1f} MB in {description['build_s']:.2f} s, runs on {description['runs_on']}"
    difference = description["difference_to_torch"]
    labels = description["boundary"] == "labels"
    what = f"{difference:.2%} of the labels differ" if labels else f"it differs by {difference:.1e} of the largest output"
    return f"{description['boundary']}, {description['precision']}, takes {description['input']}; against torch {what}"
