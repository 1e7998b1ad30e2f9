"""Is the machine as fast as it was? A small graph that stays loaded, and is run now and then on the CPU, tells.

Whoever shares a processor with others may find it half as fast for a minute, and evenly so: neither the spread nor the drift of
a latency's samples shows that, nor does any process here. Latencies from before and after do not compare.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from latency.environment import available_cores
from latency.measurement import MAX_SLOWNESS, too_busy
from latency.state import OtherWork

_LAYERS, _CHANNELS, _HEIGHT, _WIDTH = 8, 16, 32, 64
_WARM, _RUNS = 5, 25
_POLL_S = 1.0
_OPSET, _IR = 18, 10

PATIENCE_S = 60.0
"""Seconds that may be waited, until the machine has been as fast as it was once more."""


class Pace:
    """How fast the CPU is, as a small graph of convolutions under ONNX Runtime finds it.

    Args:
        threads: it runs with.
    """

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self.least_ms = math.inf
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads would take the cores of what is timed next
        self._session = onnxruntime.InferenceSession(_graph(), options, providers=["CPUExecutionProvider"])
        self._image = {"image": np.ones((1, _CHANNELS, _HEIGHT, _WIDTH), np.float32)}

    def slowness(self) -> float:
        """What the graph takes now over the least it took so far: at least 1."""
        taken = []
        for _ in range(_WARM + _RUNS):
            start = time.perf_counter()
            self._session.run(None, self._image)
            taken.append((time.perf_counter() - start) * 1e3)
        now = statistics.median(taken[_WARM:])
        self.least_ms = min(self.least_ms, now)
        return now / self.least_ms


@cache
def _pace(threads: int) -> Pace:
    return Pace(threads)


def slowness(threads: int, least_ms: float = math.inf) -> float:
    """That of this process now, see `Pace.slowness`.

    Args:
        threads: of the small graph.
        least_ms: what another process found the graph to take at least; this one would know no better at its start.
    """
    pace = _pace(threads)
    pace.least_ms = min(pace.least_ms, least_ms)
    return pace.slowness()


def least_ms(threads: int) -> float:
    """The least the small graph took so far in this process, milliseconds, or in another one that told; infinite before the first time."""
    return _pace(threads).least_ms


class Patience:
    """Waits for a slow machine, but not for ever: what is used up comes back once the machine is as fast as it was."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._whole_s = self._left_s = seconds

    def settle(self, slowness: Callable[[], float], threads: int) -> None:
        """Wait while the machine is slow, unless other processes of its own keep it busy: the verdict tells of those.

        Args:
            slowness: asked again and again.
            threads: that a measurement is about to take.
        """
        while slowness() > MAX_SLOWNESS:
            if self._left_s <= 0:
                return
            others = OtherWork()
            time.sleep(_POLL_S)
            self._left_s -= _POLL_S
            if too_busy(others.cores() or 0.0, available_cores(), threads):
                return
        self._left_s = self._whole_s


def _graph() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.full((_CHANNELS, _CHANNELS, 3, 3), 1 / (9 * _CHANNELS), np.float32)
    nodes = [helper.make_node("Conv", [f"x{i}" if i else "image", "kernel"], [f"x{i + 1}"], pads=[1, 1, 1, 1]) for i in range(_LAYERS)]
    shape = [1, _CHANNELS, _HEIGHT, _WIDTH]
    image, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", f"x{_LAYERS}"))
    graph = helper.make_graph(nodes, "pace", [image], [out], [numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return model.SerializeToString()  # type: ignore[no-any-return]
