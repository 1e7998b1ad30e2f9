"""TensorRT engines built for real where TensorRT-RTX is installed (no GPU is needed), and every refusal on the way."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from latency.engine import FLAVOURS, EngineOptions, _timing_cache, build_engine, runtime_module
from latency.export import to_onnx
from latency.measure import at_boundary
from latency.protocols import BackendError, MeasurementFailed
from lpsnet.architecture import Architecture
from lpsnet.network import LPSNet

TABLE_4 = Path(__file__).parent / "data" / "table4.csv"
FOR_86 = EngineOptions(compute_capabilities=("8.6",))


@pytest.fixture(scope="module")
def graph() -> bytes:
    return graph_of("N0")


def graph_of(architecture: str, precision: str = "fp32") -> bytes:
    import torch

    module = at_boundary(LPSNet(architecture, 19, deployed=True).eval(), "scores")
    dtype = torch.float16 if precision == "fp16" else torch.float32
    return to_onnx(module.to(dtype), (1, 3, 96, 160), dtype=dtype)


@pytest.fixture
def rtx() -> str:
    try:
        runtime_module("tensorrt-rtx")
    except BackendError as missing:
        pytest.skip(str(missing))
    return "tensorrt-rtx"


def architectures() -> list[str]:
    rows = csv.DictReader(TABLE_4.read_text().splitlines())
    return list(dict.fromkeys(str(Architecture.parse(row["network"])) for row in rows))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("architecture", architectures())
def test_every_network_of_table_4_is_built_for_a_gpu_that_is_not_here(architecture: str, precision: str, rtx: str) -> None:
    options = EngineOptions(precision=precision, compute_capabilities=("8.6",))
    built = build_engine(graph_of(architecture, precision), rtx, options)
    assert len(built.data) == built.description["bytes"] > 10_000
    (image,), (output,) = built.description["inputs"], built.description["outputs"]
    assert image["shape"] == [1, 3, 96, 160] and image["dtype"] == ("half" if precision == "fp16" else "float")
    assert output["shape"][:2] == [1, 19]
    assert built.description["precision"] == precision and built.description["compute_capabilities"] == ["8.6"]


@pytest.mark.parametrize("ending", ["shufflenet_attention-b", "ghost_attention-a", "inverted-residual_direct-b"])
def test_blocks_and_interactions_with_operators_of_their_own_are_built(ending: str, rtx: str) -> None:
    built = build_engine(graph_of(f"B1-1-1-1-1_C5-6-7-9-9_R7-3_{ending}"), rtx, FOR_86)
    assert built.description["outputs"][0]["shape"] == [1, 19, 6, 9]


def test_one_engine_may_be_for_several_gpus(graph: bytes, rtx: str) -> None:
    several = build_engine(graph, rtx, EngineOptions(compute_capabilities=("8.6", "8.9", "12.0")))
    assert len(several.data) > len(build_engine(graph, rtx, FOR_86).data)


def test_an_unknown_compute_capability_is_refused_with_those_there_are(graph: bytes, rtx: str) -> None:
    with pytest.raises(BackendError, match=r"compute capability '9.9'; there are: 7.5, 8.0, 8.6"):
        build_engine(graph, rtx, EngineOptions(compute_capabilities=("9.9",)))


def test_without_a_gpu_the_one_at_hand_is_refused_with_the_builders_reason(graph: bytes, rtx: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((BackendError, MeasurementFailed), match=r"(?i)cuda|driver"):
        build_engine(graph, rtx, EngineOptions())


@pytest.mark.parametrize("damaged", [b"", b"no graph", "half"], ids=["empty", "text", "half"])
def test_a_damaged_graph_is_refused_with_the_parsers_reason(damaged: bytes | str, graph: bytes, rtx: str) -> None:
    data = graph[: len(graph) // 2] if isinstance(damaged, str) else damaged
    with pytest.raises(MeasurementFailed, match=r"cannot read the graph: .*[a-zA-Z]{4}"):
        build_engine(data, rtx, FOR_86)


def test_tensorrt_rtx_refuses_a_timing_cache_which_would_do_nothing(graph: bytes, rtx: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="keeps no timing cache"):
        build_engine(graph, rtx, EngineOptions(compute_capabilities=("8.6",), timing_cache=tmp_path / "cache"))


class Caching:
    """What `_timing_cache` needs of a builder's configuration; a build adds `learned`. Foreign caches are refused."""

    def __init__(self, learned: bytes) -> None:
        self.learned = learned
        self.held = b""

    def create_timing_cache(self, data: bytes) -> bytes | None:
        return None if b"foreign" in data else data

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.held = cache
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.held + self.learned)


SILENT: Any = SimpleNamespace(text=lambda: "no reason")


def test_a_timing_cache_grows_from_build_to_build_and_is_told_apart_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache"
    with _timing_cache(Caching(b"one"), path, SILENT) as first:
        pass
    with _timing_cache(Caching(b"two"), path, SILENT) as second:
        pass
    with _timing_cache(Caching(b""), path, SILENT) as third:
        pass
    assert path.read_bytes() == b"onetwo"
    assert first is not None and second is not None and third is not None
    assert first["sha256_before"] is None and second["sha256_before"] == first["sha256_after"]
    assert second["changed"] and not third["changed"]


def test_a_build_that_fails_leaves_the_timing_cache_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_bytes(b"one")
    with pytest.raises(RuntimeError), _timing_cache(Caching(b"two"), path, SILENT):
        raise RuntimeError
    assert path.read_bytes() == b"one"


def test_a_foreign_timing_cache_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_bytes(b"foreign")
    with pytest.raises(BackendError, match="another device, driver or version"), _timing_cache(Caching(b""), path, SILENT):
        raise AssertionError("the build began")
    assert path.read_bytes() == b"foreign"


def test_a_timing_cache_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="cannot be used"), _timing_cache(Caching(b""), tmp_path / "file" / "cache", SILENT):
        raise AssertionError("the build began")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_flavour_that_is_not_installed_says_how_to_get_it(flavour: str, graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FLAVOURS[flavour]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"is not installed .*pip install"):
        build_engine(graph, flavour, FOR_86)


def test_an_unknown_flavour_is_refused_with_those_there_are() -> None:
    with pytest.raises(BackendError, match="'trtexec'; there are: tensorrt, tensorrt-rtx"):
        runtime_module("trtexec")


@pytest.mark.parametrize(
    ("values", "message"),
    [({"precision": "int8"}, "'int8'; there are: fp32, tf32, fp16"), ({"optimization_level": 0}, "1 to 5, got 0")],
)
def test_options_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineOptions(**values)  # type: ignore[arg-type]


def test_a_builder_of_one_gpu_refuses_a_named_one(graph: bytes, rtx: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutNames:
        """TensorRT-RTX less what NVIDIA TensorRT lacks."""

        def __getattr__(self, name: str) -> object:
            if name == "ComputeCapability":
                raise AttributeError(name)
            return getattr(runtime_module(rtx), name)

    stand_in = WithoutNames()
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="for the GPU at hand only"):
        build_engine(graph, "tensorrt", FOR_86)
