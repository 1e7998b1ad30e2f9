"""Eager PyTorch on a CPU; on a GPU the recorded CUDA graph of the module, timed by CUDA events.

Tensors lie channels first or channels last, whichever a few runs find faster. The GPU path is not yet executed on a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latency.export import seeded_input
from latency.measurement import Conditions
from latency.protocols import MeasurementFailed, Session

LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}

_LAYOUT_RUNS = 5


def in_faster_layout(make: Callable[[torch.memory_format], Session]) -> Session:
    """The session that `make` gives for the faster of `LAYOUTS`; what the runs said is recorded with it."""
    medians = {}
    for name, layout in LAYOUTS.items():
        session = make(layout)
        session.run_ms()
        medians[name] = statistics.median(session.run_ms() for _ in range(_LAYOUT_RUNS))
    faster = min(medians, key=medians.__getitem__)
    session = make(LAYOUTS[faster])  # anew: a layout is the module's, so the first session no longer has its own
    session.found["layout"] = faster
    session.found["layouts_ms"] = medians
    return session


class CpuSession:
    """A module run eagerly on the host."""

    clock = "perf_counter"

    def __init__(self, module: nn.Module, conditions: Conditions, layout: torch.memory_format) -> None:
        self._module = module.to(memory_format=layout)  # type: ignore[call-overload]
        self._layout = layout
        self._image = torch.from_numpy(seeded_input(conditions.shape)).contiguous(memory_format=layout)
        self.found: dict[str, Any] = {"threads": torch.get_num_threads(), "mode": "eager"}

    def infer(self, image: np.ndarray) -> np.ndarray:
        """See `Session.infer`."""
        with torch.inference_mode():
            return np.asarray(self._module(torch.from_numpy(image).contiguous(memory_format=self._layout)).numpy())

    def run_ms(self) -> float:
        """See `Session.run_ms`."""
        with torch.inference_mode():
            start = time.perf_counter()
            self._module(self._image)
            return (time.perf_counter() - start) * 1e3


class CudaSession:
    """A module on the GPU; recorded once as a CUDA graph and replayed, unless the conditions say otherwise."""

    clock = "cuda-events"
    runs_a_sample = 1

    def __init__(self, module: nn.Module, conditions: Conditions, layout: torch.memory_format) -> None:
        self._module = module.to(memory_format=layout)  # type: ignore[call-overload]
        image = torch.from_numpy(seeded_input(conditions.shape)).cuda().contiguous(memory_format=layout)
        self._image = image.half() if conditions.precision == "fp16" else image
        self._graph = torch.cuda.CUDAGraph() if conditions.cuda_graph else None
        self._output = self._record(self._graph) if self._graph is not None else self._eager()
        self.found: dict[str, Any] = {
            "mode": "cuda graph" if conditions.cuda_graph else "eager",
            "tf32": torch.backends.cudnn.allow_tf32,
        }

    def _eager(self) -> Tensor:
        with torch.inference_mode():
            output: Tensor = self._module(self._image)
        return output

    def _run(self) -> None:
        if self._graph is None:
            self._output = self._eager()
        else:
            self._graph.replay()

    def _record(self, graph: torch.cuda.CUDAGraph) -> Tensor:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            # Lazy initialisation must not fall into the recording.
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._module(self._image)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                output: Tensor = self._module(self._image)
        return output

    def infer(self, image: np.ndarray) -> np.ndarray:
        """See `Session.infer`."""
        self._image.copy_(torch.from_numpy(image))
        self._run()
        torch.cuda.synchronize()
        output = self._output.float() if self._output.is_floating_point() else self._output
        return np.asarray(output.cpu().numpy())

    def run_ms(self) -> float:
        """See `Session.run_ms`."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(self.runs_a_sample):
            self._run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / self.runs_a_sample


class TorchBackend:
    """See `Backend`."""

    name = "torch"

    def unavailable(self, device: str) -> str | None:
        """See `Backend.unavailable`."""
        if device == "cpu" or torch.cuda.is_available():
            return None
        return f"torch {torch.__version__} sees no CUDA device; a CUDA build of torch and a driver are needed"

    def versions(self) -> dict[str, str]:
        """See `Backend.versions`."""
        # Stores hold rows from before there was a choice of layouts, whose latencies are no answer to what is asked now.
        return {"torch": str(torch.__version__), "layouts": ", ".join(LAYOUTS)}

    @contextmanager
    def load(self, module: nn.Module, conditions: Conditions) -> Iterator[Session]:
        """See `Backend.load`; the number of threads and the TF32 switch are put back when the context is left."""
        threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        try:
            if conditions.device == "cpu":
                torch.set_num_threads(conditions.threads)
                yield in_faster_layout(partial(CpuSession, module, conditions))
            else:
                torch.backends.cudnn.allow_tf32 = conditions.precision == "tf32"
                on_device = (module.half() if conditions.precision == "fp16" else module).cuda()
                yield in_faster_layout(partial(CudaSession, on_device, conditions))
        except MeasurementFailed:
            raise
        except (RuntimeError, MemoryError) as error:
            raise MeasurementFailed(f"torch cannot run the network on {conditions.device}: {error}") from error
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.allow_tf32 = tf32
            if conditions.device == "cuda":
                module.cpu()
                torch.cuda.empty_cache()
