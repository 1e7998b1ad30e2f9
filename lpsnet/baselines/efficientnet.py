"""EfficientNet-B0 (arXiv 1905.11946) as an encoder, without its last stage and its last 1x1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lpsnet.baselines.seam import Chain, Link
from lpsnet.reparam import ConvNorm

STAGES = ((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1), (6, 5, 192, 4, 2))
"""Expansion, kernel, channels, number of blocks and stride of the first block of `stage1` to `stage6`."""

BLOCKS_OF_B0 = 16
"""With those of the last stage, which is left out."""

DROP_RATE = 0.2
"""By which a block behind the last one would be skipped while training; it grows in proportion from 0 at the first one."""


class SqueezeExcitation(nn.Module):
    """(N, channels, H, W) times weights of its channels from 0 to 1, found from their means (arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.SiLU(inplace=True), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        weighed: Tensor = x * self.weigh(x.mean((-2, -1), keepdim=True))
        return weighed


class MBConv(nn.Module):
    """1x1 to `expansion` times the channels, depthwise, weighed channels, 1x1; added to its input where the shape stays.

    (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)). With expansion 1 there is no first convolution.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the depthwise kernel.
        stride: of the depthwise convolution.
        expansion: of the channels.
        drop_rate: by which an image of a batch is left as it came while training, where input and output have the same shape.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int, drop_rate: float) -> None:
        super().__init__()
        middle = in_channels * expansion
        widen = [ConvNorm(in_channels, middle, 1, act="silu")] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            ConvNorm(middle, middle, kernel, stride, groups=middle, act="silu"),
            SqueezeExcitation(middle, in_channels // 4),
            ConvNorm(middle, out_channels, 1, act=None),
        )
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        found: Tensor = self.layers(x)
        if not self.residual:
            return found
        if self.training and self.drop_rate:
            kept = 1 - self.drop_rate
            found = found * torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(kept) / kept
        return x + found


def efficientnet_b0(taps: tuple[str, ...]) -> Chain:
    """`stem` and `stage1` (1/2), `stage2` (1/4), `stage3` (1/8), `stage4` and `stage5` (1/16), `stage6` (192 channels, 1/32)."""
    links = [Link("stem", ConvNorm(3, 32, 3, 2, act="silu"), 32, 2)]
    channels, place = 32, 0
    for number, (expansion, kernel, width, depth, first_stride) in enumerate(STAGES, 1):
        blocks = []
        for stride in (first_stride, *(1,) * (depth - 1)):
            blocks.append(MBConv(channels, width, kernel, stride, expansion, DROP_RATE * place / BLOCKS_OF_B0))
            channels, place = width, place + 1
        links.append(Link(f"stage{number}", nn.Sequential(*blocks), width, first_stride))
    return Chain(links, taps)
