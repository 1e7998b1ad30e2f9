"""How the paths of a network exchange features after a stage (paper Table 3), one read-only table.

An interaction maps the paths' features, a list of (N, C, H_i, W_i) from the largest path to the smallest, to a list of the same shapes.
It is made for one place in a network, states its cost and offers `deploy()`, the same function in eval mode without batch
normalisation. The paper gives formulas for attention-a and bilateral-b, for two paths; the rest it tells in words. What was filled in
stands in `docs/networks.md`. For two paths h and l, U and D resize l to h's size and h to l's. A single path passes as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.architecture import INTERACTION_NAMES
from lpsnet.cost import Cost, conv_cost
from lpsnet.reparam import ConvNorm, Foldable

Sizes = Sequence[tuple[int, int]]
"""Height and width of each path's features, from the largest path to the smallest."""


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize with aligned corners of (N, C, H, W) to (N, C, *size), up or down; the tensor itself when it fits.

    The released network and its port resize in this way everywhere.
    """
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def like(x: Tensor, own: Tensor) -> Tensor:
    """`x` resized to the size of `own`."""
    return resize(x, (own.shape[-2], own.shape[-1]))


def gathered(own: Tensor, others: Iterable[Tensor]) -> Tensor:
    """`own` plus the others, each resized to its size."""
    total = own
    for other in others:
        total = total + like(other, own)
    return total


def without(items: Sequence[Tensor], number: int) -> list[Tensor]:
    """All but one."""
    return [*items[:number], *items[number + 1 :]]


def transform(channels: int, deployed: bool) -> ConvNorm:
    """F of the paper: 3x3, BN, ReLU that keeps the channels. That it is 3x3 and ends in a ReLU is inferred."""
    return ConvNorm(channels, channels, deployed=deployed)


def gate(channels: int, deployed: bool) -> ConvNorm:
    """Att of the paper: 3x3, BN, sigmoid that keeps the channels. All but the sigmoid is inferred."""
    return ConvNorm(channels, channels, act="sigmoid", deployed=deployed)


class Weightless(Foldable):
    """An interaction without weights, the same in both forms."""

    def __init__(self, paths: int, channels: int, *, deployed: bool = False) -> None:
        super().__init__()

    @staticmethod
    def cost(channels: int, sizes: Sizes) -> Cost:
        """Nothing that counts: resizes and sums are no multiply-adds."""
        return Cost()


class NoInteraction(Weightless):
    """Every path keeps its own features (the baseline of Table 3)."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The features as they came."""
        return features


class BilateralB(Weightless):
    """h + U(l) and l + D(h) (Eq. 2): every path adds the resized features of all others, with no activation."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Each output is its path's input plus the other paths' *inputs*, resized to its size."""
        return [gathered(own, without(features, number)) for number, own in enumerate(features)]


class Transforming(Foldable):
    """An interaction that transforms the features of every path, by weights of each path's own.

    Args:
        paths: number of paths.
        channels: C of every path at this place.
        deployed: build the deployed form.
    """

    def __init__(self, paths: int, channels: int, *, deployed: bool = False) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transform(channels, deployed) for _ in range(paths if paths > 1 else 0))

    def transformed(self, features: list[Tensor]) -> list[Tensor]:
        """F of each path's features."""
        return [layer(x) for layer, x in zip(self.transforms, features, strict=True)]

    @staticmethod
    def cost(channels: int, sizes: Sizes) -> Cost:
        """Cost of the transforms for features of `sizes`."""
        return sum((conv_cost(channels, channels, 3, size) for size in sizes if len(sizes) > 1), Cost())


class DirectA(Transforming):
    """F(h) + U(F(l)) and l: each path adds what smaller ones give; the smallest passes.

    In words in the paper; that F is applied to h, too, is inferred from its latency.
    """

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of all paths to features of the same shapes."""
        if len(features) == 1:
            return features
        moved = self.transformed(features)
        return [*(gathered(own, moved[number + 1 :]) for number, own in enumerate(moved[:-1])), features[-1]]


class DirectB(Transforming):
    """R(F(h) beside U(F(l))) and l: as direct-a, with channels joined in place of the sum; the smallest path passes.

    In words in the paper. R, 1x1, BN, ReLU back to C channels, is inferred: the paper says nothing of the doubled channels, and its
    latency is a little above direct-a's.
    """

    def __init__(self, paths: int, channels: int, *, deployed: bool = False) -> None:
        super().__init__(paths, channels, deployed=deployed)
        joined = range(paths, 1, -1)
        self.reductions = nn.ModuleList(ConvNorm(count * channels, channels, 1, deployed=deployed) for count in joined)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of all paths to features of the same shapes."""
        if len(features) == 1:
            return features
        moved, mixed = self.transformed(features), []
        for number, reduction in enumerate(self.reductions):
            joined = torch.cat([like(x, moved[number]) for x in moved[number:]], 1)
            mixed.append(reduction(joined))
        return [*mixed, features[-1]]

    @staticmethod
    def cost(channels: int, sizes: Sizes) -> Cost:
        """Cost of the transforms and of the reductions, at the size of each path but the smallest."""
        joined = range(len(sizes), 1, -1)
        reductions = (conv_cost(count * channels, channels, 1, size) for count, size in zip(joined, sizes, strict=False))
        return sum(reductions, Transforming.cost(channels, sizes))


