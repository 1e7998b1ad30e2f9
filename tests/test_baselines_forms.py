"""Every comparison network in its forms: folded, and exported as a graph, it computes what it was trained to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from latency.export import check_agreement, seeded_input, to_onnx
from latency.measure import at_boundary
from lpsnet.baselines import Baseline, afformer, efficientnet, mobilenet, shufflenet, vgg
from tests.backends import normalised
from tests.test_baselines import ODD, ROWS


@contextmanager
def narrow() -> Iterator[None]:
    """The fully connected layers of VGG16 are narrow, and AFFormer has few layers: each takes a second to export."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(vgg, "FC_CHANNELS", 64)
        patch.setattr(vgg, "FRONTEND_CHANNELS", 64)
        patch.setattr(afformer, "VARIANTS", {variant: ((0, 1, 1, 1), widths) for variant, (_, widths) in afformer.VARIANTS.items()})
        torch.manual_seed(0)
        yield


@contextmanager
def short() -> Iterator[None]:
    """Besides, of units that repeat there are two: one more of the same would be exported alike."""
    with narrow(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(shufflenet, "DEPTHS", (2, 2, 2))
        for module, name in ((mobilenet, "STAGES_V2"), (efficientnet, "STAGES")):
            patch.setattr(module, name, tuple((*row[:-2], min(row[-2], 2), row[-1]) for row in getattr(module, name)))
        yield


class Made(NamedTuple):
    """A network with normalisations that are no identity, and the scores it gave in training before it had them."""

    network: Baseline
    first_scores: Tensor


@pytest.fixture(scope="module", params=ROWS)
def made(request: pytest.FixtureRequest) -> Made:
    """Each network in turn."""
    with narrow():
        network = ROWS[request.param](5)
        with torch.no_grad():
            first_scores = network.scores(some_images(2))
        return Made(normalised(network), first_scores)  # type: ignore[arg-type]


def some_images(count: int = 1) -> Tensor:
    return torch.from_numpy(seeded_input((count, 3, *ODD)))


@torch.inference_mode()
def test_the_deployed_form_has_no_normalisation_and_computes_the_same(made: Made) -> None:
    lively = made.network
    before = {name: value.clone() for name, value in lively.state_dict().items()}
    deployed = lively.eval().deploy()
    assert deployed.deployed and not lively.deployed
    assert not [layer for layer in deployed.modules() if "BatchNorm" in type(layer).__name__]
    expected = lively.scores(some_images())
    assert expected.std(dim=(-2, -1)).min() > 1e-3  # the comparison is of maps, not of biases
    torch.testing.assert_close(deployed.scores(some_images()), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(deployed(some_images()), lively(some_images()), rtol=0, atol=1e-4)
    torch.testing.assert_close(deployed.deploy().scores(some_images()), expected, rtol=0, atol=1e-4)
    assert before.keys() == lively.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in lively.state_dict().items())


@pytest.mark.parametrize("name", ROWS)
def test_the_exported_graph_agrees_with_torch(name: str) -> None:
    with short():
        network = normalised(ROWS[name](5)).eval()  # type: ignore[arg-type]
    model = to_onnx(at_boundary(network.deploy(), "scores"), (1, 3, *ODD))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network.scores(some_images()).numpy()
    check_agreement(np.asarray(session.run(None, {"image": some_images().numpy()})[0]), expected)
    operators = Counter(node.op_type for node in onnx.load_from_string(model).graph.node)
    assert not operators["BatchNormalization"] and not operators["GatherND"]


def test_random_weights_give_scores_of_a_size_to_learn_from(made: Made) -> None:
    assert 0.02 < float(made.first_scores.std()) < 3
