"""What the networks of "Segmentation can be light" and AFFormer share beside `layers.py`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.baselines.layers import ConvNorm


def separable(in_channels: int, out_channels: int, stride: int = 1, act: str = "relu") -> nn.Sequential:
    """Depthwise 3x3, then pointwise with one normalisation after both: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, ConvNorm(in_channels, out_channels, 1, act=act))


def resize_pixels(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (N, C, H, W) to (N, C, *size) that keeps pixels' areas in line, where `resize` keeps the corners' centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def size_of(x: Tensor) -> tuple[int, int]:
    """(height, width) of (N, C, H, W)."""
    return x.shape[-2], x.shape[-1]
