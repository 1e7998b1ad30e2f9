"""ShuffleNet (arXiv 1707.01083) as RTSeg and as LiteSeg build it, and ShuffleNetV2 (arXiv 1807.11164), as encoders."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.baselines.layers import TF_EPS
from lpsnet.baselines.seam import Chain, Link
from lpsnet.blocks import dealt
from lpsnet.reparam import ConvNorm

STEM = 24
"""Channels of the first convolution."""

DEPTHS = (4, 8, 4)
"""Units of `stage2` to `stage4`."""

WIDTHS = {3: (240, 480, 960), 8: (384, 768, 1536)}
"""Channels of `stage2` to `stage4` of ShuffleNet, by number of groups."""

WIDTHS_V2 = (116, 232, 464)
"""Likewise of ShuffleNetV2."""


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    The result is added to the input; where there are more channels than in the input, it is joined to the input's local means.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the depthwise convolution.
        groups: of the 1x1 convolutions and the shuffle.
        middle: channels of the depthwise convolution.
        first_groups: of the first 1x1 convolution.
        shuffles: whether channels are shuffled.
        dilation: rate of the depthwise convolution.
        eps: of the normalisation of the depthwise convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        groups: int,
        middle: int,
        first_groups: int,
        shuffles: bool = True,
        dilation: int = 1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.groups = groups if shuffles else 1
        joins = in_channels != out_channels
        new = out_channels - in_channels if joins else out_channels
        self.narrow = ConvNorm(in_channels, middle, 1, groups=first_groups, bias=True)
        self.depthwise = ConvNorm(middle, middle, 3, stride, groups=middle, dilation=dilation, bias=True, act=None, eps=eps)
        self.widen = ConvNorm(middle, new, 1, groups=groups, bias=True, act=None)
        self.mean = nn.AvgPool2d(3, stride, 1, count_include_pad=False) if joins else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        found = self.narrow(x)
        found = self.widen(self.depthwise(dealt(found, self.groups) if self.groups > 1 else found))
        return F.relu(x + found if self.mean is None else torch.cat([self.mean(x), found], 1), inplace=True)


def shufflenet_rtseg(taps: tuple[str, ...], *, strides: tuple[int, ...] = (2, 2, 2), dilations: tuple[int, ...] = (1, 1, 1)) -> Chain:
    """ShuffleNet of 3 groups: `conv1` (1/2), `pool` (1/4), `stage2` (1/8) to `stage4` (1/32).

    The very first unit is neither grouped at its first convolution nor shuffled. A unit that joins has a quarter of the
    channels it adds in its middle.

    Args:
        taps: as of `Chain`.
        strides: of the stages' first units.
        dilations: rate of the stages' first units; all others have rate 1.
    """
    links = [Link("conv1", ConvNorm(3, STEM, 3, 2, bias=True, eps=TF_EPS), STEM, 2), Link("pool", nn.MaxPool2d(3, 2, 1), STEM, 2)]
    channels, groups = STEM, 3
    for number, (width, depth, stride, rate) in enumerate(zip(WIDTHS[groups], DEPTHS, strides, dilations, strict=True), 2):
        plain = number == 2
        make = partial(ShuffleUnit, groups=groups, eps=TF_EPS)
        added, first = (width - channels) // 4, 1 if plain else groups
        units = [make(channels, width, stride, middle=added, first_groups=first, shuffles=not plain, dilation=rate)]
        units += [make(width, width, middle=width // 4, first_groups=groups) for _ in range(depth - 1)]
        links.append(Link(f"stage{number}", nn.Sequential(*units), width, stride))
        channels = width
    return Chain(links, taps)


def shufflenet_liteseg(taps: tuple[str, ...], *, unused: nn.Module | None = None) -> Chain:
    """ShuffleNet of 8 groups: `conv1` (1/2), `pool` (1/4), `stage2` (1/8) to `stage4` (1/32).

    The first convolution has neither normalisation nor activation, and every unit a quarter of its output's channels in its
    middle. The very first unit is not grouped at its first convolution. `taps` and `unused` are as of `Chain`.
    """
    links = [Link("conv1", nn.Conv2d(3, STEM, 3, 2, 1), STEM, 2), Link("pool", nn.MaxPool2d(3, 2, 1), STEM, 2)]
    channels, groups = STEM, 8
    for number, (width, depth) in enumerate(zip(WIDTHS[groups], DEPTHS, strict=True), 2):
        units = [ShuffleUnit(channels, width, 2, groups=groups, middle=width // 4, first_groups=1 if number == 2 else groups)]
        units += [ShuffleUnit(width, width, groups=groups, middle=width // 4, first_groups=groups) for _ in range(depth - 1)]
        links.append(Link(f"stage{number}", nn.Sequential(*units), width, 2))
        channels = width
    return Chain(links, taps, unused=unused)


class DownUnitV2(nn.Module):
    """Two branches that both take all channels, joined: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    As in the network with atrous separable convolutions (arXiv 1902.07476), the first 1x1 convolution keeps the channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, eps: float) -> None:
        super().__init__()
        half = out_channels // 2
        self.short = nn.Sequential(
            ConvNorm(in_channels, in_channels, 3, stride, groups=in_channels, dilation=dilation, act=None, eps=eps),
            ConvNorm(in_channels, half, 1, eps=eps),
        )
        self.long = nn.Sequential(
            ConvNorm(in_channels, in_channels, 1, eps=eps),
            ConvNorm(in_channels, in_channels, 3, stride, groups=in_channels, dilation=dilation, act=None, eps=eps),
            ConvNorm(in_channels, half, 1, eps=eps),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        return torch.cat([self.short(x), self.long(x)], 1)


class BasicUnitV2(nn.Module):
    """Shuffles the halves of (N, C, H, W), changes one of them and joins both to the same shape."""

    def __init__(self, channels: int, dilation: int, eps: float) -> None:
        super().__init__()
        half = channels // 2
        self.change = nn.Sequential(
            ConvNorm(half, half, 1, eps=eps),
            ConvNorm(half, half, 3, groups=half, dilation=dilation, act=None, eps=eps),
            ConvNorm(half, half, 1, eps=eps),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        kept, changed = dealt(x, 2).chunk(2, 1)
        return torch.cat([kept, self.change(changed)], 1)


def shufflenet_v2(taps: tuple[str, ...], *, rate: int = 2) -> Chain:
    """ShuffleNetV2 without its last 1x1 convolution: `conv1` (1/2), `pool` (1/4), `stage2` (1/8), `stage3` and `stage4` (1/16).

    Args:
        taps: as of `Chain`.
        rate: of the depthwise kernels of `stage4`, whose stride is left out.
    """
    links = [Link("conv1", ConvNorm(3, STEM, 3, 2, eps=TF_EPS), STEM, 2), Link("pool", nn.MaxPool2d(3, 2, 1), STEM, 2)]
    channels = STEM
    for number, (width, depth, stride, dilation) in enumerate(zip(WIDTHS_V2, DEPTHS, (2, 2, 1), (1, 1, rate), strict=True), 2):
        units: list[nn.Module] = [DownUnitV2(channels, width, stride, dilation, TF_EPS)]
        units += [BasicUnitV2(width, dilation, TF_EPS) for _ in range(depth - 1)]
        links.append(Link(f"stage{number}", nn.Sequential(*units), width, stride))
        channels = width
    return Chain(links, taps)
