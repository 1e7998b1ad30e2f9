"""Running TensorRT engines where no GPU is: every refusal, and the steps of a run, against stand-ins for pycuda and TensorRT.

The stand-ins hold memory as arrays and "run" an engine by adding 1. What a GPU does is tested with `pytest -m gpu`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from latency.backends.trt import TrtBackend, TrtSession
from latency.engine import default_runtime_cache, default_timing_cache
from latency.export import seeded_input
from latency.measurement import Conditions
from latency.protocols import BackendError, MeasurementFailed
from latency.timing import sample
from tests.test_engine_check import FULL, HALF, layers

SHAPE = (1, 3, 4, 6)


class CudaError(Exception):
    pass


class Cuda(ModuleType):
    """Stands in for pycuda.driver: memory is a list of arrays, an address its place in the list, an event a count of runs."""

    Error = CudaError

    def __init__(self, devices: int = 1, broken: str = "") -> None:
        super().__init__("pycuda.driver")
        self.memory: list[np.ndarray] = []
        self.runs = 0
        self.broken = broken
        self.Device = SimpleNamespace(count=lambda: devices)

    def init(self) -> None:
        if self.broken:
            raise CudaError(self.broken)

    def Stream(self) -> Any:  # noqa: N802 - pycuda's name
        return SimpleNamespace(handle=7, synchronize=lambda: None)

    def Event(self) -> Any:  # noqa: N802 - pycuda's name
        event = SimpleNamespace(at=0, synchronize=lambda: None)
        event.record = lambda stream: setattr(event, "at", self.runs)
        event.time_since = lambda start: 0.05 * (event.at - start.at)
        return event

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def mem_alloc(self, size: int) -> int:
        self.memory.append(np.zeros(size, np.uint8))
        return len(self.memory) - 1

    def memcpy_htod_async(self, target: int, source: np.ndarray, stream: Any) -> None:
        self.memory[target][:] = source.reshape(-1).view(np.uint8)

    def memcpy_dtoh_async(self, target: np.ndarray, source: int, stream: Any) -> None:
        target.reshape(-1).view(np.uint8)[:] = self.memory[source]


class Trt:
    """Stands in for TensorRT: one engine that adds 1 to its input, and whose faults can be chosen."""

    def __init__(self, cuda: Cuda, fault: str = "", told: str = layers(FULL)) -> None:
        self.cuda, self.fault, self.told = cuda, fault, told
        self.bound: dict[str, int] = {}
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        self.LayerInformationFormat = SimpleNamespace(JSON="json")
        self.logger: Any = None
        severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

        class ILogger:
            Severity = severity

            def __init__(self) -> None:
                pass

        self.ILogger = ILogger

    def nptype(self, dtype: Any) -> Any:
        return dtype

    def complain(self, where: str) -> bool:
        """Whether the fault is here; says so to the log, as TensorRT does."""
        if self.fault == where:
            self.logger.log(1, f"no luck with\n {where}")
        return self.fault == where

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        self.logger = logger
        return SimpleNamespace(deserialize_cuda_engine=lambda data: None if self.complain("engine") else self.engine())

    def engine(self) -> Any:
        return SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=lambda index: ("image", "scores")[index],
            get_tensor_mode=lambda name: "in" if name == "image" else "out",
            get_tensor_shape=lambda name: SHAPE,
            get_tensor_dtype=lambda name: np.float32,
            create_execution_context=lambda: None if self.complain("context") else self.context(),
            create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda form: self.told),
        )

    def runtime_config(self) -> Any:
        """As TensorRT-RTX has one: its cache grows by the runs, and takes no cache that it did not write."""
        cache = SimpleNamespace(content=b"")

        def deserialize(data: bytes) -> bool:
            cache.content = data if data.startswith(b"cache") else b""
            return bool(cache.content)

        cache.deserialize = deserialize
        cache.serialize = lambda: b"cache of %d runs" % self.cuda.runs
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda given: None, cuda_graph_strategy="DISABLED")

    def context(self) -> Any:
        return SimpleNamespace(set_tensor_address=self.bind, execute_async_v3=self.run)

    def bind(self, name: str, address: int) -> bool:
        self.bound[name] = address
        return not self.complain("binding")

    def run(self, stream: int) -> bool:
        assert stream == 7
        self.cuda.runs += 1
        image = self.cuda.memory[self.bound["image"]].view(np.float32)
        self.cuda.memory[self.bound["scores"]].view(np.float32)[:] = image + 1
        return not self.complain("run")


Install = Callable[..., Cuda]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a stand-in in pycuda's place."""

    def put(**options: Any) -> Cuda:
        cuda, package = Cuda(**options), ModuleType("pycuda")
        package.driver = cuda  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", cuda)
        return cuda

    return put


def conditions(precision: str = "fp32") -> Conditions:
    return Conditions(backend="tensorrt", device="cuda", shape=SHAPE, boundary="scores", precision=precision, cuda_graph=False)


