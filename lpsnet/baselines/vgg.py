"""VGG16 (arXiv 1409.1556) as an encoder, in the three forms RTSeg gives it."""

from __future__ import annotations

from torch import nn

from lpsnet.baselines.seam import Chain, Link

GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of 3x3 convolutions before each pooling."""

FC_CHANNELS = 4096
"""Channels of the fully connected layers, which RTSeg makes convolutions."""

FRONTEND_CHANNELS = 1024
"""Likewise in the dilated form."""


def vgg16(taps: tuple[str, ...]) -> Chain:
    """The 13 convolutions `conv1_1` to `conv5_3` and the poolings `pool1` (1/2) to `pool5` (1/32)."""
    return Chain(_groups(len(GROUPS)), taps)


def vgg16_fc(taps: tuple[str, ...]) -> Chain:
    """`vgg16` with the fully connected layers as convolutions at 1/32: `fc6` 7x7 and `fc7` 1x1, of 4096 channels."""
    links = _groups(len(GROUPS))
    links.append(Link("fc6", _fc(links[-1].channels, FC_CHANNELS, 7), FC_CHANNELS))
    links.append(Link("fc7", _fc(FC_CHANNELS, FC_CHANNELS, 1), FC_CHANNELS))
    return Chain(links, taps)


def vgg16_dilated() -> Chain:
    """The frontend of "Multi-scale context aggregation" (arXiv 1511.07122): 1024 channels at 1/8.

    The last two poolings are left out; `conv5` has rate 2 and the 7x7 `fc6` rate 4 instead.
    """
    links = _groups(3)
    channels = links[-1].channels
    for group, rate in ((4, 1), (5, 2)):
        links += _convs(group, channels, *GROUPS[group - 1], rate)
        channels = links[-1].channels
    links.append(Link("fc6", _fc(channels, FRONTEND_CHANNELS, 7, 4), FRONTEND_CHANNELS))
    links.append(Link("fc7", _fc(FRONTEND_CHANNELS, FRONTEND_CHANNELS, 1), FRONTEND_CHANNELS))
    return Chain(links, ("fc7",))


def _groups(count: int) -> list[Link]:
    """The first groups, each with its pooling."""
    links: list[Link] = []
    channels = 3
    for group, (width, depth) in enumerate(GROUPS[:count], 1):
        links += _convs(group, channels, width, depth)
        links.append(Link(f"pool{group}", nn.MaxPool2d(2, ceil_mode=True), width, 2))
        channels = width
    return links


def _convs(group: int, channels: int, width: int, depth: int, rate: int = 1) -> list[Link]:
    before = [channels] + [width] * (depth - 1)
    return [Link(f"conv{group}_{number}", conv_relu(before[number - 1], width, 3, rate), width) for number in range(1, depth + 1)]


def _fc(in_channels: int, out_channels: int, kernel: int, rate: int = 1) -> nn.Sequential:
    return nn.Sequential(conv_relu(in_channels, out_channels, kernel, rate), nn.Dropout(0.5))


def conv_relu(in_channels: int, out_channels: int, kernel: int = 3, rate: int = 1) -> nn.Sequential:
    """Biased convolution with "same" padding and ReLU; it keeps the variance of its input, as no normalisation will do it."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, 1, kernel // 2 * rate, rate)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.ReLU(inplace=True))
