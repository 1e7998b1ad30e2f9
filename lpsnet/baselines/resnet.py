"""ResNet18 as RTSeg builds it, without normalisation on the shortcuts, and ResNet34 as published (arXiv 1512.03385), as encoders."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.baselines.seam import Chain, Link
from lpsnet.reparam import ConvNorm

WIDTHS = (64, 128, 256, 512)
"""Channels of `stage2` to `stage5`."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the first convolution and the shortcut.
        dilation: rate of both convolutions.
        normed: whether a shortcut that is a convolution is normalised.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1, *, normed: bool = False) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, 3, stride, dilation=dilation)
        self.second = ConvNorm(out_channels, out_channels, 3, dilation=dilation, act=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            conv = ConvNorm(in_channels, out_channels, 1, stride, act=None)
            self.shortcut = conv if normed else conv.conv

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x), inplace=True)


def resnet18(taps: tuple[str, ...], *, strides: tuple[int, ...] = (1, 2, 2, 2), dilations: tuple[int, ...] = (1, 1, 1, 1)) -> Chain:
    """`stem` (1/2), `pool` (1/4), then `stage2` (1/4) to `stage5` (1/32), whose strides and rates of dilation are given."""
    return _resnet(taps, (2, 2, 2, 2), strides, dilations)


def resnet34(taps: tuple[str, ...], *, unused: nn.Module | None = None) -> Chain:
    """`stem` (1/2), `pool` (1/4), then `stage2` (1/4) to `stage5` (1/32). Arguments as of `Chain`."""
    return _resnet(taps, (3, 4, 6, 3), (1, 2, 2, 2), (1, 1, 1, 1), normed=True, unused=unused)


def _resnet(
    taps: tuple[str, ...],
    depths: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    normed: bool = False,
    unused: nn.Module | None = None,
) -> Chain:
    links = [Link("stem", ConvNorm(3, 64, 7, 2), 64, 2), Link("pool", nn.MaxPool2d(3, 2, 1), 64, 2)]
    channels = 64
    for number, (width, depth, stride, rate) in enumerate(zip(WIDTHS, depths, strides, dilations, strict=True), 2):
        blocks = [BasicBlock(channels, width, stride, rate, normed=normed)]
        blocks += [BasicBlock(width, width, 1, rate) for _ in range(depth - 1)]
        links.append(Link(f"stage{number}", nn.Sequential(*blocks), width, stride))
        channels = width
    return Chain(links, taps, unused=unused)
