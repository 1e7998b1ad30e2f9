"""The light network of "Segmentation can be light": EfficientNet-B0 and a U-Net of separable convolutions.

The study calls it AFFormer and cites that paper (arXiv 2301.04648); nothing of AFFormer is in its code. See `afformer.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lpsnet.baselines.efficientnet import efficientnet_b0
from lpsnet.baselines.layers import resize_pixels, separable, size_of
from lpsnet.baselines.seam import Baseline

WIDTHS = (128, 96, 64, 32)
"""Channels of the decoder at 1/16, 1/8, 1/4 and 1/2."""


class SeparableUNet(nn.Module):
    """The decoder: features enlarged, joined to those of twice the size, and two separable convolutions, for each size.

    Args:
        channels: of the encoder's features, from the largest, at 1/2, to the smallest.
        num_classes: of the score maps.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList()
        below = channels[-1]
        for skip, width in zip(reversed(channels[:-1]), WIDTHS, strict=True):
            self.mix.append(nn.Sequential(separable(below + skip, width), separable(width, width)))
            below = width
        self.score = nn.Conv2d(below, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, h, w) of features of which the largest is (N, C, h, w)."""
        x = features[-1]
        for mix, skip in zip(self.mix, reversed(features[:-1]), strict=True):
            x = mix(torch.cat([resize_pixels(x, size_of(skip)), skip], 1))
        scores: Tensor = self.score(x)
        return scores


def light(num_classes: int, *, published: bool = False) -> Baseline:
    """The network, with score maps at 1/2; its code enlarges them with pixels' areas in line. `published` changes nothing."""
    chain = efficientnet_b0(("stage1", "stage2", "stage3", "stage4", "stage6"))
    return Baseline("light", chain, SeparableUNet(chain.channels, num_classes), num_classes)
