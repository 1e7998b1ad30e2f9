"""ONNX files as other tools write them: other names, layouts and types than this project's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_foreign(
    path: Path, shape: list[Any] | None = None, *, dtype: int = TensorProto.FLOAT, operator: str = "", inputs: int = 1
) -> Path:
    """A 3x3 convolution with stride 2 to 5 maps, its mean a class, behind what it needs to take `shape` and `dtype`.

    Args:
        path: of the file.
        shape: of the input; texts are open extents. By default any size.
        dtype: of the input.
        operator: an operator of another vendor in the end.
        inputs: of the graph.
    """
    shape = shape or ["n", 3, "h", "w"]
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((5, 3, 3, 3)).astype(np.float32), "kernel"),
        numpy_helper.from_array(np.zeros(5, np.float32), "shift"),
    ]
    nodes, current = [helper.make_node("Cast", ["pixels"], ["number"], to=TensorProto.FLOAT)], "number"
    if shape[-1] == 3 and shape[1] != 3:
        nodes.append(helper.make_node("Transpose", [current], ["planes"], perm=[0, 3, 1, 2]))
        current = "planes"
    nodes.append(helper.make_node("Conv", [current, "kernel", "shift"], ["maps"], strides=[2, 2], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node(operator or "Relu", ["maps"], ["classes"], domain="vendor" if operator else ""))
    taken = [helper.make_tensor_value_info(name, dtype, shape) for name in ("pixels", "more")[:inputs]]
    given = [helper.make_tensor_value_info("classes", TensorProto.FLOAT, None)]
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("vendor", 1)] if operator else [])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "other", taken, given, weights), opset_imports=opsets, ir_version=9), path)
    return path


FOREIGN_PARAMETERS = 5 * 3 * 9 + 5


def foreign_macs(height: int, width: int) -> int:
    """Multiply-adds of that convolution for an image of that size."""
    return 5 * 3 * 9 * -(-height // 2) * -(-width // 2)
