"""TensorRT and TensorRT-RTX on an NVIDIA GPU: an engine run through pycuda, timed by CUDA events.

Buffers, stream and events live in the device's primary context, which torch uses too, so both can share a process.
The input stays on the device: no copy is timed. Not yet executed on a GPU.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from latency.engine import EngineOptions, Log, build_engine, default_runtime_cache, default_timing_cache, runtime_module
from latency.engine_check import contradiction, precisions_found
from latency.environment import package_version
from latency.export import OPSET, full_precision, graph_for, seeded_input
from latency.files import replace_file
from latency.measurement import Conditions
from latency.protocols import BackendError, MeasurementFailed

_RELAXED_CAPTURE = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: TensorRT-RTX may allocate while it is recorded


class TrtSession:
    """An engine on the device with its input and output bound."""

    clock = "cuda-events"
    runs_a_sample = 1

    def __init__(self, trt: Any, data: bytes, conditions: Conditions, runtime_cache: Path | None = None) -> None:
        import pycuda.driver as cuda

        self._cuda = cuda
        self._log = Log(trt)
        self._engine = trt.Runtime(self._log.logger).deserialize_cuda_engine(data)
        if self._engine is None:
            raise MeasurementFailed(f"the engine cannot be loaded on this GPU: {self._log.text()}")
        self.found: dict[str, Any] = {"cuda_graph": conditions.cuda_graph, "opset": OPSET}
        self._runtime_cache: Any = None
        self._context = self._execution_context(runtime_cache)
        self._stream = cuda.Stream()
        self._host: dict[str, np.ndarray] = {}
        self._device: dict[str, Any] = {}
        for index in range(self._engine.num_io_tensors):
            self._bind(trt, self._engine.get_tensor_name(index))
        inputs = [name for name in self._host if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        (self._input,), (self._output,) = inputs, [name for name in self._host if name not in inputs]
        self._load(seeded_input(conditions.shape))
        self._enqueue()  # nothing lazy may fall into the recording
        self._stream.synchronize()
        self._launch: Callable[[], None] = self._record() if conditions.cuda_graph else self._enqueue
        layers = self._layers(trt)
        if against := contradiction(conditions.precision, layers):
            raise MeasurementFailed(against)
        self.found["precisions"] = precisions_found(layers)
        if self._runtime_cache is not None and runtime_cache is not None:  # filled by the first run
            keep_runtime_cache(runtime_cache, bytes(self._runtime_cache.serialize()))

    def _execution_context(self, runtime_cache: Path | None) -> Any:
        if hasattr(self._engine, "create_runtime_config"):  # TensorRT-RTX compiles on the device at first use, into this cache
            config = self._engine.create_runtime_config()
            for name in ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"):
                self.found[name] = str(getattr(config, name, "unknown"))
            self._runtime_cache = config.create_runtime_cache()
            if runtime_cache is not None and runtime_cache.is_file():
                # A cache of another version, driver or GPU is refused by the runtime and made anew.
                self.found["runtime_cache_used"] = bool(self._runtime_cache.deserialize(runtime_cache.read_bytes()))
            config.set_runtime_cache(self._runtime_cache)
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise MeasurementFailed(f"no execution context: {self._log.text()}")
        return context

    def _bind(self, trt: Any, name: str) -> None:
        shape, dtype = tuple(self._engine.get_tensor_shape(name)), trt.nptype(self._engine.get_tensor_dtype(name))
        self._host[name] = self._cuda.pagelocked_empty(shape, dtype)
        self._device[name] = self._cuda.mem_alloc(self._host[name].nbytes)
        if not self._context.set_tensor_address(name, int(self._device[name])):
            raise MeasurementFailed(f"tensor {name} cannot be bound: {self._log.text()}")

    def _load(self, image: np.ndarray) -> None:
        np.copyto(self._host[self._input], image, casting="same_kind")
        self._cuda.memcpy_htod_async(self._device[self._input], self._host[self._input], self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise MeasurementFailed(f"the engine cannot be run: {self._log.text()}")

    def _record(self) -> Callable[[], None]:
        """Record one run as a CUDA graph; returns what launches it. pycuda has no graphs, so the driver is called itself."""
        driver = ctypes.CDLL("libcuda.so.1")
        stream, graph, executable = ctypes.c_void_p(self._stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
        _call(driver.cuStreamBeginCapture_v2, stream, _RELAXED_CAPTURE)
        self._enqueue()
        _call(driver.cuStreamEndCapture, stream, ctypes.byref(graph))
        _call(driver.cuGraphInstantiateWithFlags, ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        return partial(_call, driver.cuGraphLaunch, executable, stream)

    def _layers(self, trt: Any) -> str:
        """What the engine inspector tells of the layers, precision included, as JSON text."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def infer(self, image: np.ndarray) -> np.ndarray:
        """See `Session.infer`."""
        self._load(image)
        self._launch()
        self._cuda.memcpy_dtoh_async(self._host[self._output], self._device[self._output], self._stream)
        self._stream.synchronize()
        return full_precision(self._host[self._output].copy())

    def run_ms(self) -> float:
        """See `Session.run_ms`."""
        start, end = self._cuda.Event(), self._cuda.Event()
        start.record(self._stream)
        for _ in range(self.runs_a_sample):
            self._launch()
        end.record(self._stream)
        end.synchronize()
        return float(end.time_since(start)) / self.runs_a_sample

    def parts_ms(self) -> dict[str, float]:
        """See `Session.parts_ms`: "enqueue" is the host's share of a launch, "host" a whole inference with both copies."""
        start = time.perf_counter()
        self._launch()
        enqueued = time.perf_counter()
        self._stream.synchronize()
        begin = time.perf_counter()
        self._cuda.memcpy_htod_async(self._device[self._input], self._host[self._input], self._stream)
        self._launch()
        self._cuda.memcpy_dtoh_async(self._host[self._output], self._device[self._output], self._stream)
        self._stream.synchronize()
        return {"enqueue": (enqueued - start) * 1e3, "host": (time.perf_counter() - begin) * 1e3}


