"""Whole networks of every block and every interaction: counts, forms, checkpoints, graphs and the command line."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latency.export import check_agreement, seeded_input, to_onnx
from latency.measure import at_boundary
from lpsnet.architecture import BLOCK_NAMES, INTERACTION_NAMES, Architecture
from lpsnet.checkpoint import load, save
from lpsnet.classifier import Classifier
from lpsnet.complexity import Complexity, complexity, count_macs, count_parameters, network_cost
from lpsnet.network import LPSNet
from search.cli import run
from tests.tiny import write_camvid
from tests.weights import assert_close, lively, norms, real_valued

SIZE = (67, 101)
TWO, THREE = "B1-1-1-1-1_C5-6-7-9-9_R7-3", "B1-1-1-1-1_C4-6-5-8-7_R8-5-2"
VARIANTS = [
    *(f"{TWO}_{block}" for block in BLOCK_NAMES),
    *(f"{THREE}_{interaction}" for interaction in INTERACTION_NAMES),
    f"{TWO}_inverted-residual_attention-b",
]

architectures = st.builds(
    Architecture,
    st.tuples(*[st.integers(1, 2)] * 5),
    st.tuples(*[st.integers(1, 9)] * 5),
    st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    st.sampled_from(BLOCK_NAMES),
    st.sampled_from(INTERACTION_NAMES),
)


@cache
def variant(text: str) -> LPSNet:
    return lively(text, real_valued(2, 3, *SIZE))


# What they cost


@given(architectures, st.integers(1, 9), st.tuples(st.integers(8, 70), st.integers(8, 70)))
@settings(max_examples=10, deadline=None)
def test_the_cost_of_a_network_is_what_is_counted_on_the_built_one(architecture: Architecture, classes: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        trained, deployed = LPSNet(architecture, classes, branches=False).eval(), LPSNet(architecture, classes, deployed=True).eval()
    cost = network_cost(architecture, classes, size)
    assert (cost.trained, cost.deployed) == (count_parameters(trained), count_parameters(deployed))
    assert cost.macs == count_macs(deployed, size)
    assert complexity(str(architecture), classes, size) == Complexity(cost.deployed, cost.macs)


def test_what_cannot_be_built_or_run_has_no_cost_and_the_same_reason() -> None:
    architecture = Architecture.parse("B1-1-1-1-1_C4-8-8-8-8_R8-1")
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        network_cost(architecture, 0, (64, 64))
    with pytest.raises(ValueError, match=r"input 7x64 is too small .*the least size that works is 8x8"):
        complexity(architecture, 3, (7, 64))


# Their forms


@pytest.mark.parametrize("text", VARIANTS)
@torch.inference_mode()
def test_the_deployed_network_computes_what_the_trained_one_does_and_comes_back_from_a_file(text: str, tmp_path: Path) -> None:
    network, images = variant(text), real_valued(2, 3, *SIZE)
    deployed, expected = network.deploy(), network.scores(images)
    assert expected.std(dim=(-2, -1)).min() > 0.01  # maps, not constants
    assert not norms(deployed)
    assert_close(deployed.scores(images), expected)
    assert network(images).shape == (2, 4, *SIZE)
    for form in (network, deployed):
        save(tmp_path / "network.safetensors", form, class_names=tuple("abcd"), input_size=SIZE)
        loaded = load(tmp_path / "network.safetensors", text)
        assert torch.equal(loaded.scores(images), form.scores(images))


@pytest.mark.parametrize("block", BLOCK_NAMES)
def test_a_path_of_any_block_is_a_classifier(block: str) -> None:
    assert Classifier(Architecture.parse(f"{TWO}_{block}"), 6)(real_valued(2, 3, 33, 47)).shape == (2, 6)


# Their graphs

PLAIN_OPERATORS = {"Conv", "Relu", "Resize", "Add", "Concat"}
FURTHER_OPERATORS = {
    "inverted-residual": {"Clip"},  # ReLU6
    "ghost": {"Slice"},
    "shufflenet": {"Slice", "Split", "Reshape", "Transpose"},
    "attention-a": {"Sigmoid", "Mul", "Sub"},
    "attention-b": {"Sigmoid", "Mul", "Div"},
}
"""What a graph may hold beside `PLAIN_OPERATORS`: TensorRT has a layer of its own for each."""


@pytest.mark.parametrize("text", VARIANTS)
def test_the_graph_computes_what_torch_does_and_holds_common_operators_only(text: str) -> None:
    network, image = variant(text), seeded_input((1, 3, *SIZE))
    model = to_onnx(at_boundary(network.deploy(), "scores"), (1, 3, *SIZE))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network.scores(torch.from_numpy(image)).numpy()
    check_agreement(np.asarray(session.run(None, {"image": image})[0]), expected)
    allowed = PLAIN_OPERATORS.union(*(FURTHER_OPERATORS.get(part, set()) for part in text.split("_")))
    assert {node.op_type for node in onnx.load_from_string(model).graph.node} <= allowed


def test_a_shuffle_is_exported_for_any_number_of_images() -> None:
    network = variant("B1-1-1-1-1_C4-6-7-9-9_R4_shufflenet")
    model = to_onnx(at_boundary(network.deploy(), "scores"), (1, 3, *SIZE), dynamic_batch=True)
    session, images = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]), seeded_input((3, 3, *SIZE))
    with torch.inference_mode():
        expected = network.scores(torch.from_numpy(images)).numpy()
    check_agreement(np.asarray(session.run(None, {"image": images})[0]), expected)


# The command line


def test_a_variant_is_measured_by_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    text = "B1-1-1-1-1_C8-8-8-8-8_R8-2_residual_attention-a"
    arguments = ["measure", text, "--input", "64x96", "--boundary", "scores", "--seconds", "0", "--json"]
    assert run(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)
    cost = complexity(text, 19, (64, 96))
    assert row["subject"] == f"{text} classes=19" and row["latency_ms"] > 0
    assert (row["parameters"], row["macs_giga"]) == (cost.parameters, cost.macs / 1e9)


def test_a_variant_is_trained_and_scored(tmp_path: Path) -> None:
    text = f"{TWO}_inverted-residual_attention-b"
    sizes = [f"--set={part}_{side}=32" for part in ("input", "crop") for side in ("height", "width")]
    data = f"camvid:{write_camvid(tmp_path / 'data')}"
    quick = ["--set=iterations=2", "--set=batch_size=2", *sizes, "--threads", "1", "--device", "cpu"]
    assert run(["train", text, "--data", data, *quick, "--out", str(tmp_path / "trained")]) == 0
    assert run(["evaluate", str(tmp_path / "trained" / f"{text}.safetensors"), "--data", data]) == 0


@pytest.mark.parametrize("ending", ["residuals", "attention", "residual_attention-c"])
def test_an_unknown_block_or_interaction_is_one_line_with_all_names(ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", f"{TWO}_{ending}"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert all(name in line for name in (*BLOCK_NAMES, *INTERACTION_NAMES))
