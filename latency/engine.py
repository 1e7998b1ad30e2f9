"""TensorRT engines from ONNX graphs: NVIDIA TensorRT 10 and 11 and TensorRT-RTX through one builder, in Python.

Covers building. TensorRT-RTX builds for a named compute capability on a machine without a GPU; TensorRT builds for the
GPU it runs on. Does not cover running an engine (`backends/trt.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from latency.files import replace_file
from latency.protocols import BackendError, MeasurementFailed
from latency.state import compute_capability
from latency.store import default_store_path

FLAVOURS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
)
"""Import names by flavour; the first that is installed is used."""

_WAYS = {
    "tensorrt": "pip install 'lps-search[tensorrt]' brings it",
    "tensorrt-rtx": "pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings brings it",
}


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine is built.

    Args:
        precision: "fp32" (TF32 switched off), "tf32", or "fp16" (of a graph exported in half precision).
        compute_capabilities: such as ("8.6",), TensorRT-RTX only; empty for the GPU at hand.
        optimization_level: 1 to 5; 0 is refused, it ignores the timing cache and takes the first kernel that works.
        max_aux_streams: streams besides the main one; None leaves it to the builder.
        workspace_bytes: most scratch memory of a kernel; None for all of the device.
        timing_cache: file shared by the builds of a machine, TensorRT only; made when absent.
    """

    precision: str = "fp32"
    compute_capabilities: tuple[str, ...] = ()
    optimization_level: int = 3
    max_aux_streams: int | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "tf32", "fp16"):
            raise ValueError(f"unknown precision {self.precision!r}; there are: fp32, tf32, fp16")
        if not 1 <= self.optimization_level <= 5:
            raise ValueError(f"optimization_level must be 1 to 5, got {self.optimization_level}")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A serialised engine and what is known of it: flavour, version, options, build seconds, timing cache."""

    data: bytes = field(repr=False)
    description: dict[str, Any]


def runtime_module(flavour: str) -> Any:
    """The Python module of a flavour.

    Raises:
        BackendError: an unknown flavour, or one that is not installed; the message says how to get it.
    """
    if flavour not in FLAVOURS:
        raise BackendError(f"unknown TensorRT {flavour!r}; there are: {', '.join(FLAVOURS)}")
    reasons = []
    for name in FLAVOURS[flavour]:
        try:
            return importlib.import_module(name)
        except Exception as error:  # a binding without its library fails with anything from OSError to RuntimeError
            reasons.append(f"{name}: {' '.join(str(error).split())}")
    raise BackendError(f"{flavour} is not installed ({'; '.join(reasons)}); {_WAYS[flavour]}")


def default_timing_cache(flavour: str, device: str) -> Path | None:
    """The timing cache that a machine's builds for a device share; None for TensorRT-RTX, which has no such thing."""
    return None if flavour == "tensorrt-rtx" else _beside_store(flavour, device, "timing")


def default_runtime_cache(flavour: str, device: str) -> Path | None:
    """The runtime cache that TensorRT-RTX's sessions on a device share; None for TensorRT, which has no such thing."""
    return _beside_store(flavour, device, "runtime") if flavour == "tensorrt-rtx" else None


def _beside_store(flavour: str, device: str, kind: str) -> Path:
    name = "-".join((flavour, str(runtime_module(flavour).__version__), *re.findall(r"[\w.]+", device)))
    return default_store_path().parent / f"{name}.{kind}"


def check_options(flavour: str, options: EngineOptions) -> None:
    """Whether an engine can be asked for at all, before anything is exported. Raises `BackendError` as `build_engine` does."""
    _capabilities(runtime_module(flavour), flavour, options)
    if options.timing_cache is not None and flavour == "tensorrt-rtx":
        raise BackendError("tensorrt-rtx keeps no timing cache: it picks kernels on the device at first use; leave the timing cache out")


