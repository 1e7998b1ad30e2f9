"""The blocks of Table 2: what each computes, its deployed form, and its stated cost against a built one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.blocks import BLOCKS, PLAIN, Bottleneck, Ghost, InvertedResidual, ShuffleUnit, shuffled
from lpsnet.complexity import complexity, count_macs, count_parameters, network_cost
from lpsnet.network import LPSNet
from tests.weights import assert_close, norms, randomise, real_valued

channels = st.integers(1, 13)
sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))
SHAPES = [(6, 6, 1), (7, 7, 1), (6, 6, 2), (3, 7, 2), (5, 8, 1), (1, 1, 1), (1, 1, 2), (4, 1, 1), (1, 5, 2)]


def a_block(name: str, before: int, after: int, stride: int, *, branches: bool = False) -> nn.Module:
    torch.manual_seed(0)
    block = BLOCKS[name](before, after, stride, branches=branches).eval()
    randomise(block)
    return block


# Every block


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize(("before", "after", "stride"), SHAPES)
def test_the_deployed_block_computes_what_the_trained_one_does(name: str, branches: bool, before: int, after: int, stride: int) -> None:
    block, x = a_block(name, before, after, stride, branches=branches), real_valued(2, before, 9, 14)
    state = {key: value.clone() for key, value in block.state_dict().items()}
    with torch.no_grad():
        expected, deployed = block(x), block.deploy()
        found = deployed(x)
    assert not norms(deployed)
    assert found.shape == (2, after, -(-9 // stride), -(-14 // stride))
    assert_close(found, expected)
    assert all(torch.equal(value, state[key]) for key, value in block.state_dict().items()), "the block is left as it was"


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("before", "after", "stride"), SHAPES)
def test_the_plain_form_takes_the_weights_of_the_deployed_one(name: str, before: int, after: int, stride: int) -> None:
    deployed, plain = a_block(name, before, after, stride).deploy(), PLAIN[name](before, after, stride)
    plain.load_state_dict(deployed.state_dict())  # strict: the same names, and no other
    x = real_valued(2, before, 9, 14)
    with torch.no_grad():
        assert torch.equal(plain(x), deployed(x))


@pytest.mark.parametrize("name", BLOCKS)
@given(before=channels, after=channels, stride=st.sampled_from([1, 2]), size=sizes)
@settings(max_examples=25, deadline=None)
def test_the_stated_cost_is_that_of_the_built_block(name: str, before: int, after: int, stride: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        trained, deployed = BLOCKS[name](before, after, stride, branches=False).eval(), PLAIN[name](before, after, stride)
    cost = BLOCKS[name].cost(before, after, stride, size)
    assert (cost.trained, cost.deployed) == (count_parameters(trained), count_parameters(deployed))
    assert cost.macs == macs_of(trained, before, size) == macs_of(deployed, before, size)
    assert cost.bias_adds == bias_adds_of(deployed, torch.empty(1, before, *size, device="meta"))


def macs_of(block: nn.Module, before: int, size: tuple[int, int]) -> int:
    """Counted behind a convolution of an image, which the counter feeds, without that convolution's own."""
    with torch.device("meta"):
        whole = nn.Sequential(nn.Conv2d(3, before, 1), block)
    return count_macs(whole, size) - 3 * before * size[0] * size[1]


def bias_adds_of(module: nn.Module, x: Tensor) -> int:
    """Elements that biased convolutions give for one image."""
    found: list[int] = []
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            assert conv.bias is not None
            conv.register_forward_hook(lambda module, inputs, output: found.append(output.numel()))
    module(x)
    return sum(found)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_weight_of_a_block_learns(name: str, stride: int) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name](6, 6, stride, branches=True).train()
    block(real_valued(4, 6, 12, 12)).square().mean().backward()
    assert [key for key, weight in block.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0] == []


# What each computes: its definition stated again on the weights of the deployed form


def conv(x: Tensor, block: nn.Module, name: str, stride: int = 1, *, depthwise: bool = False) -> Tensor:
    state = block.state_dict()
    weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
    return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[1] if depthwise else 1)


