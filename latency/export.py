"""A module as an ONNX graph, and the check that a runtime's output agrees with torch.

The exporter (torch.export, "dynamo") and the opset are fixed: both decide what is timed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from latency.graph import GraphFile
from latency.measurement import Conditions
from latency.protocols import MeasurementFailed

OPSET = 20
TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2}
"""By precision: the largest difference to torch in fp32, relative to the largest output, above which a graph is refused."""

LABEL_TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2}
"""By precision: the largest share of pixels whose class may differ from torch: ties between classes fall either way."""


def seeded_input(shape: tuple[int, ...]) -> np.ndarray:
    """The input every session is timed and checked on: standard normal, the same on every machine."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def to_onnx(
    module: nn.Module, shape: tuple[int, int, int, int], *, dtype: torch.dtype = torch.float32, dynamic_batch: bool = False
) -> bytes:
    """The module in eval mode as a serialised ONNX model with one input, `image`, and one output, `output`.

    Args:
        module: takes the image, of `dtype`.
        shape: of the image.
        dtype: of the image; a module in half precision takes half or 8-bit images.
        dynamic_batch: leave the number of images open; `shape` then says the others.

    Raises:
        MeasurementFailed: the exporter refused the module; the message gives its first line.
    """
    # A batch of one would be taken for a constant.
    example = torch.zeros((2, *shape[1:]) if dynamic_batch else shape, dtype=dtype)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=256)},) if dynamic_batch else None
    try:
        with _quiet(), _operators_read_once():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                input_names=["image"],
                output_names=["output"],
                dynamic_shapes=dynamic,
            )
    except Exception as error:  # the exporter raises many types; each means that this network cannot be built
        raise MeasurementFailed(f"ONNX export failed: {type(error).__name__}: {_first_line(error)}") from error
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def graph_for(module: nn.Module, conditions: Conditions) -> bytes:
    """The ONNX model that is timed under these conditions; the module is turned to half precision where they say so.

    A `GraphFile` is its own, whatever precision it has.
    """
    if isinstance(module, GraphFile):
        return module.path.read_bytes()
    half = conditions.precision == "fp16"
    return to_onnx(module.half() if half else module, conditions.shape, dtype=torch.float16 if half else torch.float32)


def check_agreement(found: np.ndarray, expected: np.ndarray, precision: str = "fp32") -> float:
    """Refuse an output that differs from torch's in fp32 beyond the tolerance of its precision.

    Returns:
        The share of differing labels, or the largest difference relative to the largest output.

    Raises:
        MeasurementFailed: with the difference.
    """
    if found.shape != expected.shape:
        raise MeasurementFailed(f"the output has shape {found.shape}, torch gives {expected.shape}")
    if not np.isfinite(found).all():
        raise MeasurementFailed("the output holds NaN or infinity")
    if np.issubdtype(expected.dtype, np.integer):
        share = float((found != expected).mean())
        if share > LABEL_TOLERANCE[precision]:
            raise MeasurementFailed(f"{share:.2%} of the labels differ from torch, more than {LABEL_TOLERANCE[precision]:.2%}")
        return share
    error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if not error <= TOLERANCE[precision]:  # NaN is no agreement either
        raise MeasurementFailed(f"the output differs from torch by {error:.1e} of its largest value, more than {TOLERANCE[precision]:.0e}")
    return error


def full_precision(output: np.ndarray) -> np.ndarray:
    """An output as sessions give it: float32 where it was half precision, else as it is."""
    return output.astype(np.float32) if output.dtype == np.float16 else output


def _first_line(error: BaseException) -> str:
    """The first line of the innermost cause, which says what is wrong, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return plain.splitlines()[0] if plain else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: its notes on packages nothing here needs, and its account of a refusal."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a refusal is raised; torch's own lines about it would only repeat it
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # it prints a refused graph, too
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _operators_read_once() -> Iterator[None]:
    """Let the exporter read its table of operators once a process and not once a graph.

    That is over half of the time a small network takes to export. The table is only read; where this torch keeps it
    elsewhere nothing is changed.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        original = ONNXRegistry.__dict__["from_torchlib"]
    except (ImportError, KeyError):
        yield
        return
    ONNXRegistry.from_torchlib = staticmethod(partial(_operators, original.__get__(None, ONNXRegistry)))  # type: ignore[assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = original  # type: ignore[method-assign]


@cache
def _operators(read: Callable[..., object], opset_version: int) -> object:
    return read(opset_version=opset_version)