def build_engine(graph: bytes, flavour: str, options: EngineOptions) -> Engine:
    """Build an engine of a serialised ONNX graph.

    Raises:
        BackendError: the flavour is not installed, or cannot build for the compute capability asked for.
        MeasurementFailed: the parser or the builder refused; the message carries its own.
    """
    check_options(flavour, options)
    trt = runtime_module(flavour)
    log = Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(graph):
        faults = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise MeasurementFailed(f"{flavour} cannot read the graph: {'; '.join(faults) or log.text()}")
    if not network.num_outputs:
        raise MeasurementFailed(f"{flavour} cannot read the graph: it holds no output")
    config = builder.create_builder_config()
    _configure(trt, config, flavour, options)
    start = time.perf_counter()
    with _timing_cache(config, options.timing_cache, log) as cache:
        serialised = builder.build_serialized_network(network, config)
    build_s = time.perf_counter() - start
    if serialised is None:
        raise MeasurementFailed(f"{flavour} could not build the engine: {log.text()}")
    data = bytes(serialised)
    description = {
        "flavour": flavour,
        "version": str(trt.__version__),
        "precision": options.precision,
        "compute_capabilities": list(options.compute_capabilities),
        "built_on": compute_capability(),
        "optimization_level": options.optimization_level,
        "max_aux_streams": options.max_aux_streams,
        "workspace_bytes": options.workspace_bytes,
        "inputs": [_tensor(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(index)) for index in range(network.num_outputs)],
        "network_layers": network.num_layers,
        "build_s": build_s,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "graph_sha256": hashlib.sha256(graph).hexdigest(),
        "timing_cache": cache,
    }
    return Engine(data=data, description=description)


class Log:
    """Collects what TensorRT says: its calls return None or False and give the reason only here."""

    def __init__(self, trt: Any) -> None:
        self.messages: list[str] = []
        messages, worst = self.messages, (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

        class Collector(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in worst:
                    messages.append(" ".join(message.split()))

        self.logger = Collector()

    def text(self) -> str:
        """The last few errors, oldest first."""
        return "; ".join(self.messages[-3:]) or "it gave no reason"


def _configure(trt: Any, config: Any, flavour: str, options: EngineOptions) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    (config.set_flag if options.precision == "tf32" else config.clear_flag)(trt.BuilderFlag.TF32)
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    wanted = _capabilities(trt, flavour, options)
    if wanted:
        config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        config.set_compute_capability(capability, index)


def _capabilities(trt: Any, flavour: str, options: EngineOptions) -> list[Any]:
    """What to build for; empty where the module builds for nothing but the GPU at hand."""
    if not hasattr(trt, "ComputeCapability"):
        if options.compute_capabilities:
            raise BackendError(f"{flavour} builds for the GPU at hand only; leave the compute capability out, or use tensorrt-rtx")
        return []
    known = {_capability(name): value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    if unknown := [text for text in options.compute_capabilities if text not in known]:
        raise BackendError(f"{flavour} {trt.__version__} cannot build for compute capability {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[text] for text in options.compute_capabilities] or [trt.ComputeCapability.CURRENT]


def _capability(name: str) -> str:
    """SM86 as 8.6, SM120 as 12.0."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def _tensor(tensor: Any) -> dict[str, Any]:
    dtype = str(tensor.dtype).rpartition(".")[2].lower()
    return {"name": str(tensor.name), "shape": [int(extent) for extent in tensor.shape], "dtype": dtype}


@contextmanager
def _timing_cache(config: Any, path: Path | None, log: Log) -> Iterator[dict[str, Any] | None]:
    """Give a build the kernel timings of earlier ones, and keep what it adds; one build at a time holds the file."""
    if path is None:
        yield None
        return
    report: dict[str, Any] = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(path.suffix + ".lock").open("w")
    except OSError as error:
        raise BackendError(f"timing cache {path} cannot be used: {error}; name another file") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = path.read_bytes() if path.exists() else b""
        cache = config.create_timing_cache(before)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise BackendError(f"timing cache {path} is of another device, driver or version ({log.text()}); move it away")
        report["sha256_before"] = hashlib.sha256(before).hexdigest() if before else None
        yield report
        after = bytes(config.get_timing_cache().serialize())
        report["sha256_after"] = hashlib.sha256(after).hexdigest()
        report["changed"] = after != before
        if after != before:
            replace_file(path, after)
