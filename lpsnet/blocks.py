"""The convolutional blocks a path can be made of (paper Table 2), one read-only table.

A block maps (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)) for any channels and sizes from 1 on and stride 1 or 2.
It states its cost and offers `deploy()`, the same function in eval mode without batch normalisation. Re-parameterisation
branches are for the first alone. Which block a network uses is part of its `Architecture`; what the paper
leaves open of each stands in `docs/networks.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.architecture import BLOCK_GROUP, BLOCK_NAMES
from lpsnet.cost import Cost, conv_cost, strided
from lpsnet.reparam import ConvNorm, Foldable, RepConv, fold_batch_norm, plain_conv
from lpsnet.tables import Table


class SepConv(nn.Module):
    """Depthwise 3x3, BN, ReLU, then pointwise 1x1, BN, ReLU (paper Table 2, "3x3 SepConv")."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        x = F.relu(self.depthwise_norm(self.depthwise(x)), inplace=True)
        return F.relu(self.pointwise_norm(self.pointwise(x)), inplace=True)

    @staticmethod
    def cost(in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost on an input of `size` (height, width)."""
        depthwise = conv_cost(in_channels, in_channels, 3, size, stride=stride, groups=in_channels)
        return depthwise + conv_cost(in_channels, out_channels, 1, strided(size, stride))

    def deploy(self) -> nn.Sequential:
        """The same function in eval mode as two biased convolutions with ReLU."""
        depthwise = fold_batch_norm(self.depthwise.weight, self.depthwise_norm)
        pointwise = fold_batch_norm(self.pointwise.weight, self.pointwise_norm)
        return nn.Sequential(
            plain_conv(*depthwise, stride=self.stride, groups=self.depthwise.groups),
            nn.ReLU(inplace=True),
            plain_conv(*pointwise),
            nn.ReLU(inplace=True),
        )


class Residual(Foldable):
    """3x3, BN, ReLU, 3x3, BN, beside it the input where shapes match, ReLU of the sum (He et al., arXiv 1512.03385).

    The first convolution strides. Where shapes differ nothing stands beside: the paper does not say what should.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True, deployed: bool = False) -> None:
        super().__init__()
        self.shortcut = stride == 1 and in_channels == out_channels
        self.first = ConvNorm(in_channels, out_channels, 3, stride, deployed=deployed)
        self.second = ConvNorm(out_channels, out_channels, 3, act=None, deployed=deployed)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        y = self.second(self.first(x))
        return F.relu(y + x if self.shortcut else y, inplace=True)

    @staticmethod
    def cost(in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost on an input of `size` (height, width)."""
        first = conv_cost(in_channels, out_channels, 3, size, stride=stride)
        return first + conv_cost(out_channels, out_channels, 3, strided(size, stride))


class Bottleneck(Foldable):
    """1x1, BN, ReLU, 3x3, BN, ReLU, 1x1, BN, beside it the input where shapes match, ReLU of the sum (He et al., arXiv 1512.03385).

    A quarter of the output channels lies between, rounded down and at least one. The 3x3 convolution strides. Where shapes differ
    nothing stands beside: the paper does not say what should.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True, deployed: bool = False) -> None:
        super().__init__()
        self.shortcut = stride == 1 and in_channels == out_channels
        inner = self.inner(out_channels)
        self.reduce = ConvNorm(in_channels, inner, 1, deployed=deployed)
        self.middle = ConvNorm(inner, inner, 3, stride, deployed=deployed)
        self.expand = ConvNorm(inner, out_channels, 1, act=None, deployed=deployed)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        y = self.expand(self.middle(self.reduce(x)))
        return F.relu(y + x if self.shortcut else y, inplace=True)

    @staticmethod
    def inner(out_channels: int) -> int:
        """Channels of the 3x3 convolution."""
        return max(1, out_channels // 4)

    @classmethod
    def cost(cls, in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost on an input of `size` (height, width)."""
        inner = cls.inner(out_channels)
        outer = conv_cost(in_channels, inner, 1, size) + conv_cost(inner, out_channels, 1, strided(size, stride))
        return outer + conv_cost(inner, inner, 3, size, stride=stride)


class InvertedResidual(Foldable):
    """1x1, BN, ReLU6, depthwise 3x3, BN, ReLU6, 1x1, BN, and the input added where shapes match (Sandler et al., arXiv 1801.04381).

    The depthwise convolution strides. The output is linear, so that it may be negative.
    """

    EXPANSION = 6
    """Channels between, a channel of the input; MobileNetV2's, since the paper does not give its own."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True, deployed: bool = False) -> None:
        super().__init__()
        self.shortcut = stride == 1 and in_channels == out_channels
        inner = self.EXPANSION * in_channels
        self.expand = ConvNorm(in_channels, inner, 1, act="relu6", deployed=deployed)
        self.depthwise = ConvNorm(inner, inner, 3, stride, groups=inner, act="relu6", deployed=deployed)
        self.project = ConvNorm(inner, out_channels, 1, act=None, deployed=deployed)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y + x if self.shortcut else y

    @classmethod
    def cost(cls, in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost on an input of `size` (height, width)."""
        inner = cls.EXPANSION * in_channels
        outer = conv_cost(in_channels, inner, 1, size) + conv_cost(inner, out_channels, 1, strided(size, stride))
        return outer + conv_cost(inner, inner, 3, size, stride=stride, groups=inner)


class Ghost(Foldable):
    """3x3, BN, ReLU to half of the channels, and a depthwise 3x3, BN, ReLU of these as the other half (Han et al., arXiv 1911.11907).

    The first convolution strides. An odd number of channels is cut from the next even one, as the module's authors do:
    one channel is then computed for nothing.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True, deployed: bool = False) -> None:
        super().__init__()
        self.out_channels = out_channels
        half = -(-out_channels // 2)
        self.primary = ConvNorm(in_channels, half, 3, stride, deployed=deployed)
        self.cheap = ConvNorm(half, half, 3, groups=half, deployed=deployed)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        primary = self.primary(x)
        joined = torch.cat([primary, self.cheap(primary)], 1)
        return joined if joined.shape[1] == self.out_channels else joined[:, : self.out_channels]

    @staticmethod
    def cost(in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost on an input of `size` (height, width)."""
        half = -(-out_channels // 2)
        primary = conv_cost(in_channels, half, 3, size, stride=stride)
        return primary + conv_cost(half, half, 3, strided(size, stride), groups=half)


class ShuffleUnit(Foldable):
    """Two halves of the channels, joined and shuffled (ShuffleNetV2: Ma et al., arXiv 1807.11164).

    One half goes through 1x1, BN, ReLU, depthwise 3x3, BN, 1x1, BN, ReLU. The other is a half of the input as it is where shapes match;
    else both are made of the whole input, the other by depthwise 3x3, BN, 1x1, BN, ReLU, and the depthwise convolutions stride.
    Of an odd number of channels the first half is the larger one, and of a single channel it is all.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True, deployed: bool = False) -> None:
        super().__init__()
        self.splits = stride == 1 and in_channels == out_channels
        self.kept, half = out_channels // 2, out_channels - out_channels // 2
        self.expand = ConvNorm(half if self.splits else in_channels, half, 1, deployed=deployed)
        self.depthwise = ConvNorm(half, half, 3, stride, groups=half, act=None, deployed=deployed)
        self.project = ConvNorm(half, half, 1, deployed=deployed)
        beside = bool(self.kept) and not self.splits
        self.side_depthwise = (
            ConvNorm(in_channels, in_channels, 3, stride, groups=in_channels, act=None, deployed=deployed) if beside else None
        )
        self.side_project = ConvNorm(in_channels, self.kept, 1, deployed=deployed) if beside else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        side = None
        if self.side_depthwise is not None and self.side_project is not None:
            side = self.side_project(self.side_depthwise(x))
        elif self.kept:
            side, x = x[:, : self.kept], x[:, self.kept :]
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y if side is None else shuffled(side, y)

    @staticmethod
    def cost(in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost on an input of `size` (height, width)."""
        splits, after = stride == 1 and in_channels == out_channels, strided(size, stride)
        kept, half = out_channels // 2, out_channels - out_channels // 2
        total = conv_cost(half if splits else in_channels, half, 1, size)
        total += conv_cost(half, half, 3, size, stride=stride, groups=half) + conv_cost(half, half, 1, after)
        if kept and not splits:
            total += conv_cost(in_channels, in_channels, 3, size, stride=stride, groups=in_channels) + conv_cost(
                in_channels, kept, 1, after
            )
        return total


def shuffled(side: Tensor, main: Tensor) -> Tensor:
    """The channels of two halves in turns, (N, C // 2, H, W) and (N, C - C // 2, H, W) to (N, C, H, W).

    Of an odd number the last channel stays last, outside the turns.
    """
    pairs = side.shape[1]
    turns = dealt(torch.cat([side, main[:, :pairs] if main.shape[1] > pairs else main], 1), 2)
    return torch.cat([turns, main[:, pairs:]], 1) if main.shape[1] > pairs else turns


def dealt(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) with its channels dealt out: the first of each group, then the second of each, and so on.

    Written as reshapes and a transposition, which every runtime has.
    """
    count, channels, height, width = x.shape
    return x.reshape(count, groups, channels // groups, height, width).transpose(1, 2).reshape(count, channels, height, width)


class Block(Protocol):
    """What a block offers besides being a module."""

    def deploy(self) -> nn.Module:
        """The same function in eval mode without batch normalisation."""
        ...


@runtime_checkable
class BlockKind(Protocol):
    """How a block is made, and what it would cost."""

    def __call__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True) -> nn.Module:
        """A block of channels in, channels out and stride that trains, where it can, with parallel branches."""
        ...

    def cost(self, in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost of such a block on an input of `size` (height, width)."""
        ...


_OWN: MappingProxyType[str, BlockKind] = MappingProxyType(
    {
        "conv3x3": RepConv,
        "sepconv3x3": SepConv,
        "residual": Residual,
        "bottleneck": Bottleneck,
        "inverted-residual": InvertedResidual,
        "ghost": Ghost,
        "shufflenet": ShuffleUnit,
    }
)

assert tuple(_OWN) == BLOCK_NAMES

BLOCKS: Table[BlockKind] = Table(BLOCK_GROUP, _OWN, BlockKind)
"""Block by the name used in an architecture's text; one of another package is a class such as `Residual`, with `deployed`, too."""

PLAIN: MappingProxyType[str, Callable[[int, int, int], nn.Module]] = MappingProxyType(
    {
        "conv3x3": lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.ReLU(inplace=True)),
        "sepconv3x3": lambda i, o, s: nn.Sequential(
            nn.Conv2d(i, i, 3, s, 1, groups=i), nn.ReLU(inplace=True), nn.Conv2d(i, o, 1), nn.ReLU(inplace=True)
        ),
        "residual": partial(Residual, deployed=True),
        "bottleneck": partial(Bottleneck, deployed=True),
        "inverted-residual": partial(InvertedResidual, deployed=True),
        "ghost": partial(Ghost, deployed=True),
        "shufflenet": partial(ShuffleUnit, deployed=True),
    }
)
"""The deployed form of each block of this package."""

assert tuple(PLAIN) == BLOCK_NAMES


def plain_block(name: str) -> Callable[[int, int, int], nn.Module]:
    """The deployed form of a block, built without a training form in front of it (for loading deployed weights)."""
    return PLAIN[name] if name in PLAIN else partial(cast(Callable[..., nn.Module], BLOCKS[name]), deployed=True)
