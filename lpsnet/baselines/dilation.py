"""The decoder of RTSeg's dilated networks (arXiv 1803.02758): all the context is in the encoder."""

from __future__ import annotations

from torch import Tensor, nn

from lpsnet.baselines.layers import deconv
from lpsnet.baselines.skipnet import score


class Frontend(nn.Module):
    """Score maps at 1/8, enlarged by eight.

    Args:
        channels: of the encoder's feature.
        num_classes: of the score maps.
        norm: whether there is a normalisation after the score maps at 1/8.
    """

    def __init__(self, channels: int, num_classes: int, *, norm: bool) -> None:
        super().__init__()
        self.score = score(channels, num_classes, norm)
        self.full = deconv(num_classes, num_classes, 16, 8)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, 8h, 8w) of one feature (N, C, h, w)."""
        full: Tensor = self.full(self.score(features[-1]))
        return full
