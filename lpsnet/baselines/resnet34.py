"""ResNet34 (arXiv 1512.03385) as an encoder, with normalised shortcuts as it was published."""

from __future__ import annotations

from torch import nn

from lpsnet.baselines.layers import ConvNorm
from lpsnet.baselines.resnet import WIDTHS, BasicBlock
from lpsnet.baselines.seam import Chain, Link

DEPTHS = (3, 4, 6, 3)
"""Number of blocks of `stage2` to `stage5`."""


class NormedBlock(BasicBlock):
    """A `BasicBlock` whose shortcut is normalised where it is a convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride)
        if isinstance(self.shortcut, nn.Conv2d):
            self.add_module("shortcut", ConvNorm(in_channels, out_channels, 1, stride, act=None))


def resnet34(taps: tuple[str, ...], *, unused: nn.Module | None = None) -> Chain:
    """`stem` (1/2), `pool` (1/4), then `stage2` (1/4) to `stage5` (1/32). Arguments as of `Chain`."""
    links = [Link("stem", ConvNorm(3, 64, 7, 2), 64, 2), Link("pool", nn.MaxPool2d(3, 2, 1), 64, 2)]
    channels = 64
    for number, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), 2):
        stride = 1 if number == 2 else 2
        blocks = [NormedBlock(channels, width, stride)] + [NormedBlock(width, width) for _ in range(depth - 1)]
        links.append(Link(f"stage{number}", nn.Sequential(*blocks), width, stride))
        channels = width
    return Chain(links, taps, unused=unused)