def residual(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    y = conv(conv(x, block, "first", stride).clamp(min=0), block, "second")
    return (y + x if y.shape == x.shape else y).clamp(min=0)


def bottleneck(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    y = conv(conv(x, block, "reduce").clamp(min=0), block, "middle", stride).clamp(min=0)
    y = conv(y, block, "expand")
    return (y + x if y.shape == x.shape else y).clamp(min=0)


def inverted_residual(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    y = conv(conv(x, block, "expand").clamp(0, 6), block, "depthwise", stride, depthwise=True).clamp(0, 6)
    y = conv(y, block, "project")
    return y + x if y.shape == x.shape else y


def ghost(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    half = conv(x, block, "primary", stride).clamp(min=0)
    return torch.cat([half, conv(half, block, "cheap", depthwise=True).clamp(min=0)], 1)


def shuffle_unit(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    if "side_project.conv.weight" in block.state_dict():
        side, main = conv(conv(x, block, "side_depthwise", stride, depthwise=True), block, "side_project").clamp(min=0), x
    else:
        side, main = x.split([x.shape[1] // 2, x.shape[1] - x.shape[1] // 2], 1)
    main = conv(conv(main, block, "expand").clamp(min=0), block, "depthwise", stride, depthwise=True)
    main = conv(main, block, "project").clamp(min=0)
    out = torch.empty(len(main), side.shape[1] + main.shape[1], *main.shape[2:])
    for index in range(side.shape[1]):
        out[:, 2 * index], out[:, 2 * index + 1] = side[:, index], main[:, index]
    out[:, 2 * side.shape[1] :] = main[:, side.shape[1] :]
    return out


DEFINITIONS = {
    "residual": residual,
    "bottleneck": bottleneck,
    "inverted-residual": inverted_residual,
    "ghost": ghost,
    "shufflenet": shuffle_unit,
}


def test_every_block_is_defined_here_or_in_the_tests_of_networks_and_folding() -> None:
    assert {*DEFINITIONS, "conv3x3", "sepconv3x3"} == set(BLOCKS)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize(("before", "after", "stride"), SHAPES[:6])
@torch.no_grad()
def test_a_block_is_its_definition(name: str, before: int, after: int, stride: int) -> None:
    block, x = a_block(name, before, after, stride).deploy(), 3 * real_valued(2, before, 9, 14)
    found, expected = block(x), DEFINITIONS[name](block, x, stride)[:, :after]
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_channels_between_are_as_stated() -> None:
    assert [Bottleneck(4, out).reduce.conv.out_channels for out in (1, 3, 4, 13, 104)] == [1, 1, 1, 3, 26]
    assert [InvertedResidual(i, 5).depthwise.conv.groups for i in (1, 3, 8)] == [6, 18, 48]
    assert [Ghost(4, out).cheap.conv.groups for out in (1, 2, 7, 8)] == [1, 1, 4, 4]
    assert [ShuffleUnit(out, out).depthwise.conv.groups for out in (1, 2, 7, 8)] == [1, 1, 4, 4]


def test_channels_of_two_halves_come_in_turns() -> None:
    images = real_valued(3, 8, 2, 5)
    assert torch.equal(shuffled(images[:, :4], images[:, 4:]), F.channel_shuffle(images, 2))
    numbers = torch.arange(7.0).reshape(1, 7, 1, 1)
    assert shuffled(numbers[:, :3], numbers[:, 3:]).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6]
    assert shuffled(numbers[:, :1], numbers[:, 1:3]).flatten().tolist() == [0, 1, 2]


# Table 2 of the paper: B = {1,2,4,7,7}, C = {c,2c,4c,8c,8c}, R = {1,1/4}, no interaction, 19 classes, 1024x2048.
# Fact sheet section 2: block, c, MACs in G, the same with biases (the paper's FLOPs), parameters in training form where given.
# Only of the first two the paper's own figure tells c and definition; the others are what these definitions come to.
TABLE_2 = [
    ("conv3x3", 14, 18.424, 18.462, 3_279_407),
    ("sepconv3x3", 9, 1.037, 1.079, 182_425),
    ("residual", 9, 16.198, 16.246, None),
    ("bottleneck", 13, 2.166, 2.226, None),
    ("inverted-residual", 3, 1.705, 1.843, None),
    ("inverted-residual", 4, 2.718, 2.885, None),
    ("ghost", 7, 2.436, 2.455, None),
    ("shufflenet", 8, 0.654, 0.706, None),
    ("shufflenet", 9, 0.807, 0.867, None),
    ("shufflenet", 10, 0.961, 1.026, None),
]


@pytest.mark.parametrize(("block", "c", "giga_macs", "giga_flops", "trained"), TABLE_2)
def test_the_networks_of_table_2_have_the_counts_of_the_fact_sheet(
    block: str, c: int, giga_macs: float, giga_flops: float, trained: int | None
) -> None:
    text = f"B1-2-4-7-7_C{c}-{2 * c}-{4 * c}-{8 * c}-{8 * c}_R8-2_{block}_none"
    with torch.device("meta"):
        network = LPSNet(text, 19, deployed=True).eval()
    macs = count_macs(network, (1024, 2048))
    cost = network_cost(network.architecture, 19, (1024, 2048))
    flops = macs + bias_adds_of(network, torch.empty(1, 3, 1024, 2048, device="meta"))
    assert (round(macs / 1e9, 3), round(flops / 1e9, 3)) == (giga_macs, giga_flops)
    assert (cost.macs, cost.macs + cost.bias_adds) == (macs, flops)
    assert complexity(text, 19, (1024, 2048)).macs == macs
    assert trained in (None, cost.trained)


def test_every_block_has_a_row_of_table_2() -> None:
    assert {row[0] for row in TABLE_2} == set(BLOCKS)
