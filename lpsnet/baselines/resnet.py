"""ResNet18 (arXiv 1512.03385) as an encoder, as RTSeg builds it: no normalisation on the shortcuts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.baselines.layers import ConvNorm
from lpsnet.baselines.seam import Chain, Link

WIDTHS = (64, 128, 256, 512)
"""Channels of `stage2` to `stage5`, of two blocks each."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the first convolution and the shortcut.
        dilation: rate of both convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, 3, stride, dilation=dilation)
        self.second = ConvNorm(out_channels, out_channels, 3, dilation=dilation, act=None)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x), inplace=True)


def resnet18(taps: tuple[str, ...], *, strides: tuple[int, ...] = (1, 2, 2, 2), dilations: tuple[int, ...] = (1, 1, 1, 1)) -> Chain:
    """`stem` (1/2), `pool` (1/4), then `stage2` (1/4) to `stage5` (1/32), whose strides and rates of dilation are given."""
    links = [Link("stem", ConvNorm(3, 64, 7, 2), 64, 2), Link("pool", nn.MaxPool2d(3, 2, 1), 64, 2)]
    channels = 64
    for number, (width, stride, rate) in enumerate(zip(WIDTHS, strides, dilations, strict=True), 2):
        blocks = nn.Sequential(BasicBlock(channels, width, stride, rate), BasicBlock(width, width, 1, rate))
        links.append(Link(f"stage{number}", blocks, width, stride))
        channels = width
    return Chain(links, taps)