def keep_runtime_cache(path: Path, data: bytes) -> None:
    """Write a runtime cache, whole or not at all; where nothing can be written the next session compiles again."""
    try:
        replace_file(path, data)
    except OSError:
        return


class TrtBackend:
    """See `Backend`; `name` is the flavour, "tensorrt" or "tensorrt-rtx". Takes graphs."""

    takes_graphs = True

    def __init__(self, name: str) -> None:
        self.name = name

    def unavailable(self, device: str) -> str | None:
        """See `Backend.unavailable`."""
        if device != "cuda":
            return f"{self.name} runs on NVIDIA GPUs only; use --device cuda"
        try:
            runtime_module(self.name)
            import pycuda.driver as cuda

            cuda.init()
            return None if cuda.Device.count() else "no CUDA device is visible"
        except BackendError as error:
            return str(error)
        except Exception as error:  # pycuda raises errors of its own, and ImportError without libcuda
            return f"pycuda finds no GPU ({' '.join(str(error).split())}); a driver and pip install pycuda are needed"

    def versions(self) -> dict[str, str]:
        """See `Backend.versions`; torch and onnxscript build the graph."""
        named = {name: package_version(name) or "not installed" for name in ("pycuda", "torch", "onnxscript")}
        return {self.name: str(runtime_module(self.name).__version__), **named}

    @contextmanager
    def load(self, module: nn.Module, conditions: Conditions) -> Iterator[TrtSession]:
        """See `Backend.load`."""
        import pycuda.driver as cuda

        cache = default_timing_cache(self.name, cuda.Device(0).name())
        options = EngineOptions(precision=conditions.precision, timing_cache=cache)
        engine = build_engine(graph_for(module, conditions), self.name, options)
        with _session(self.name, engine.data, conditions) as session:
            session.found["engine"] = engine.description
            yield session


def open_engine(flavour: str, data: bytes, description: dict[str, Any]) -> AbstractContextManager[TrtSession]:
    """An engine that was written to a file, ready to infer; leaving the context frees its memory.

    Args:
        flavour: "tensorrt" or "tensorrt-rtx".
        data: the engine.
        description: what `build_engine` told of it.

    Raises:
        BackendError: it cannot be run here.
        MeasurementFailed: it cannot be loaded.
    """
    if reason := TrtBackend(flavour).unavailable("cuda"):
        raise BackendError(f"the engine cannot be run: {reason}")
    (image,) = description["inputs"]
    shape, boundary = tuple(image["shape"]), "labels"
    conditions = Conditions(
        backend=flavour, device="cuda", shape=shape, boundary=boundary, precision=description["precision"], cuda_graph=False
    )
    return _session(flavour, data, conditions)


@contextmanager
def _session(flavour: str, data: bytes, conditions: Conditions) -> Iterator[TrtSession]:
    """An engine in the device's primary context."""
    import pycuda.driver as cuda

    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        kept = default_runtime_cache(flavour, cuda.Device(0).name())
        yield TrtSession(runtime_module(flavour), data, conditions, kept)
    except cuda.Error as error:
        raise MeasurementFailed(f"{flavour} cannot run the network: {error}") from error
    finally:
        context.pop()


def _call(function: Any, *arguments: Any) -> None:
    code = function(*arguments)
    if code:
        raise MeasurementFailed(f"{function.__name__} failed with CUDA error {code}")