class AttentionA(Transforming):
    """U(F(l) A) + F(h) U(1 - A) and F(l) A, where A = Att(l) (Eq. 1).

    With more than two paths the smallest two are l and h, and what h becomes stands for F(l) towards the next larger one.
    """

    def __init__(self, paths: int, channels: int, *, deployed: bool = False) -> None:
        super().__init__(paths, channels, deployed=deployed)
        self.gates = nn.ModuleList(gate(channels, deployed) for _ in range(paths - 1))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of all paths to features of the same shapes."""
        if len(features) == 1:
            return features
        *larger, total = self.transformed(features)
        mixed = []
        for number in reversed(range(len(larger))):
            own, attention = larger[number], self.gates[number](features[number + 1])
            mixed.append(total * attention)
            total = like(mixed[-1], own) + own * like(1 - attention, own)
        return [total, *mixed[::-1]]

    @staticmethod
    def cost(channels: int, sizes: Sizes) -> Cost:
        """Cost of the transforms and of the attention of each path but the largest."""
        return sum((conv_cost(channels, channels, 3, size) for size in sizes[1:]), Transforming.cost(channels, sizes))


class AttentionB(Transforming):
    """F(h) U(Att(l)) + U(F(l)) and F(l) D(Att(h)) + D(F(h)): each path is gated by the attention of the others, and adds them.

    In words in the paper. With more than two paths the gate is the mean of the others' attention.
    """

    def __init__(self, paths: int, channels: int, *, deployed: bool = False) -> None:
        super().__init__(paths, channels, deployed=deployed)
        self.gates = nn.ModuleList(gate(channels, deployed) for _ in self.transforms)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of all paths to features of the same shapes."""
        if len(features) == 1:
            return features
        moved, attention = self.transformed(features), [layer(x) for layer, x in zip(self.gates, features, strict=True)]
        mixed = []
        for number, own in enumerate(moved):
            first, *rest = without(attention, number)
            total = gathered(like(first, own), rest)
            mixed.append(gathered(own * (total / (1 + len(rest)) if rest else total), without(moved, number)))
        return mixed

    @staticmethod
    def cost(channels: int, sizes: Sizes) -> Cost:
        """Cost of the transforms and of as many attentions."""
        return Transforming.cost(channels, sizes) * 2


class BilateralA(Transforming):
    """h + U(F(l)) and l + D(F(h)): every path adds the transformed and resized features of all others. In words in the paper."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of all paths to features of the same shapes."""
        if len(features) == 1:
            return features
        moved = self.transformed(features)
        return [gathered(own, without(moved, number)) for number, own in enumerate(features)]


class Interaction(Protocol):
    """What an interaction offers besides being a module."""

    def __call__(self, features: list[Tensor]) -> list[Tensor]:
        """Features of all paths to features of the same shapes."""
        ...

    def deploy(self) -> nn.Module:
        """The same function in eval mode without batch normalisation."""
        ...


class InteractionKind(Protocol):
    """How an interaction is made for one place in a network, and what it would cost."""

    def __call__(self, paths: int, channels: int, *, deployed: bool = False) -> nn.Module:
        """An interaction of so many paths, all of so many channels at this place."""
        ...

    def cost(self, channels: int, sizes: Sizes) -> Cost:
        """Cost of such an interaction for features of `sizes`, one a path."""
        ...


INTERACTIONS: MappingProxyType[str, InteractionKind] = MappingProxyType(
    {
        "none": NoInteraction,
        "direct-a": DirectA,
        "direct-b": DirectB,
        "attention-a": AttentionA,
        "attention-b": AttentionB,
        "bilateral-a": BilateralA,
        "bilateral-b": BilateralB,
    }
)
"""Interaction by the name used in an architecture's text."""

assert tuple(INTERACTIONS) == INTERACTION_NAMES