def test_an_engine_gives_its_output_and_its_time_by_events(install: Install) -> None:
    cuda = install()
    session = TrtSession(Trt(cuda), b"plan", conditions())
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    np.testing.assert_allclose(session.infer(image), image + 1)
    session.infer(seeded_input(SHAPE))
    assert session.run_ms() == pytest.approx(0.05)
    session.runs_a_sample = 4
    assert session.run_ms() == pytest.approx(0.05) and cuda.runs == 3 + 1 + 4
    assert session.found["precisions"] == {"FP32": 1} and set(session.parts_ms()) == {"enqueue", "host"}


def test_short_runs_are_timed_several_to_a_pair_of_events(install: Install) -> None:
    timing = sample(TrtSession(Trt(install()), b"plan", conditions()), conditions().plan)
    assert timing.runs_a_sample == 4 and set(np.round(timing.samples_ms, 6)) == {0.05}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("engine", "the engine cannot be loaded on this GPU: no luck with engine"),
        ("context", "no execution context: no luck with context"),
        ("binding", "tensor image cannot be bound: no luck with binding"),
        ("run", "the engine cannot be run: no luck with run"),
    ],
)
def test_whatever_fails_is_told_in_tensorrts_words(fault: str, message: str, install: Install) -> None:
    with pytest.raises(MeasurementFailed, match=message):
        TrtSession(Trt(install(), fault), b"plan", conditions())


def test_an_engine_of_another_precision_than_asked_for_is_refused(install: Install) -> None:
    with pytest.raises(MeasurementFailed, match="asked for fp32, the engine inspector finds 1 layers in FP16"):
        TrtSession(Trt(install(), told=layers(HALF, FULL)), b"plan", conditions())
    assert TrtSession(Trt(install(), told=layers(HALF, HALF, FULL)), b"plan", conditions("fp16")).found["precisions"]["FP16"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"broken": "cuInit failed: CUDA driver version is insufficient for CUDA runtime version"}, "driver version is insufficient"),
        ({"broken": "cuInit failed: no CUDA-capable device\nis detected"}, "no CUDA-capable device is detected"),
        ({"devices": 0}, "no CUDA device is visible"),
    ],
)
def test_a_missing_gpu_or_an_old_driver_is_one_sentence(
    options: dict[str, Any], message: str, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latency.backends.trt.runtime_module", lambda flavour: None)
    install(**options)
    reason = TrtBackend("tensorrt").unavailable("cuda")
    assert reason is not None and message in reason and "\n" not in reason


def test_without_tensorrt_without_pycuda_and_on_a_cpu_the_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "use --device cuda" in str(TrtBackend("tensorrt").unavailable("cpu"))

    def missing(flavour: str) -> None:
        raise BackendError(f"{flavour} is not installed; pip install brings it")

    monkeypatch.setattr("latency.backends.trt.runtime_module", missing)
    assert TrtBackend("tensorrt").unavailable("cuda") == "tensorrt is not installed; pip install brings it"
    monkeypatch.setattr("latency.backends.trt.runtime_module", lambda flavour: None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert "pip install pycuda" in str(TrtBackend("tensorrt").unavailable("cuda"))


def test_the_runtime_cache_of_tensorrt_rtx_is_kept_and_a_foreign_one_replaced(install: Install, tmp_path: Path) -> None:
    class Rtx(Trt):
        def engine(self) -> Any:
            engine = super().engine()
            engine.create_runtime_config = self.runtime_config
            engine.create_execution_context = lambda config: self.context()
            return engine

    kept = tmp_path / "new" / "gpu.runtime"
    first = TrtSession(Rtx(install()), b"plan", conditions(), kept)
    assert kept.read_bytes() == b"cache of 1 runs" and "runtime_cache_used" not in first.found
    assert first.found["cuda_graph_strategy"] == "DISABLED"
    assert TrtSession(Rtx(install()), b"plan", conditions(), kept).found["runtime_cache_used"] is True
    kept.write_bytes(b"of another driver")
    assert TrtSession(Rtx(install()), b"plan", conditions(), kept).found["runtime_cache_used"] is False
    assert kept.read_bytes().startswith(b"cache")
    (tmp_path / "file").touch()
    TrtSession(Rtx(install()), b"plan", conditions(), tmp_path / "file" / "gpu.runtime")  # nothing can be written; it runs all the same


def test_caches_lie_beside_the_store_by_version_and_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LPS_SEARCH_STORE", str(tmp_path / "latency.sqlite"))
    monkeypatch.setattr("latency.engine.runtime_module", lambda flavour: SimpleNamespace(__version__="11.1"))
    assert default_timing_cache("tensorrt", "NVIDIA H200/a b") == tmp_path / "tensorrt-11.1-NVIDIA-H200-a-b.timing"
    assert default_runtime_cache("tensorrt-rtx", "Orin") == tmp_path / "tensorrt-rtx-11.1-Orin.runtime"
    assert default_timing_cache("tensorrt-rtx", "x") is None and default_runtime_cache("tensorrt", "x") is None
