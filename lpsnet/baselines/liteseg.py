"""LiteSeg (arXiv 1912.06683): a deeper atrous spatial pyramid and one larger feature, over three encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lpsnet.baselines.darknet import darknet19
from lpsnet.baselines.layers import separable
from lpsnet.baselines.mobilenet import mobilenet_v2
from lpsnet.baselines.seam import Baseline, Chain
from lpsnet.baselines.shufflenet import shufflenet_liteseg
from lpsnet.interactions import like
from lpsnet.reparam import ConvNorm

WIDTH = 96
"""Channels of every branch and of the decoder."""

IMAGENET_CLASSES = 1000


class DeepPyramid(nn.Module):
    """DASPP: (N, channels, h, w) joined with five views of it, of 1x1, of rates 3, 6 and 9, and of its mean, made `WIDTH` channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = separable(channels, WIDTH, 1, act=None)
        self.atrous = nn.ModuleList(
            nn.Sequential(separable(channels, WIDTH, rate=rate, act=None), separable(WIDTH, WIDTH)) for rate in (3, 6, 9)
        )
        self.mean = ConvNorm(channels, WIDTH, 1)
        self.fuse = separable(channels + 5 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) to (N, WIDTH, h, w)."""
        mean = self.mean(x.mean((-2, -1), keepdim=True)).expand(-1, -1, x.shape[-2], x.shape[-1])
        fused: Tensor = self.fuse(torch.cat([x, self.point(x), *(branch(x) for branch in self.atrous), mean], 1))
        return fused


class LiteSeg(nn.Module):
    """The decoder: the pyramid over the last feature, enlarged and joined with a larger feature, then two 3x3 and the score maps.

    Args:
        channels: of the larger and the last feature.
        reduced: channels the larger feature is brought to; 0 to take it as it is.
        num_classes: of the score maps.
    """

    def __init__(self, channels: tuple[int, ...], reduced: int, num_classes: int) -> None:
        super().__init__()
        larger, last = channels
        self.pyramid = DeepPyramid(last)
        self.reduce = separable(larger, reduced, 1) if reduced else nn.Identity()
        self.head = nn.Sequential(separable((reduced or larger) + WIDTH, WIDTH), separable(WIDTH, WIDTH), nn.Conv2d(WIDTH, num_classes, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, h, w) of features of which the larger is (N, C, h, w)."""
        larger, last = features
        scores: Tensor = self.head(torch.cat([like(self.pyramid(last), larger), self.reduce(larger)], 1))
        return scores


def liteseg(encoder: str, num_classes: int, *, published: bool = False) -> Baseline:
    """LiteSeg over "darknet19", "mobilenetv2" or "shufflenet", with score maps at 1/4, 1/4 or 1/8.

    With `published` MobileNetV2 and ShuffleNet hold the classifier of images that they never use, and Darknet19 is padded
    as in the code, see `darknet19`.
    """
    chain: Chain
    if encoder == "darknet19":
        chain, reduced = darknet19(("group3", "group6"), published=published), 32
    elif encoder == "mobilenetv2":
        unused = nn.Linear(1280, IMAGENET_CLASSES) if published else None
        chain, reduced = mobilenet_v2(("stage2", "last"), last=True, unused=unused), 0
    else:
        unused = nn.Linear(1536, IMAGENET_CLASSES) if published else None
        chain, reduced = shufflenet_liteseg(("stage2", "stage4"), unused=unused), 48
    return Baseline(f"liteseg-{encoder}", chain, LiteSeg(chain.channels, reduced, num_classes), num_classes)
