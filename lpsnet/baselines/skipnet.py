"""The decoder SkipNet of RTSeg (arXiv 1803.02758): FCN8s (arXiv 1411.4038), which adds score maps."""

from __future__ import annotations

from torch import Tensor, nn

from lpsnet.baselines.layers import TF_EPS, DeconvNorm, add, deconv
from lpsnet.reparam import ConvNorm


class SkipNet(nn.Module):
    """Score maps at 1/32 twice enlarged by two, each time with those of a larger feature added, then by eight.

    Args:
        channels: of the encoder's features at 1/8, 1/16 and 1/32.
        num_classes: of the score maps.
        norm: whether there is a normalisation after the first two enlargements and the score maps added to them.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int, *, norm: bool) -> None:
        super().__init__()
        eighth, sixteenth, last = channels
        self.last = nn.Conv2d(last, num_classes, 1)
        self.taps = nn.ModuleList(score(width, num_classes, norm) for width in (sixteenth, eighth))
        self.enlarge = nn.ModuleList(_double(num_classes, norm) for _ in range(2))
        self.full = deconv(num_classes, num_classes, 16, 8)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, 8h, 8w) of features of which the largest is (N, C, h, w)."""
        scores = self.last(features[-1])
        for enlarge, tap, feature in zip(self.enlarge, self.taps, reversed(features[:-1]), strict=True):
            scores = add(enlarge(scores), tap(feature))
        full: Tensor = self.full(scores)
        return full


def score(channels: int, num_classes: int, norm: bool) -> nn.Module:
    """A 1x1 convolution to score maps, with a normalisation after it or without: (N, channels, h, w) to (N, num_classes, h, w)."""
    return ConvNorm(channels, num_classes, 1, bias=True, act=None, eps=TF_EPS) if norm else nn.Conv2d(channels, num_classes, 1)


def _double(num_classes: int, norm: bool) -> nn.Module:
    return DeconvNorm(num_classes, num_classes, bias=True, act=None, eps=TF_EPS) if norm else deconv(num_classes, num_classes, 4, 2)
