"""BowlNet as "Segmentation can be light" adapts it; the original (IEEE 10824509) was not available to compare it with."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from lpsnet.baselines.layers import crop, deconv, resize_pixels, size_of
from lpsnet.baselines.seam import Baseline, Chain, Link
from lpsnet.reparam import ConvNorm

WIDTHS = (32, 64, 128, 256)
"""Channels of the features at 1/2, 1/4, 1/8 and 1/16."""

BOTTOM_CHANNELS = 512
"""Of the last feature, at 1/16, too."""

DROPOUT = 0.2


def bowlnet_encoder() -> Chain:
    """`half1` (1/2) to `half4` (1/16), a 3x3 and a pooling each, and `bottom`, a 3x3."""
    links = []
    for number, (before, after) in enumerate(pairwise((3, *WIDTHS)), 1):
        # The published poolings round down; that differs at sizes that are no multiple of 16 only.
        layers = nn.Sequential(ConvNorm(before, after), nn.MaxPool2d(2, ceil_mode=True), nn.Dropout(DROPOUT))
        links.append(Link(f"half{number}", layers, after, 2))
    links.append(Link("bottom", ConvNorm(WIDTHS[-1], BOTTOM_CHANNELS, bias=True), BOTTOM_CHANNELS))
    return Chain(links, [link.name for link in links])


class Rise(nn.Module):
    """Features and a skip connection, which is as large, both enlarged by two and added, then a 3x3.

    (N, in, h, w) and (N, out, h, w) to (N, out, 2h, 2w).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.enlarge = deconv(in_channels, out_channels, 2, 2)
        self.mix = nn.Sequential(ConvNorm(out_channels, out_channels), nn.Dropout(DROPOUT))

    def forward(self, x: Tensor, skip: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, in, h, w) and (N, out, h, w) to (N, out, *size), cropped to a size of up to (2h, 2w)."""
        enlarged = self.enlarge(x)
        found: Tensor = self.mix(crop(enlarged + resize_pixels(skip, size_of(enlarged)), size))
        return found


class BowlDecoder(nn.Module):
    """The decoder, whose skip connections come from one size below.

    Args:
        channels: of the encoder's features; the last two have the same size.
        num_classes: of the score maps.
        softmax: whether to give probabilities in place of scores.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int, *, softmax: bool) -> None:
        super().__init__()
        self.rises = nn.ModuleList(Rise(below, width) for below, width in pairwise(reversed(channels)))
        self.score = nn.Conv2d(channels[0], num_classes, 1)
        self.end = nn.Softmax(1) if softmax else nn.Identity()

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, 2h, 2w) of features of which the largest is (N, C, h, w)."""
        *skips, x = features
        full = (2 * skips[0].shape[-2], 2 * skips[0].shape[-1])
        sizes = [*(size_of(skip) for skip in reversed(skips[:-1])), full]
        for rise, skip, size in zip(self.rises, reversed(skips), sizes, strict=True):
            x = rise(x, skip, size)
        scores: Tensor = self.end(self.score(x))
        return scores


def bowlnet(num_classes: int, *, published: bool = False) -> Baseline:
    """BowlNet with score maps of full size.

    The published form ends in a softmax and is trained with a loss that takes another one, which may be why it scores
    little; here its logits are given, and with `published` its probabilities.
    """
    chain = bowlnet_encoder()
    return Baseline("bowlnet", chain, BowlDecoder(chain.channels, num_classes, softmax=published), num_classes)
