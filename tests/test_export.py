"""The exported graph of a network, the exporter's manners, and what counts as agreement with torch."""

from __future__ import annotations

import contextlib
import logging
import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from latency.export import LABEL_TOLERANCE, OPSET, TOLERANCE, check_agreement, seeded_input, to_onnx
from latency.measure import at_boundary, deployed
from latency.protocols import MeasurementFailed
from lpsnet.network import LPSNet
from tests.backends import normalised


@pytest.fixture(scope="module")
def graph_of_s() -> tuple[LPSNet, onnx.ModelProto]:
    """LPS-Net-S given in training form with its branches, and the graph that is timed for it."""
    network = normalised(LPSNet("LPS-Net-S", 19, branches=True).train())
    return network, onnx.load_from_string(to_onnx(at_boundary(deployed(network), "scores"), (1, 3, 64, 128)))


class TestGraph:
    def test_the_timed_graph_has_no_normalisation(self, graph_of_s: tuple[LPSNet, onnx.ModelProto]) -> None:
        network, model = graph_of_s
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) > 54
        operators = {node.op_type for node in model.graph.node}
        assert operators == {"Conv", "Relu", "Resize", "Add", "Concat"}

    def test_the_timed_graph_has_one_convolution_a_block_and_the_head(self, graph_of_s: tuple[LPSNet, onnx.ModelProto]) -> None:
        _, model = graph_of_s
        counted = [node.op_type for node in model.graph.node]
        assert counted.count("Conv") == 55
        assert counted.count("Relu") == 54
        assert counted.count("Add") == 4  # two paths, each taking in the other after stages 3 and 4

    def test_the_timed_graph_holds_the_weights_of_the_deployed_network(self, graph_of_s: tuple[LPSNet, onnx.ModelProto]) -> None:
        network, model = graph_of_s
        fed = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
        held = sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.name in fed)
        assert held == sum(parameter.numel() for parameter in network.deploy().parameters())
        assert held < sum(parameter.numel() for parameter in network.parameters())

    def test_the_timed_graph_computes_what_the_training_form_does(self, graph_of_s: tuple[LPSNet, onnx.ModelProto]) -> None:
        network, model = graph_of_s
        image = seeded_input((1, 3, 64, 128))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        with torch.inference_mode():
            expected = network.eval().scores(torch.from_numpy(image)).numpy()
        network.train()
        check_agreement(np.asarray(session.run(None, {"image": image})[0]), expected)

    def test_the_opset_is_the_pinned_one(self, graph_of_s: tuple[LPSNet, onnx.ModelProto]) -> None:
        assert {entry.domain: entry.version for entry in graph_of_s[1].opset_import}[""] == OPSET


class Forked(nn.Module):
    """What it does depends on its data, which no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class TestExport:
    def test_a_module_that_depends_on_its_data_cannot_be_exported(self) -> None:
        with pytest.raises(MeasurementFailed, match=r"^ONNX export failed: ") as failure:
            to_onnx(Forked(), (1, 3, 8, 8))
        assert str(failure.value).isprintable(), "the reason becomes one line of a table"

    @pytest.mark.parametrize("refused", [nn.Conv2d(5, 4, 1), Forked()], ids=["channels", "forked"])
    @pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO])
    def test_a_refusal_is_raised_and_not_printed(
        self, refused: nn.Module, level: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        logging.disable(level)
        try:
            with pytest.raises(MeasurementFailed):
                to_onnx(refused, (1, 3, 8, 8))
            assert logging.root.manager.disable == level
        finally:
            logging.disable(logging.NOTSET)
        assert capfd.readouterr() == ("", "")
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []

    def test_logging_is_as_before_after_an_export(self) -> None:
        to_onnx(nn.Conv2d(3, 4, 1), (1, 3, 8, 8))
        assert logging.root.manager.disable == logging.NOTSET

    def test_reading_the_operators_once_does_not_change_the_graph(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = at_boundary(deployed(normalised(LPSNet("N0", 3))), "scores")
        cached = to_onnx(module, (1, 3, 64, 64))
        assert to_onnx(module, (1, 3, 64, 64)) == cached
        monkeypatch.setattr("latency.export._operators_read_once", contextlib.nullcontext)
        assert to_onnx(module, (1, 3, 64, 64)) == cached

    def test_the_exporter_is_put_back_as_it_was(self) -> None:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        before = ONNXRegistry.__dict__["from_torchlib"]
        to_onnx(nn.Conv2d(3, 4, 1), (1, 3, 8, 8))
        assert ONNXRegistry.__dict__["from_torchlib"] is before
        with pytest.raises(MeasurementFailed):
            to_onnx(nn.Conv2d(5, 4, 1), (1, 3, 8, 8))
        assert ONNXRegistry.__dict__["from_torchlib"] is before

    def test_the_operators_are_read_once_while_exporting(self) -> None:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        from latency.export import _operators_read_once

        tables = []
        for _ in range(2):
            with _operators_read_once():
                tables.append(ONNXRegistry.from_torchlib(opset_version=OPSET))
        assert tables[0] is tables[1]

    def test_the_input_is_the_same_each_time_and_not_zero(self) -> None:
        image = seeded_input((1, 3, 16, 16))
        np.testing.assert_array_equal(image, seeded_input((1, 3, 16, 16)))
        assert image.dtype == np.float32
        assert image.std() > 0.5


class TestAgreement:
    EXPECTED = np.linspace(-2, 2, 24, dtype=np.float32).reshape(1, 2, 3, 4)

    def test_small_differences_pass(self) -> None:
        check_agreement(self.EXPECTED, self.EXPECTED)
        check_agreement(self.EXPECTED + 0.9 * 2 * TOLERANCE["fp32"], self.EXPECTED)

    def test_the_difference_is_told_relative_to_the_largest_output(self) -> None:
        with pytest.raises(MeasurementFailed, match=r"differs from torch by 5\.0e-03 of its largest value, more than 1e-03"):
            check_agreement(self.EXPECTED - 5 * 2 * TOLERANCE["fp32"], self.EXPECTED)

    def test_one_wrong_value_is_enough(self) -> None:
        found = self.EXPECTED.copy()
        found[0, 1, 2, 3] += 0.01
        with pytest.raises(MeasurementFailed, match="differs"):
            check_agreement(found, self.EXPECTED)

    def test_another_shape_is_refused_even_where_it_would_broadcast(self) -> None:
        with pytest.raises(MeasurementFailed, match=r"the output has shape \(1, 1, 3, 4\), torch gives \(1, 2, 3, 4\)"):
            check_agreement(self.EXPECTED[:, :1], self.EXPECTED)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_an_output_that_is_not_finite_is_refused(self, wrong: float) -> None:
        found = self.EXPECTED.copy()
        found[0, 0, 0, 0] = wrong
        with pytest.raises(MeasurementFailed, match="NaN or infinity"):
            check_agreement(found, self.EXPECTED)

    def test_a_finite_output_does_not_agree_with_nan(self) -> None:
        with pytest.raises(MeasurementFailed):
            check_agreement(self.EXPECTED, np.full_like(self.EXPECTED, np.nan))

    def test_labels_may_differ_in_ties_only(self) -> None:
        expected = np.zeros((1, 50, 100), np.int64)
        found = expected.copy()
        found[0, 0, : int(LABEL_TOLERANCE["fp32"] * expected.size)] = 1
        check_agreement(found, expected)
        found[0, 1, 0] = 1
        with pytest.raises(MeasurementFailed, match=r"0\.12% of the labels differ from torch, more than 0\.10%"):
            check_agreement(found, expected)
