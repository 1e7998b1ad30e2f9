"""U-Net (arXiv 1505.04597) as "Segmentation can be light" trains it: normalised, padded, half the channels at 1/16."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from lpsnet.baselines.seam import Baseline, Chain, Link
from lpsnet.interactions import like
from lpsnet.reparam import ConvNorm

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the features at full size, 1/2, 1/4, 1/8 and 1/16."""


def unet_encoder(widths: tuple[int, ...], pair: Callable[[int, int], nn.Sequential]) -> Chain:
    """Two 3x3, as `pair` makes them, at each size, `full` and then `half1` to `half4` (1/16), each after a pooling but the first."""
    links = [Link("full", pair(3, widths[0]), widths[0])]
    for number, (before, after) in enumerate(pairwise(widths), 1):
        # The published poolings round down; that differs at sizes that are no multiple of 16 only.
        links.append(Link(f"half{number}", nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), *pair(before, after)), after, 2))
    return Chain(links, [link.name for link in links])


class JoiningUNet(nn.Module):
    """The decoder: features enlarged, joined to those of twice the size, and two 3x3, for each size.

    Args:
        channels: of the encoder's features, from the largest to the smallest.
        num_classes: of the score maps.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList()
        below = channels[-1]
        for place in reversed(range(len(channels) - 1)):
            joined, after = below + channels[place], channels[max(place - 1, 0)]
            self.mix.append(_pair(joined, joined // 2, after))
            below = after
        self.score = nn.Conv2d(below, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, H, W) of features of which the largest is (N, C, H, W)."""
        x = features[-1]
        for mix, skip in zip(self.mix, reversed(features[:-1]), strict=True):
            x = mix(torch.cat([skip, like(x, skip)], 1))
        scores: Tensor = self.score(x)
        return scores


def _pair(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(in_channels, middle), ConvNorm(middle, out_channels))


def study_unet(num_classes: int, *, published: bool = False) -> Baseline:
    """U-Net with score maps of full size. `published` changes nothing."""
    chain = unet_encoder(WIDTHS, lambda before, after: _pair(before, after, after))
    return Baseline("unet", chain, JoiningUNet(chain.channels, num_classes), num_classes)
