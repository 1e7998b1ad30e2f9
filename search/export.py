"""A network as files for deployment: an ONNX graph checked against torch, and a TensorRT engine, each with a JSON beside it.

Covers what the graph takes and where it ends. Does not cover training or timing the network.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from latency.engine import EngineOptions, build_engine
from latency.export import OPSET, check_agreement, full_precision, seeded_input, to_onnx
from latency.measure import at_boundary, deployed
from latency.measurement import BOUNDARIES
from latency.protocols import MeasurementFailed
from lpsnet.checkpoint import Metadata, write_atomic
from lpsnet.data.normalisation import MEAN, STD
from lpsnet.errors import UserError
from lpsnet.zoo import Network
from search.run import provenance

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What a graph takes and gives.

    Args:
        size: (height, width) of the image in pixels.
        boundary: "scores", "logits" or "labels".
        precision: of weights, input and output: "fp32" or "fp16". Labels are int64 in either.
        normalised: the graph holds the normalisation and takes RGB images as 8-bit integers.
        dynamic_batch: the number of images is left open.
    """

    size: tuple[int, int]
    boundary: str = "labels"
    precision: str = "fp32"
    normalised: bool = False
    dynamic_batch: bool = False

    def __post_init__(self) -> None:
        for name, known in (("boundary", BOUNDARIES), ("precision", tuple(_DTYPES))):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"unknown {name} {value!r}; there are: {', '.join(known)}")


class Normalised(nn.Module):
    """A network behind the normalisation it was trained with: takes RGB images (N, 3, H, W), uint8."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(STD).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Whatever the network gives for the normalised images."""
        result: Tensor = self.network((image.to(self.mean.dtype) - self.mean) / self.std)
        return result


def export_onnx(
    network: Network, plan: ExportPlan, path: Path, *, weights: str = "", weights_sha256: str = "", told: Metadata | None = None
) -> dict[str, Any]:
    """Write the deployed network to `path` and its description to `path` with `.json` added; returns the description.

    Args:
        network: in any form.
        plan: what the graph takes and gives.
        path: of the graph.
        weights: where they come from, for the description.
        weights_sha256: of that file, likewise.
        told: what their checkpoint says of itself, where there is one.

    Raises:
        MeasurementFailed: the exporter refused, or ONNX Runtime's output disagrees with torch; nothing is written then.
        UserError: the path cannot be written.
    """
    module = at_boundary(deployed(network), plan.boundary)
    whole: nn.Module = (Normalised(module) if plan.normalised else module).eval()
    image = example(plan)
    try:
        with torch.inference_mode():
            expected = whole(torch.from_numpy(image)).numpy()
    except ValueError as error:
        raise UserError(str(error)) from error
    dtype = torch.uint8 if plan.normalised else _DTYPES[plan.precision]
    graph = to_onnx(whole.to(_DTYPES[plan.precision]), (1, 3, *plan.size), dtype=dtype, dynamic_batch=plan.dynamic_batch)
    difference = _check(graph, image, expected, plan)
    description = {
        "architecture": network.name,
        "classes": network.num_classes,
        "weights": weights,
        **({"weights_sha256": weights_sha256} if weights_sha256 else {}),
        "class_names": list(told.class_names) if told else [],
        "colours": [list(colour) for colour in told.colours] if told else [],
        **asdict(plan),
        "opset": OPSET,
        "exporter": "torch.export",
        "input": "RGB, 0 to 255" if plan.normalised else f"RGB / 255, less mean {MEAN}, over deviation {STD}",
        "sha256": hashlib.sha256(graph).hexdigest(),
        "difference_to_torch": difference,
        **provenance(),
    }
    write_atomic(path, graph)
    _describe(path, description)
    return description


def export_engine(graph_path: Path, flavour: str, options: EngineOptions, path: Path) -> dict[str, Any]:
    """Build an engine of a written graph into `path`, its description beside it; returns the description.

    Raises:
        BackendError: the flavour is not installed or cannot build for the compute capability.
        MeasurementFailed: it refused the graph.
        UserError: the path cannot be written.
    """
    engine = build_engine(graph_path.read_bytes(), flavour, options)
    where = ", ".join(options.compute_capabilities) or "the GPU it was built on"
    runs_on = f"{flavour} {engine.description['version']}, compute capability {where}"
    description = {**engine.description, "graph": graph_path.name, "runs_on": runs_on}
    write_atomic(path, engine.data)
    _describe(path, description)
    return description


def example(plan: ExportPlan) -> np.ndarray:
    """The seeded image a graph is checked on, (1, 3, *size), uint8 or float32."""
    if plan.normalised:
        return np.random.default_rng(0).integers(0, 256, (1, 3, *plan.size), dtype=np.uint8)
    return seeded_input((1, 3, *plan.size))


def _check(graph: bytes, image: np.ndarray, expected: np.ndarray, plan: ExportPlan) -> float:
    """Compare ONNX Runtime on the CPU with torch in fp32; returns what `check_agreement` does."""
    if not plan.normalised:
        image = image.astype(np.float16 if plan.precision == "fp16" else np.float32)
    try:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        found = np.asarray(session.run(None, {"image": image})[0])
    except Exception as error:  # onnxruntime exports no common base class of its errors
        raise MeasurementFailed(f"ONNX Runtime cannot run the graph: {error}") from error
    return check_agreement(full_precision(found), expected, plan.precision)


def _describe(path: Path, description: dict[str, Any]) -> None:
    write_atomic(path.with_name(path.name + ".json"), (json.dumps(description, indent=2) + "\n").encode())
