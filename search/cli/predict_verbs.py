"""`lps-search predict`: pictures of what a network sees."""

from __future__ import annotations

import json
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.console import Live, parse_size, print_table
from search.cli.options import ArchitectureOption, AsJson, TrainingDevice, resolve_device

if TYPE_CHECKING:
    from search.prediction import FrameTime


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("predict")(predict)


def predict(
    network: Annotated[str, typer.Argument(help="Checkpoint, shipped network's name, ONNX graph or engine.")],
    inputs: Annotated[list[Path], typer.Argument(help="Images, videos, folders of both.")],
    out: Annotated[Path, typer.Option(help="Folder of overlays, masks, legend and times.")] = Path("predictions"),
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the network's input. Default: the checkpoint's.")] = "",
    architecture: ArchitectureOption = "",
    device: TrainingDevice = "auto",
    as_json: AsJson = False,
) -> None:
    """Label images, folders and videos: overlays, masks of class indices, a legend, and the time of each frame by parts."""
    from lpsnet.errors import UserError
    from search.prediction import open_model, predict_files

    with Live() as live, ExitStack() as stack:
        model = open_model(network, architecture, resolve_device(device), parse_size(size) if size else None, stack)
        times, faults = predict_files(model, inputs, out, live)
    if times:
        _print_times(times, out, as_json)
    if faults:
        raise UserError(f"{len(faults)} inputs cannot be read, the others are done: {'; '.join(faults)}" if times else "; ".join(faults))


def _print_times(times: list[FrameTime], out: Path, as_json: bool) -> None:
    parts = {name: [getattr(one, f"{name}_ms") for one in times] for name in ("read", "infer", "write")}
    # The first frame pays for what is made once; it is told apart where there are others.
    medians = {name: statistics.median(values[1:] or values) for name, values in parts.items()}
    if as_json:
        print(
            json.dumps(
                {"out": str(out), "frames": len(times), "first_infer_ms": parts["infer"][0], **{f"{n}_ms": v for n, v in medians.items()}}
            )
        )
        return
    print_table(
        f"{len(times)} frames into {out}", ["part", "median ms a frame"], [[name, f"{value:.2f}"] for name, value in medians.items()]
    )
    print(f"the first inference took {parts['infer'][0]:.2f} ms")
