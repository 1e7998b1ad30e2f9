"""ONNX Runtime: CPU by default, the CUDA or the TensorRT provider where the installed wheel has it.

Threads are pinned, execution is sequential, all graph optimisations are on, and inputs and outputs stay bound to
memory of the device, so that no copy is timed. The GPU paths are not yet executed on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
from torch import nn

from latency.environment import package_version
from latency.export import OPSET, full_precision, graph_for, seeded_input
from latency.graph import GraphFile, fitted_image
from latency.measurement import Conditions
from latency.protocols import MeasurementFailed

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
TENSORRT = {"cuda": "TensorrtExecutionProvider"}


class OrtSession:
    """A graph loaded in ONNX Runtime with its input and output bound."""

    clock = "perf_counter"

    def __init__(self, session: onnxruntime.InferenceSession, conditions: Conditions) -> None:
        self._session = session
        self._device = conditions.device
        self._binding = session.io_binding()
        self._bind(seeded_input(conditions.shape))
        self.found: dict[str, Any] = {"providers": session.get_providers(), "opset": OPSET}

    def _bind(self, image: np.ndarray) -> None:
        taken = self._session.get_inputs()[0]
        value = onnxruntime.OrtValue.ortvalue_from_numpy(fitted_image(image, taken.shape, taken.type), self._device, 0)
        self._binding.bind_ortvalue_input(taken.name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, self._device)

    def infer(self, image: np.ndarray) -> np.ndarray:
        """See `Session.infer`."""
        self._bind(image)
        self._session.run_with_iobinding(self._binding)
        return full_precision(np.asarray(self._binding.copy_outputs_to_cpu()[0]))

    def run_ms(self) -> float:
        """See `Session.run_ms`."""
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return (time.perf_counter() - start) * 1e3


class OrtBackend:
    """See `Backend`. Takes graphs.

    Args:
        name: in the table of backends.
        providers: of ONNX Runtime, by device.
    """

    takes_graphs = True

    def __init__(self, name: str = "ort", providers: Mapping[str, str] = _PROVIDERS) -> None:
        self.name = name
        self._providers = providers

    def unavailable(self, device: str) -> str | None:
        """See `Backend.unavailable`."""
        if device not in self._providers:
            return f"{self.name} does not run on {device}; it runs on {', '.join(self._providers)}"
        if self._providers[device] in onnxruntime.get_available_providers():
            return None
        return f"onnxruntime {onnxruntime.__version__} has no {self._providers[device]}; pip install onnxruntime-gpu brings it"

    def versions(self) -> dict[str, str]:
        """See `Backend.versions`; torch and onnxscript build the graph."""
        found = {name: package_version(name) for name in ("torch", "onnxscript")}
        return {"onnxruntime": onnxruntime.__version__, **{name: value or "not installed" for name, value in found.items()}}

    @contextmanager
    def load(self, module: nn.Module, conditions: Conditions) -> Iterator[OrtSession]:
        """See `Backend.load`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = conditions.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # By its path, so that weights in files beside it are found.
        graph = str(module.path) if isinstance(module, GraphFile) else graph_for(module, conditions)
        provider = self._providers[conditions.device]
        settings = {"use_tf32": int(conditions.precision == "tf32")} if provider == _PROVIDERS["cuda"] else {}
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=[(provider, settings)])
        except Exception as error:  # onnxruntime exports no common base class of its errors
            raise MeasurementFailed(f"ONNX Runtime cannot load the graph: {error}") from error
        try:
            yield OrtSession(session, conditions)
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise MeasurementFailed(f"ONNX Runtime cannot run the graph: {error}") from error
