"""Small DeepLabs (arXiv 1902.07476): ShuffleNetV2 and MobileNetV2 at 1/16 with the basic DeepLabV3 head or the DPC head.

Input is normalised here as for every network of this package; the published ones take -1 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lpsnet.baselines.layers import TF_EPS
from lpsnet.baselines.mobilenet import mobilenet_v2
from lpsnet.baselines.seam import Baseline
from lpsnet.baselines.shufflenet import shufflenet_v2
from lpsnet.reparam import ConvNorm

WIDTH = 256
"""Channels of every branch of a head."""


class BasicHead(nn.Module):
    """DeepLabV3 (arXiv 1706.05587) without atrous branches: (N, channels, h, w) to (N, num_classes, h, w)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.mean = ConvNorm(channels, WIDTH, 1)
        self.point = ConvNorm(channels, WIDTH, 1)
        self.head = nn.Sequential(ConvNorm(2 * WIDTH, WIDTH, 1), nn.Dropout(0.1), nn.Conv2d(WIDTH, num_classes, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, h, w) of one feature (N, C, h, w)."""
        x = features[-1]
        mean = self.mean(x.mean((-2, -1), keepdim=True)).expand(-1, -1, x.shape[-2], x.shape[-1])
        scores: Tensor = self.head(torch.cat([mean, self.point(x)], 1))
        return scores


class DpcHead(nn.Module):
    """The cell of dense prediction that a search found (DPC, arXiv 1809.04184): (N, channels, h, w) to (N, num_classes, h, w).

    Five separable convolutions of unequal rates (vertical, horizontal) at 1/16. The first takes the feature, the second,
    fourth and fifth the first's output, the third the second's; all are joined.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.first = _separable(channels, (1, 6))
        self.wide = _separable(WIDTH, (18, 15))
        self.deep = _separable(WIDTH, (6, 3))
        self.near = _separable(WIDTH, (1, 1))
        self.far = _separable(WIDTH, (6, 21))
        self.head = nn.Sequential(nn.Dropout(0.1), ConvNorm(5 * WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, num_classes, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, h, w) of one feature (N, C, h, w)."""
        first = self.first(features[-1])
        wide = self.wide(first)
        scores: Tensor = self.head(torch.cat([first, wide, self.deep(wide), self.near(first), self.far(first)], 1))
        return scores


def _separable(channels: int, rates: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(ConvNorm(channels, channels, 3, groups=channels, dilation=rates), ConvNorm(channels, WIDTH, 1))


def deeplab(encoder: str, head: str, num_classes: int, *, published: bool = False) -> Baseline:
    """ "shufflenetv2" or "mobilenetv2" with the head "basic" or "dpc".

    The paper has rate 2 in the last stage of ShuffleNetV2; its code and weights have rate 1, as with `published`.
    """
    chain = (
        shufflenet_v2(("stage4",), rate=1 if published else 2)
        if encoder == "shufflenetv2"
        else mobilenet_v2(("stage7",), output_stride=16, eps=TF_EPS)
    )
    decoder = {"basic": BasicHead, "dpc": DpcHead}[head](chain.channels[-1], num_classes)
    return Baseline(f"{encoder}-{head}", chain, decoder, num_classes)
