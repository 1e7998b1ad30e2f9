"""A module as an ONNX graph, and the check that a runtime's output agrees with torch.

The exporter (torch.export, "dynamo") and the opset are fixed: both decide what is timed.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from latency.protocols import MeasurementFailed

OPSET = 20
TOLERANCE = 1e-3
"""Largest difference to torch, relative to the largest output, above which a graph is refused."""

LABEL_TOLERANCE = 1e-3
"""Largest share of pixels whose class may differ from torch: ties between classes fall either way."""


def seeded_input(shape: tuple[int, ...]) -> np.ndarray:
    """The input every session is timed and checked on: standard normal, the same on every machine."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def to_onnx(module: nn.Module, shape: tuple[int, int, int, int]) -> bytes:
    """The module in eval mode as a serialised ONNX model for one input shape.

    Raises:
        MeasurementFailed: the exporter refused the module; the message gives its first line.
    """
    example = torch.from_numpy(seeded_input(shape))
    try:
        with _quiet(), _operators_read_once():
            program = torch.onnx.export(module, (example,), dynamo=True, opset_version=OPSET, verbose=False, input_names=["image"])
    except Exception as error:  # the exporter raises many types; each means that this network cannot be built
        raise MeasurementFailed(f"ONNX export failed: {type(error).__name__}: {_first_line(error)}") from error
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def check_agreement(found: np.ndarray, expected: np.ndarray) -> None:
    """Refuse an output that differs from torch's beyond the tolerance.

    Raises:
        MeasurementFailed: with the difference.
    """
    if found.shape != expected.shape:
        raise MeasurementFailed(f"the output has shape {found.shape}, torch gives {expected.shape}")
    if not np.isfinite(found).all():
        raise MeasurementFailed("the output holds NaN or infinity")
    if np.issubdtype(expected.dtype, np.integer):
        share = float((found != expected).mean())
        if share > LABEL_TOLERANCE:
            raise MeasurementFailed(f"{share:.2%} of the labels differ from torch, more than {LABEL_TOLERANCE:.2%}")
        return
    error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if not error <= TOLERANCE:  # NaN is no agreement either
        raise MeasurementFailed(f"the output differs from torch by {error:.1e} of its largest value, more than {TOLERANCE:.0e}")


def _first_line(error: BaseException) -> str:
    """The first line of the innermost cause, which says what is wrong, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return plain.splitlines()[0] if plain else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
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
