"""Turns of many networks, ONNX files of other tools in the place of modules, and the memory a network takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from latency.backends import usable_backend
from latency.export import graph_for, to_onnx
from latency.graph import GraphFile, fitted_image, read_graph
from latency.measure import at_boundary
from latency.measurement import Conditions, TimingPlan
from latency.memory import Growth
from latency.protocols import MeasurementFailed
from latency.rounds import Rounds, take_turn
from latency.worker import Worker
from lpsnet.zoo import build, complexity_of
from tests.backends import Small, Watched
from tests.graphs import FOREIGN_PARAMETERS, foreign_macs, write_foreign


def conditions(backend: str = "ort", size: tuple[int, int] = (32, 48), seconds: float = 0.0) -> Conditions:
    plan = TimingPlan(warmup_s=0, min_samples=5, min_s=seconds)
    return Conditions(backend=backend, device="cpu", shape=(1, 3, *size), boundary="labels", plan=plan)


# Graphs of other tools


@pytest.mark.parametrize(
    ("shape", "dtype", "own"),
    [
        (["n", 3, "h", "w"], TensorProto.FLOAT, (None, None)),
        ([1, 3, 32, 48], TensorProto.FLOAT16, (32, 48)),
        ([1, 3, 32, "w"], TensorProto.DOUBLE, (32, None)),
        ([1, 32, 48, 3], TensorProto.UINT8, (32, 48)),
    ],
)
def test_a_graph_is_read_and_run_as_it_is(shape: list[object], dtype: int, own: tuple[int | None, int | None], tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "other.onnx", shape, dtype=dtype)
    facts = read_graph(path, (32, 48))
    assert facts.shape == (1, 3, *own)
    assert (facts.parameters, facts.macs) == (FOREIGN_PARAMETERS, foreign_macs(32, 48))
    turn = take_turn(lambda: GraphFile(path), conditions())
    assert turn.found["output_shape"] == [1, 5, 16, 24] and len(turn.samples_ms) == 1 and turn.samples_ms[0] > 0


def test_the_multiply_adds_of_an_open_graph_are_for_the_size_asked_for(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "other.onnx")
    assert read_graph(path, (64, 50)).macs == foreign_macs(64, 50)


@pytest.mark.parametrize("name", ["LPS-Net-S", "unet-resnet18"])
def test_the_multiply_adds_of_a_graph_are_those_of_the_network(name: str, tmp_path: Path) -> None:
    network = build(name, 4, deployed=True).eval()
    (tmp_path / "n.onnx").write_bytes(to_onnx(at_boundary(network, "scores"), (1, 3, 64, 96)))
    facts, counted = read_graph(tmp_path / "n.onnx", (1, 1)), complexity_of(name, 4, (64, 96))
    assert facts.macs == counted.macs and facts.parameters == pytest.approx(counted.parameters, rel=1e-3)


def test_what_cannot_be_counted_is_unknown(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "other.onnx", operator="Mystery")
    assert read_graph(path, (32, 48)).macs is None
    with pytest.raises(MeasurementFailed, match="ONNX Runtime cannot load the graph"):
        take_turn(lambda: GraphFile(path), conditions())


def test_what_takes_no_single_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementFailed, match=r"takes 2 inputs \(pixels, more\), not a single image"):
        read_graph(write_foreign(tmp_path / "a.onnx", inputs=2), (32, 48))
    with pytest.raises(MeasurementFailed, match=r"takes float \[1, 4, 32, 48\], not one image"):
        read_graph(write_foreign(tmp_path / "b.onnx", [1, 4, 32, 48]), (32, 48))
    with pytest.raises(MeasurementFailed, match=r"takes int64 \[1, 3, 32, 48\]"):
        read_graph(write_foreign(tmp_path / "c.onnx", [1, 3, 32, 48], dtype=TensorProto.INT64), (32, 48))
    for content in (b"no graph at all", b""):
        (tmp_path / "d.onnx").write_bytes(content)
        with pytest.raises(MeasurementFailed, match="is no ONNX file"):
            read_graph(tmp_path / "d.onnx", (32, 48))
    with pytest.raises(MeasurementFailed, match=r"takes tensor\(int64\), not an image"):
        fitted_image(np.zeros((1, 3, 2, 2), np.float32), [1, 3, 2, 2], "tensor(int64)")


def test_weights_beside_a_graph_are_found(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "other.onnx")
    model = onnx.load(path)
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert read_graph(tmp_path / "apart.onnx", (32, 48)) == read_graph(path, (32, 48))
    turns = [take_turn(lambda file=file: GraphFile(tmp_path / file), conditions()) for file in ("other.onnx", "apart.onnx")]  # type: ignore[misc]
    assert turns[0].found["output_shape"] == turns[1].found["output_shape"]


def test_the_first_runs_of_a_slow_network_are_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 1.0, 1.0, 1.0])

    def run_ms() -> float:
        time.sleep(0.06)
        return next(times)

    watched = Watched(usable_backend("torch", "cpu"), changes={"run_ms": run_ms})
    monkeypatch.setattr("latency.rounds.usable_backend", lambda name, device: watched)
    network = build("N0", 4, deployed=True).eval()
    assert take_turn(lambda: at_boundary(network, "labels"), conditions("torch")).samples_ms == (1.0,)


def test_torch_runs_no_graph_and_a_graph_is_its_own(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "other.onnx")
    assert graph_for(GraphFile(path), conditions()) == path.read_bytes()
    with pytest.raises(MeasurementFailed, match="torch does not run"):
        take_turn(lambda: GraphFile(path), conditions("torch"))


# Turns


@pytest.mark.parametrize("backend", ["ort", "torch"])
def test_a_turn_checks_the_output_and_samples_at_least_once(backend: str) -> None:
    module = at_boundary(Small().eval(), "labels")
    with torch.inference_mode():
        from latency.export import seeded_input

        expected = module(torch.from_numpy(seeded_input((1, 3, 32, 48)))).numpy()
    turn = take_turn(lambda: module, conditions(backend), expected=expected)
    assert len(turn.samples_ms) == 1 and turn.load_s > 0 and turn.memory_bytes is None
    assert turn.found["output_shape"] == [1, 32, 48] and turn.clock == "perf_counter"
    longer = take_turn(lambda: module, conditions(backend, seconds=0.05), expected=expected)
    assert len(longer.samples_ms) > 5
    with pytest.raises(MeasurementFailed, match="of the labels differ"):
        take_turn(lambda: module, conditions(backend), expected=(expected + 1) % 4)


def test_an_output_that_is_not_finite_is_refused() -> None:
    class Broken(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image / 0

    with pytest.raises(MeasurementFailed, match="NaN or infinity"):
        take_turn(lambda: Broken().eval(), conditions("torch"))


def test_the_fastest_turn_counts_where_a_second_one_comes_near_it() -> None:
    found = Rounds(turns=((9.0, 9.0, 1.0), (2.0, 2.2, 2.1, 2.3), (3.0,)))
    assert found.latency_ms == pytest.approx(2.15) and (found.slowest_ms, found.samples) == (9.0, 8)
    assert not found.stable and not Rounds(turns=((2.0,),)).stable
    assert Rounds(turns=((2.19,), (7.0,), (2.0,))).stable and not Rounds(turns=((2.21,), (7.0,), (2.0,))).stable


def growth_of_an_array() -> tuple[int | None, int | None]:
    """While an array of 32 MB is held, and after."""
    growth = Growth("cpu")
    held = np.ones(4_000_000)
    found = growth.bytes()
    del held
    return found, growth.bytes()


def test_memory_grows_by_what_is_taken_and_its_peak_stays() -> None:
    worker = Worker(60.0)  # a process that has freed much takes it again unseen
    try:
        found, after = worker.call(growth_of_an_array)
    finally:
        worker.close()
    if found is None or after is None:
        pytest.skip("this system does not tell")
    assert found >= 30e6 and after >= 30e6
