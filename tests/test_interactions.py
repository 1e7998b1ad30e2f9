"""The interactions of Table 3: their formulas, any number of paths, their deployed form, and their stated cost against a built one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.architecture import WEIGHTLESS_INTERACTIONS
from lpsnet.checkpoint import load
from lpsnet.complexity import complexity, count_parameters, network_cost
from lpsnet.interactions import INTERACTIONS
from lpsnet.network import LPSNet
from tests.restatement import bilinear
from tests.weights import assert_close, norms, randomise, real_valued

SIZES = {1: [(9, 13)], 2: [(9, 13), (5, 4)], 3: [(9, 13), (6, 7), (3, 4)], 4: [(9, 13), (9, 13), (4, 5), (1, 1)]}
"""Of the features, by number of paths."""


def made(name: str, paths: int, channels: int = 5) -> nn.Module:
    torch.manual_seed(0)
    interaction = INTERACTIONS[name](paths, channels).eval()
    randomise(interaction)
    return interaction


def some_features(paths: int, channels: int = 5) -> list[Tensor]:
    return [real_valued(2, channels, *size, seed=number) for number, size in enumerate(SIZES[paths])]


# Every interaction, any number of paths


@pytest.mark.parametrize("name", INTERACTIONS)
@pytest.mark.parametrize("paths", SIZES)
@torch.no_grad()
def test_shapes_are_kept_and_the_features_are_left_as_they_were(name: str, paths: int) -> None:
    features = some_features(paths)
    mixed = made(name, paths)(features)
    assert [x.shape for x in mixed] == [x.shape for x in features]
    assert all(torch.equal(one, other) for one, other in zip(features, some_features(paths), strict=True))


@pytest.mark.parametrize("name", INTERACTIONS)
@torch.no_grad()
def test_one_path_passes_and_has_no_weights(name: str) -> None:
    interaction, features = made(name, 1), some_features(1)
    assert torch.equal(interaction(features)[0], features[0])
    assert interaction.state_dict() == {}


@pytest.mark.parametrize("name", INTERACTIONS)
@pytest.mark.parametrize("paths", SIZES)
@pytest.mark.parametrize("channels", [1, 5])
@torch.no_grad()
def test_the_deployed_interaction_computes_what_the_trained_one_does(name: str, paths: int, channels: int) -> None:
    interaction, features = made(name, paths, channels), some_features(paths, channels)
    deployed, plain = interaction.deploy(), INTERACTIONS[name](paths, channels, deployed=True)
    assert not norms(deployed) and bool(norms(interaction)) == (paths > 1 and name not in WEIGHTLESS_INTERACTIONS)
    plain.load_state_dict(deployed.state_dict())  # strict: the same names, and no other
    for found, same, expected in zip(deployed(features), plain(features), interaction(features), strict=True):
        assert_close(found, expected)
        assert torch.equal(same, found)


@pytest.mark.parametrize("name", INTERACTIONS)
@given(channels=st.integers(1, 6), sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_the_stated_cost_is_that_of_the_built_interaction(name: str, channels: int, sizes: list[tuple[int, int]]) -> None:
    with torch.device("meta"):
        trained, deployed = (INTERACTIONS[name](len(sizes), channels, deployed=form) for form in (False, True))
    found: list[tuple[int, int]] = []
    for conv in deployed.modules():
        if isinstance(conv, nn.Conv2d):
            conv.register_forward_hook(lambda conv, inputs, output: found.append((output.numel(), conv.weight[0].numel())))
    deployed([torch.empty(1, channels, *size, device="meta") for size in sizes])
    cost = INTERACTIONS[name].cost(channels, sizes)
    assert (cost.trained, cost.deployed) == (count_parameters(trained), count_parameters(deployed))
    assert cost.bias_adds == sum(outputs for outputs, _ in found)
    assert cost.macs == sum(outputs * weights for outputs, weights in found)


@pytest.mark.parametrize("name", INTERACTIONS)
@pytest.mark.parametrize("paths", [2, 3])
def test_every_weight_of_an_interaction_learns_and_every_path_feeds_the_others(name: str, paths: int) -> None:
    interaction = INTERACTIONS[name](paths, 5).train()
    features = [x.requires_grad_() for x in some_features(paths)]
    mixed = interaction(features)
    sum((x.square().mean() for x in mixed), torch.zeros(())).backward()
    assert [key for key, weight in interaction.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0] == []
    (gradient,) = torch.autograd.grad(interaction(features)[0].square().mean(), features[-1], allow_unused=True)
    assert (gradient is not None and bool(gradient.abs().sum() > 0)) == (name != "none")


# Their formulas, stated again on the weights of the deployed form


class Parts:
    """F, Att and R of path 0, 1, ... (largest first) of a deployed interaction, and the resize."""

    def __init__(self, interaction: nn.Module, features: list[Tensor]) -> None:
        self.state, self.x = interaction.state_dict(), features

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.conv.weight"]
        return F.conv2d(x, weight, self.state[f"{name}.conv.bias"], padding=weight.shape[-1] // 2)

    def f(self, path: int) -> Tensor:
        return self._conv(f"transforms.{path}", self.x[path]).clamp(min=0)

    def att(self, path: int, gate: int) -> Tensor:
        return 1 / (1 + (-self._conv(f"gates.{gate}", self.x[path])).exp())

    def r(self, path: int, *parts: Tensor) -> Tensor:
        return self._conv(f"reductions.{path}", torch.cat(parts, 1)).clamp(min=0)

    def to(self, path: int, x: Tensor) -> Tensor:
        return bilinear(x, *self.x[path].shape[-2:])


def attention_a_2(p: Parts) -> list[Tensor]:
    a = p.att(1, gate=0)
    return [p.to(0, p.f(1) * a) + p.f(0) * p.to(0, 1 - a), p.f(1) * a]


def attention_a_3(p: Parts) -> list[Tensor]:
    low, middle = p.att(2, gate=1), p.att(1, gate=0)
    mixed = p.to(1, p.f(2) * low) + p.f(1) * p.to(1, 1 - low)
    return [p.to(0, mixed * middle) + p.f(0) * p.to(0, 1 - middle), mixed * middle, p.f(2) * low]


def attention_b_3(p: Parts) -> list[Tensor]:
    def one(own: int, first: int, second: int) -> Tensor:
        gate = (p.to(own, p.att(first, gate=first)) + p.to(own, p.att(second, gate=second))) / 2
        return p.f(own) * gate + p.to(own, p.f(first)) + p.to(own, p.f(second))

    return [one(0, 1, 2), one(1, 0, 2), one(2, 0, 1)]


FORMULAS: dict[tuple[str, int], Callable[[Parts], list[Tensor]]] = {
    ("none", 2): lambda p: p.x,
    ("none", 3): lambda p: p.x,
    ("direct-a", 2): lambda p: [p.f(0) + p.to(0, p.f(1)), p.x[1]],
    ("direct-a", 3): lambda p: [p.f(0) + p.to(0, p.f(1)) + p.to(0, p.f(2)), p.f(1) + p.to(1, p.f(2)), p.x[2]],
    ("direct-b", 2): lambda p: [p.r(0, p.f(0), p.to(0, p.f(1))), p.x[1]],
    ("direct-b", 3): lambda p: [p.r(0, p.f(0), p.to(0, p.f(1)), p.to(0, p.f(2))), p.r(1, p.f(1), p.to(1, p.f(2))), p.x[2]],
    ("attention-a", 2): attention_a_2,
    ("attention-a", 3): attention_a_3,
    ("attention-b", 2): lambda p: [
        p.f(0) * p.to(0, p.att(1, gate=1)) + p.to(0, p.f(1)),
        p.f(1) * p.to(1, p.att(0, gate=0)) + p.to(1, p.f(0)),
    ],
    ("attention-b", 3): attention_b_3,
    ("bilateral-a", 2): lambda p: [p.x[0] + p.to(0, p.f(1)), p.x[1] + p.to(1, p.f(0))],
    ("bilateral-a", 3): lambda p: [
        p.x[0] + p.to(0, p.f(1)) + p.to(0, p.f(2)),
        p.x[1] + p.to(1, p.f(0)) + p.to(1, p.f(2)),
        p.x[2] + p.to(2, p.f(0)) + p.to(2, p.f(1)),
    ],
    ("bilateral-b", 2): lambda p: [p.x[0] + p.to(0, p.x[1]), p.x[1] + p.to(1, p.x[0])],
    ("bilateral-b", 3): lambda p: [
        p.x[0] + p.to(0, p.x[1]) + p.to(0, p.x[2]),
        p.x[1] + p.to(1, p.x[0]) + p.to(1, p.x[2]),
        p.x[2] + p.to(2, p.x[0]) + p.to(2, p.x[1]),
    ],
}


@pytest.mark.parametrize("name", INTERACTIONS)
@pytest.mark.parametrize("paths", [2, 3])
@torch.no_grad()
def test_an_interaction_is_its_formula(name: str, paths: int) -> None:
    interaction, features = made(name, paths).deploy(), some_features(paths)
    for found, expected in zip(interaction(features), FORMULAS[name, paths](Parts(interaction, features)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# In a network


@pytest.mark.parametrize(
    ("name", "giga_macs"),
    [
        ("none", 0.0),
        ("direct-a", 2.416 + 0.151),
        ("direct-b", 2.416 + 0.151 + 0.537),  # and 1x1 from 2C to C on the larger path
        ("attention-a", 2.416 + 0.151 + 0.151),
        ("attention-b", 2 * (2.416 + 0.151)),
        ("bilateral-a", 2.416 + 0.151),
        ("bilateral-b", 0.0),
    ],
)
def test_macs_in_the_network_of_table_3_are_those_of_the_fact_sheet(name: str, giga_macs: float) -> None:
    """Fact sheet section 2: c = 16 at 1024x2048; F is a 3x3 convolution on either path after stages 3 and 4."""
    text = "B1-2-4-7-7_C16-32-64-128-128_R8-2_"
    alone, mixed = (complexity(text + ending, 19, (1024, 2048)).macs for ending in ("none", name))
    assert round(alone / 1e9, 3) == 24.024
    assert (mixed - alone) / 1e9 == pytest.approx(giga_macs, abs=0.0015)  # sums of rounded figures


def test_the_transforms_of_table_3_are_exact() -> None:
    parts = [INTERACTIONS["bilateral-a"].cost(c, [(128 // s, 256 // s), (32 // s, 64 // s)]).macs for c, s in ((64, 1), (128, 2))]
    whole, rest = (
        network_cost(LPSNet(f"B1-1-1-1-1_C1-1-64-128-1_R8-2{end}").architecture, 1, (1024, 2048)) for end in ("_bilateral-a", "")
    )
    assert sum(parts) == whole.macs - rest.macs == 2_415_919_104 + 150_994_944


@pytest.mark.parametrize("name", WEIGHTLESS_INTERACTIONS)
def test_interactions_without_weights_leave_a_checkpoint_as_it_was(name: str) -> None:
    keys = LPSNet(f"B1-1-1-1-1_C4-4-4-4-4_R8-2_{name}", deployed=True).state_dict()
    assert {key.split(".")[0] for key in keys} == {"paths", "head"}


def test_a_network_shipped_before_interactions_had_weights_is_loaded() -> None:
    network = load("LPS-Net-S-train")
    assert network.architecture.interaction == "bilateral-b" and network.num_classes == 11
