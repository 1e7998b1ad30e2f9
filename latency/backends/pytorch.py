"""Eager PyTorch on a CPU; on a GPU the recorded CUDA graph of the module, timed by CUDA events.

The GPU path is not yet executed on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latency.export import seeded_input
from latency.measurement import Conditions
from latency.protocols import MeasurementFailed, Session


class CpuSession:
    """A module run eagerly on the host."""

    clock = "perf_counter"

    def __init__(self, module: nn.Module, conditions: Conditions) -> None:
        self._module = module
        self._image = torch.from_numpy(seeded_input(conditions.shape))
        self.found: dict[str, Any] = {"threads": torch.get_num_threads(), "mode": "eager"}

    def infer(self, image: np.ndarray) -> np.ndarray:
        """See `Session.infer`."""
        with torch.inference_mode():
            return np.asarray(self._module(torch.from_numpy(image)).numpy())

    def run_ms(self) -> float:
        """See `Session.run_ms`."""
        with torch.inference_mode():
            start = time.perf_counter()
            self._module(self._image)
            return (time.perf_counter() - start) * 1e3


class CudaSession:
    """A module recorded once as a CUDA graph and replayed."""

    clock = "cuda-events"

    def __init__(self, module: nn.Module, conditions: Conditions) -> None:
        self._image = torch.from_numpy(seeded_input(conditions.shape)).cuda()
        self._graph = torch.cuda.CUDAGraph()
        self._output = self._record(module)
        self.found: dict[str, Any] = {"mode": "cuda graph", "tf32": torch.backends.cudnn.allow_tf32}

    def _record(self, module: nn.Module) -> Tensor:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            # Lazy initialisation must not fall into the recording.
            with torch.cuda.stream(side):
                for _ in range(3):
                    module(self._image)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self._graph):
                output: Tensor = module(self._image)
        return output

    def infer(self, image: np.ndarray) -> np.ndarray:
        """See `Session.infer`."""
        self._image.copy_(torch.from_numpy(image))
        self._graph.replay()
        torch.cuda.synchronize()
        return np.asarray(self._output.cpu().numpy())

    def run_ms(self) -> float:
        """See `Session.run_ms`."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        self._graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))


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
        return {"torch": str(torch.__version__)}

    @contextmanager
    def load(self, module: nn.Module, conditions: Conditions) -> Iterator[Session]:
        """See `Backend.load`; the number of threads and the TF32 switch are put back when the context is left."""
        threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        try:
            if conditions.device == "cpu":
                torch.set_num_threads(conditions.threads)
                yield CpuSession(module, conditions)
            else:
                torch.backends.cudnn.allow_tf32 = False
                yield CudaSession(module.cuda(), conditions)
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
