"""Attention U-Net (arXiv 1804.03999) over its own encoder and over ResNet34, as "Segmentation can be light" builds them.

That study also speaks of a three-level attention; its code holds the gate of attention U-Net only, and so does this file.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.baselines.resnet import resnet34
from lpsnet.baselines.seam import Baseline
from lpsnet.baselines.unet import unet_encoder
from lpsnet.baselines.vgg import conv_relu
from lpsnet.interactions import like
from lpsnet.reparam import ConvNorm

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the plain encoder's features at full size, 1/2, 1/4, 1/8 and 1/16."""

CENTER_CHANNELS = 1024
"""Of the layers after ResNet34 that the published code holds and never uses."""


class Gate(nn.Module):
    """The attention gate: (N, C, H, W) times a map (N, 1, H, W) of weights from 0 to 1, found from it and from a coarser feature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = channels // 2
        self.coarse = ConvNorm(channels, middle, 1, act=None)
        self.fine = ConvNorm(channels, middle, 1, act=None)
        self.weigh = ConvNorm(middle, 1, 1, act=None)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """(N, C, H, W) for two such."""
        weights: Tensor = self.weigh(F.relu(self.coarse(coarse) + self.fine(skip), inplace=True)).sigmoid()
        return skip * weights


class Level(nn.Module):
    """Features made as large as a skip connection, which is gated by them, then both joined and two 3x3 without normalisation.

    (N, below, h, w) and (N, channels, H, W) to (N, channels, H, W).
    """

    def __init__(self, below: int, channels: int) -> None:
        super().__init__()
        self.narrow = ConvNorm(below, channels)
        self.gate = Gate(channels)
        self.mix = _pair(2 * channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, below, h, w) and (N, channels, H, W) to (N, channels, H, W)."""
        x = self.narrow(like(x, skip))
        mixed: Tensor = self.mix(torch.cat([self.gate(skip, x), x], 1))
        return mixed


class AttentionUNet(nn.Module):
    """The decoder.

    Args:
        channels: of the encoder's features, from the largest to the smallest.
        num_classes: of the score maps.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(below, width) for below, width in pairwise(reversed(channels)))
        self.score = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, h, w) of features of which the largest is (N, C, h, w)."""
        x = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            x = level(x, skip)
        scores: Tensor = self.score(x)
        return scores


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*conv_relu(in_channels, out_channels), *conv_relu(out_channels, out_channels))


def attention_unet(num_classes: int, *, published: bool = False) -> Baseline:
    """Attention U-Net with score maps of full size, over layers with biases in place of normalisations. `published` changes nothing."""
    chain = unet_encoder(WIDTHS, _pair)
    return Baseline("attention-unet", chain, AttentionUNet(chain.channels, num_classes), num_classes)


def attention_unet_resnet34(num_classes: int, *, published: bool = False) -> Baseline:
    """Attention U-Net over ResNet34 with score maps at 1/2; its published code enlarges them with pixels' areas in line.

    The published form holds 14,161,092 parameters, with 19 classes, that it never uses: two 3x3 after ResNet34 and one over
    the score maps.
    """
    unused = nn.Sequential(_pair(512, CENTER_CHANNELS), nn.Conv2d(num_classes, num_classes, 3, padding=1)) if published else None
    chain = resnet34(("stem", "stage2", "stage3", "stage4", "stage5"), unused=unused)
    return Baseline("attention-unet-resnet34", chain, AttentionUNet(chain.channels, num_classes), num_classes)
