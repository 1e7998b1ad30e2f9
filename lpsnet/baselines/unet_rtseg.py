"""The decoders that RTSeg (arXiv 1803.02758) calls U-Net: one for each encoder; they add skip connections where U-Net joins them."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from lpsnet.baselines.layers import TF_EPS, DeconvNorm, add, deconv
from lpsnet.reparam import ConvNorm


class LinearUNet(nn.Module):
    """For MobileNet and ShuffleNet: 1x1, transposed, skip, 1x1 for each level, normalised, without activations.

    Args:
        channels: of the encoder's features, from the largest, at 1/2, to the smallest.
        first: channels at full size.
        num_classes: of the score maps.
    """

    def __init__(self, channels: tuple[int, ...], first: int, num_classes: int) -> None:
        super().__init__()
        widths = channels[::-1]
        self.narrow = nn.ModuleList(_point(before, after) for before, after in pairwise(widths))
        self.enlarge = nn.ModuleList(_double(width) for width in widths[1:])
        self.mix = nn.ModuleList(_point(width, width) for width in widths[1:])
        self.full = nn.Sequential(_double(widths[-1]), _point(widths[-1], first), nn.Dropout(0.5), nn.Conv2d(first, num_classes, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, 2h, 2w) of features of which the largest is (N, C, h, w)."""
        x = features[-1]
        for narrow, enlarge, mix, skip in zip(self.narrow, self.enlarge, self.mix, reversed(features[:-1]), strict=True):
            x = mix(add(enlarge(narrow(x)), skip))
        full: Tensor = self.full(x)
        return full


def _point(in_channels: int, out_channels: int) -> ConvNorm:
    return ConvNorm(in_channels, out_channels, 1, bias=True, act=None, eps=TF_EPS)


def _double(channels: int) -> DeconvNorm:
    return DeconvNorm(channels, channels, bias=True, act=None, eps=TF_EPS)


class PlainUNet(nn.Module):
    """For VGG16: transposed, skip, two 3x3 for each level, with neither normalisation nor activation.

    Args:
        channels: of the encoder's features, from the largest, at full size, to the smallest.
        num_classes: of the score maps.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        widths = channels[::-1]
        self.enlarge = nn.ModuleList(deconv(before, after, 4, 2) for before, after in pairwise(widths))
        self.mix = nn.ModuleList(nn.Sequential(_linear(width), _linear(width)) for width in widths[1:])
        self.score = nn.Conv2d(widths[-1], num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, H, W) of features of which the largest is (N, C, H, W)."""
        x = features[-1]
        for enlarge, mix, skip in zip(self.enlarge, self.mix, reversed(features[:-1]), strict=True):
            x = mix(add(enlarge(x), skip))
        scores: Tensor = self.score(x)
        return scores


def _linear(channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the variance of its input, as neither a normalisation nor an activation changes it."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class LinkNet(nn.Module):
    """For ResNet18: LinkNet (arXiv 1707.03718), a narrow transposed convolution for each level.

    Args:
        channels: of the encoder's features at 1/4, 1/8, 1/16 and 1/32.
        num_classes: of the score maps.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_narrowed(before, after, 2) for before, after in pairwise(channels[::-1]))
        self.full = nn.Sequential(
            _narrowed(channels[0], channels[0], 1),
            DeconvNorm(channels[0], 32, 3, bias=True),
            ConvNorm(32, 32, bias=True),
            deconv(32, num_classes, 2, 2),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, 4h, 4w) of features of which the largest is (N, C, h, w)."""
        x = features[-1]
        for block, skip in zip(self.blocks, reversed(features[:-1]), strict=True):
            x = add(block(x), skip)
        full: Tensor = self.full(x)
        return full


def _narrowed(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """1x1 to a quarter of the channels, 3x3 transposed, 1x1: (N, in, H, W) to (N, out, H * stride, W * stride)."""
    quarter = in_channels // 4
    return nn.Sequential(
        ConvNorm(in_channels, quarter, 1, bias=True),
        DeconvNorm(quarter, quarter, 3, stride, bias=True),
        ConvNorm(quarter, out_channels, 1, bias=True),
    )
