"""ONNX files in the place of modules, from any tool: what one takes, gives and holds, and what it costs on paper.

Does not run them: that is for the backends that take graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, shape_inference
from torch import Tensor, nn

from latency.protocols import MeasurementFailed

CHANNELS = 3

_DTYPES = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT8: np.uint8,
}
"""Of images that can be given to a graph."""

_WEIGHTS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8)
"""Types of initialisers that count as parameters; others are shapes and indices."""

_UNCOUNTED = ("Einsum", "LSTM", "GRU", "RNN", "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "DeformConv", "Attention")
"""Operators that multiply and add in ways not counted here: a graph that has one has no MACs to tell."""

_LARGE = 4096
"""Numbers an initialiser may have to be of use for the inference of shapes."""


class GraphFile(nn.Module):
    """An ONNX file, for a backend that loads it as it is."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, image: Tensor) -> Tensor:
        """Not run by torch. Raises `MeasurementFailed`."""
        raise MeasurementFailed(f"{self.path} is an ONNX file, which torch does not run; take a backend that does, such as ort")


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """What an ONNX file says of itself.

    Args:
        shape: (1, 3, H, W) of the image it takes; H and W are None where it takes any.
        parameters: numbers in its weights.
        macs: multiply-adds of convolutions and matrix products for an image of a size it was read for; None where unknown.
    """

    shape: tuple[int, int, int | None, int | None]
    parameters: int
    macs: int | None


def read_graph(path: Path, size: tuple[int, int]) -> GraphFacts:
    """Read an ONNX file; its multiply-adds are for an image of `size` (height, width), or of its own where that is fixed.

    Raises:
        MeasurementFailed: no ONNX file, or one that does not take a single image.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # onnx and protobuf share no base class of their errors
        raise MeasurementFailed(f"{path} is no ONNX file: {' '.join(str(error).split())}") from error
    if not model.graph.node:
        raise MeasurementFailed(f"{path} is no ONNX file: it holds no graph")
    image = _image(model, path)
    height, width = (image.dims[axis] for axis in image.spatial)
    parameters = sum(math.prod(one.dims) for one in model.graph.initializer if one.data_type in _WEIGHTS and one.dims)
    for axis, extent in zip((0, image.channels, *image.spatial), (1, CHANNELS, height or size[0], width or size[1]), strict=True):
        image.value.type.tensor_type.shape.dim[axis].dim_value = extent
    return GraphFacts(shape=(1, CHANNELS, height, width), parameters=parameters, macs=_macs(model))


def fitted_image(image: np.ndarray, shape: list[Any], dtype: str) -> np.ndarray:
    """A normal (1, 3, H, W) image in the layout and type that a graph says its input has, in ONNX Runtime's words.

    Raises:
        MeasurementFailed: a type that no image has.
    """
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}
    if dtype not in types:
        raise MeasurementFailed(f"the graph takes {dtype}, not an image; there are: {', '.join(types)}")
    if len(shape) == 4 and shape[3] == CHANNELS and shape[1] != CHANNELS:
        image = image.transpose(0, 2, 3, 1)
    if types[dtype] is np.uint8:
        image = (128 + 50 * image).clip(0, 255)
    return np.ascontiguousarray(image.astype(types[dtype]))


@dataclass
class _Image:
    """The input of a graph: its extents (None where open), and which axes are the channels and the height and width."""

    value: Any
    dims: list[int | None]
    channels: int
    spatial: tuple[int, int]


def _image(model: Any, path: Path) -> _Image:
    held = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in held]
    if len(inputs) != 1:
        raise MeasurementFailed(f"{path} takes {len(inputs)} inputs ({', '.join(one.name for one in inputs)}), not a single image")
    (value,) = inputs
    tensor = value.type.tensor_type
    dims = [dim.dim_value or None for dim in tensor.shape.dim]
    last = len(dims) == 4 and dims[3] == CHANNELS and dims[1] != CHANNELS
    channels = 3 if last else 1
    right = len(dims) == 4 and dims[0] in (1, None) and dims[channels] in (CHANNELS, None) and tensor.elem_type in _DTYPES
    if not right:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        extents = ["any" if dim is None else dim for dim in dims]
        raise MeasurementFailed(f"{path} takes {kind} {extents}, not one image, [1, 3, height, width] or [1, height, width, 3]")
    return _Image(value, dims, channels, (1, 2) if last else (2, 3))


def _macs(model: Any) -> int | None:
    """Multiply-adds of a graph whose input's shape is known, None where they cannot be told. Changes the model."""
    shapes: dict[str, list[int]] = {one.name: list(one.dims) for one in model.graph.initializer}
    for one in model.graph.initializer:
        if math.prod(one.dims) > _LARGE:  # the inference serialises the model: weights would only weigh
            one.ClearField("raw_data")
            one.ClearField("float_data")
    del model.graph.value_info[:]
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")
    try:
        known = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # an unknown operator or a damaged graph: the backend will say
        return None
    for value in (*known.input, *known.value_info, *known.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.HasField("shape") and all(dims):
            shapes.setdefault(value.name, dims)
    counts = [_node_macs(node, shapes) for node in known.node]
    return None if None in counts else sum(count for count in counts if count is not None)


def _node_macs(node: Any, shapes: dict[str, list[int]]) -> int | None:
    """Multiply-adds of a node: 0 for one that has none, None where they cannot be told."""
    nested = any(attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute)
    if nested or node.op_type in _UNCOUNTED or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    first, second, output = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
    if first is None or second is None or output is None:
        return None
    if node.op_type == "Conv":  # its kernel is (out, in / groups, kh, kw)
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # its kernel is (in, out / groups, kh, kw)
        return math.prod(first) * math.prod(second[1:])
    across = node.op_type == "Gemm" and any(one.name == "transA" and one.i for one in node.attribute)
    return math.prod(output) * first[0 if across else -1]
