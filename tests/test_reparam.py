"""Folding branches and batch normalisation: the deployed network computes what the trained one does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.blocks import SepConv
from lpsnet.data.augment import normalise
from lpsnet.data.camvid import CamVid
from lpsnet.data.synthetic import Synthetic
from lpsnet.network import LPSNet
from lpsnet.recipe import TrainRecipe
from lpsnet.reparam import RepConv
from lpsnet.training import begin
from tests.real import CAMVID
from tests.weights import lively, norms, randomise, real_valued

SHAPES = [(6, 6, 1), (6, 6, 2), (5, 7, 1), (5, 7, 2), (7, 5, 1)]
NETWORKS = [
    "B1-2-1-2-2_C4-8-8-12-12_R8",
    "B1-2-1-2-2_C4-8-8-12-12_R6-2",
    "B1-1-1-1-1_C4-8-8-12-12_R8-5-2",
    "B1-2-1-2-2_C4-8-8-12-12_R8_sepconv3x3",
    "B1-2-1-2-2_C4-8-8-12-12_R6-2_sepconv3x3_none",
    "B1-1-1-1-1_C4-8-8-12-12_R8-5-2_sepconv3x3",
]


@pytest.fixture(scope="module")
def frame() -> Tensor:
    """One normalised frame, of CamVid where it is there."""
    source = CamVid(CAMVID, "val") if CAMVID is not None else Synthetic("val", (180, 240))
    image, _ = source.decode(0)
    return normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])


def gains(module: nn.Module) -> dict[str, float]:
    """The gain of each normalisation by its name, where all its channels start alike."""
    found = {}
    for name, norm in module.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert len(norm.weight.unique()) == 1
            found[name] = norm.weight[0].item()
    return found


# One block


def check_deployed(block: RepConv | SepConv, before: int, after: int, stride: int) -> None:
    """A block in eval mode and its deployed form give the same output for a random state and a random input."""
    randomise(block)
    x = real_valued(2, before, 13, 18)
    with torch.no_grad():
        expected, found = block(x), block.deploy()(x)
    assert expected.shape == (2, after, -(-13 // stride), -(-18 // stride))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("before", "after", "stride"), SHAPES)
@pytest.mark.parametrize("branches", [False, True])
def test_a_deployed_repconv_equals_the_trained_one(before: int, after: int, stride: int, branches: bool) -> None:
    torch.manual_seed(0)
    block = RepConv(before, after, stride, branches=branches).eval()
    check_deployed(block, before, after, stride)


@pytest.mark.parametrize(("before", "after", "stride"), SHAPES)
def test_repconv_is_the_relu_of_the_sum_of_its_normalised_branches(before: int, after: int, stride: int) -> None:
    torch.manual_seed(0)
    block = RepConv(before, after, stride).eval()
    randomise(block)
    x = real_valued(2, before, 13, 18)

    def normalised(y: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        mean, var, gain, shift = (t.reshape(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
        return (y - mean) / (var + 1e-5).sqrt() * gain + shift

    total = normalised(F.conv2d(x, block.conv.weight, stride=stride, padding=1), block.norm)
    total = total + normalised(F.conv2d(x, block.point_conv.weight, stride=stride), block.point_norm)
    if block.identity_norm is not None:
        total = total + normalised(x, block.identity_norm)
    torch.testing.assert_close(block(x), total.clamp(min=0), rtol=0, atol=1e-4)


def test_a_deployed_repconv_is_one_biased_3x3_convolution_and_a_relu() -> None:
    conv, relu = RepConv(6, 6, 2).deploy()
    assert isinstance(conv, nn.Conv2d) and isinstance(relu, nn.ReLU)
    assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (2, 2), (1, 1))
    assert conv.bias is not None


@pytest.mark.parametrize(("before", "after", "stride"), SHAPES)
def test_the_identity_branch_exists_only_where_input_and_output_have_one_shape(before: int, after: int, stride: int) -> None:
    assert (RepConv(before, after, stride).identity_norm is not None) == ((before, stride) == (after, 1))
    plain = RepConv(before, after, stride, branches=False)
    assert plain.identity_norm is None and plain.point_conv is None and len(norms(plain)) == 1


@pytest.mark.parametrize(("before", "after", "stride"), SHAPES)
def test_a_deployed_sepconv_equals_the_trained_one(before: int, after: int, stride: int) -> None:
    torch.manual_seed(0)
    block = SepConv(before, after, stride).eval()
    check_deployed(block, before, after, stride)


def test_scaling_branches_sets_their_gains_and_only_beside_an_identity() -> None:
    beside, alone, plain = RepConv(6, 6), RepConv(6, 7), RepConv(6, 6, branches=False)
    for block in (beside, alone, plain):
        block.scale_branches(0.25)
    assert gains(beside) == {"norm": 0.25, "point_norm": 0.25, "identity_norm": 1.0}
    assert gains(alone) == {"norm": 1.0, "point_norm": 1.0}
    assert gains(plain) == {"norm": 1.0}


# A whole network


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("B1-2-1-2-2_C4-8-8-12-12_R6-2", 4),
        ("B1-1-1-1-1_C4-8-8-12-12_R8-5-2", 1),
        ("B1-3-3-10-10_C4-8-8-12-12_R6", 23),
        ("B1-1-1-1-1_C4-8-8-12-16_R8", 0),
    ],
)
def test_a_path_of_n_identity_blocks_starts_their_convolutions_at_one_over_the_root_of_n(text: str, count: int) -> None:
    network = LPSNet(text, 4)
    blocks = [module for path in network.paths for module in path.modules() if isinstance(module, RepConv)]
    beside = [gains(block) for block in blocks if block.identity_norm is not None]
    alone = [gains(block) for block in blocks if block.identity_norm is None]
    start = pytest.approx(count**-0.5 if count else 1.0)
    assert beside == [{"norm": start, "point_norm": start, "identity_norm": 1.0}] * count * len(network.paths)
    assert alone == [{"norm": 1.0, "point_norm": 1.0}] * (len(blocks) - len(beside))


@pytest.mark.parametrize("text", NETWORKS)
def test_without_identity_branches_every_gain_starts_at_one(text: str) -> None:
    networks = [LPSNet(text, 4, branches=False)] + ([LPSNet(text, 4)] if "sepconv" in text else [])
    for network in networks:
        assert set(gains(network).values()) == {1.0}


@pytest.mark.parametrize("text", NETWORKS)
@pytest.mark.parametrize("branches", [False, True])
def test_a_deployed_network_equals_the_trained_one_on_a_frame(text: str, branches: bool, frame: Tensor) -> None:
    network = lively(text, frame, branches=branches)
    deployed = network.deploy()
    assert deployed.deployed and not deployed.branches
    assert not norms(deployed)
    with torch.inference_mode():
        expected, found = network.scores(frame), deployed.scores(frame)
    assert expected.std(dim=(-2, -1)).min() > 0.01  # maps, not constants
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_deploying_leaves_the_network_as_it_was(training: bool, frame: Tensor) -> None:
    network = lively(NETWORKS[1], frame).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    deployed = network.deploy()
    with torch.no_grad():
        for parameter in deployed.parameters():
            parameter.add_(1)  # would show in weights that both share
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {module.training for module in network.modules()} == {training}


@pytest.mark.parametrize("training", [False, True])
def test_a_deployed_network_has_the_training_flag_of_its_source_in_every_part(training: bool, frame: Tensor) -> None:
    deployed = lively(NETWORKS[1], frame).train(training).deploy()
    assert {name for name, module in deployed.named_modules() if module.training != training} == set()


@pytest.mark.parametrize("text", [NETWORKS[1], NETWORKS[4]])
def test_deploying_a_deployed_network_gives_an_equal_one_of_its_own(text: str, frame: Tensor) -> None:
    once = lively(text, frame).deploy()
    twice = once.deploy()
    assert twice is not once and twice.deployed
    with torch.inference_mode():
        assert torch.equal(twice.scores(frame), once.scores(frame))
    with torch.no_grad():
        twice.head.bias.add_(1)  # type: ignore[union-attr]
    assert not torch.equal(twice.head.bias, once.head.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [NETWORKS[2], NETWORKS[4]])
def test_training_reaches_every_branch(text: str) -> None:
    torch.manual_seed(0)
    network = LPSNet(text, 4).train()
    network.scores(real_valued(2, 3, 96, 96)).square().mean().backward()
    untouched = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert untouched == []
    assert any("identity_norm" in name for name, _ in network.named_parameters()) == ("sepconv" not in text)


def test_an_identity_start_is_one_until_the_first_updates_and_of_a_recipe_s_own_asking() -> None:
    def blocks(network: nn.Module) -> list[RepConv]:
        return [m for m in network.modules() if isinstance(m, RepConv) and m.identity_norm is not None]

    deep = "B1-1-1-3-3_C4-8-8-8-8_R4"
    assert all(float(block.norm.weight.detach()[0]) > 0 for block in blocks(begin(deep, 3, TrainRecipe(iterations=2))))
    network = begin(deep, 3, TrainRecipe(iterations=2, identity_start=True))
    assert len(blocks(network)) == 5  # two in each deep stage, and the first of the last, whose shapes agree
    x = torch.rand(2, 8, 5, 6)
    for block in blocks(network):
        assert block.identity_norm is not None and block.point_norm is not None
        assert torch.equal(block(x), F.relu(block.identity_norm(x)))
    network.scores(torch.rand(2, 3, 64, 96)).square().mean().backward()
    for block in blocks(network):
        assert block.norm.weight.grad is not None and bool(block.norm.weight.grad.abs().sum() > 0)
