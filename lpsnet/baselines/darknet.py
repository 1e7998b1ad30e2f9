"""Darknet19 (arXiv 1612.08242) as an encoder, as LiteSeg builds it: its last pooling is left out."""

from __future__ import annotations

from torch import nn

from lpsnet.baselines.seam import Chain, Link
from lpsnet.reparam import ConvNorm

GROUPS = ((32,), (64,), (128, 64, 128), (256, 128, 256), (512, 256, 512, 256, 512), (1024, 512, 1024, 512, 1024))
"""Channels of the convolutions between two poolings, 3x3 and 1x1 in turn."""

PADDED = {("group5", 1), ("group5", 3), ("group6", 1)}
"""The 1x1 convolutions that LiteSeg's code pads by a pixel a side, which the unpadded dilated ones take away again."""


def darknet19(taps: tuple[str, ...], *, published: bool = False) -> Chain:
    """`group1` (1/1) to `group6` (1/16, rate 2), each after a pooling but the first and the last.

    With `published`, three of the 1x1 convolutions are padded and the dilated ones by one pixel only, as LiteSeg's code has
    it: the size comes out right, but maps grow and shrink on the way and their borders hold less of the image. Poolings then
    round sizes down, too.
    """
    links: list[Link] = []
    channels = 3
    for number, widths in enumerate(GROUPS, 1):
        name, pools = f"group{number}", 1 < number < len(GROUPS)
        layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=not published)] if pools else []
        for place, width in enumerate(widths):
            kernel, rate = (1, 1) if place % 2 else (3, 2 if number == len(GROUPS) else 1)
            padding = int(kernel == 3 or (name, place) in PADDED) if published else None
            layers.append(ConvNorm(channels, width, kernel, dilation=rate, act="leaky", padding=padding))
            channels = width
        links.append(Link(name, nn.Sequential(*layers), channels, 2 if pools else 1))
    return Chain(links, taps)
