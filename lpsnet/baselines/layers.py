"""What the comparison networks are made of beside `ConvNorm` (`lpsnet/reparam.py`): transposed and separable convolutions, sizes.

Every batch normalisation of a comparison network stands in a `ConvNorm` or a `DeconvNorm`, so that one pass folds them all.
Does not cover the blocks an LPS-Net path is made of (`lpsnet/blocks.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.reparam import ConvNorm, FoldableConv

TF_EPS = 1e-3
"""Of the normalisations of networks that were published in TensorFlow."""


class DeconvNorm(FoldableConv):
    """Transposed convolution as `deconv` makes it, batch normalisation, activation: (N, in, H, W) to (N, out, H * stride, W * stride).

    Args: as of `ConvNorm`; the kernel may be even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 4,
        stride: int = 2,
        *,
        bias: bool = False,
        act: str | None = "relu",
        eps: float = 1e-5,
    ) -> None:
        super().__init__(deconv(in_channels, out_channels, kernel, stride, bias=bias), act, eps)


def separable(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, *, rate: int = 1, act: str | None = "relu"
) -> nn.Sequential:
    """Depthwise, then pointwise with one normalisation after both: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
    depthwise = nn.Conv2d(in_channels, in_channels, kernel, stride, kernel // 2 * rate, rate, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, ConvNorm(in_channels, out_channels, 1, act=act))


def deconv(in_channels: int, out_channels: int, kernel: int, stride: int, *, bias: bool = True) -> nn.ConvTranspose2d:
    """A transposed convolution to `stride` times the size, (N, in, H, W) to (N, out, H * stride, W * stride), that begins as bilinear.

    An output channel begins as the enlarged mean of the input channels whose index modulo `out_channels` is its own: of one
    where both are as many. Kernels of fewer pixels than `2 * stride - 1`, which hold no bilinear filter, begin at random.
    """
    excess = kernel - stride
    padding = (excess + 1) // 2
    conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride, padding, 2 * padding - excess, bias=bias)
    if kernel >= 2 * stride - 1:
        nearness = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / stride
        shares = torch.zeros(in_channels, out_channels)
        shares[torch.arange(in_channels), torch.arange(in_channels) % out_channels] = 1.0
        shares /= shares.sum(0).clamp(min=1)
        with torch.no_grad():
            conv.weight.copy_(shares[:, :, None, None] * nearness.clamp(min=0).outer(nearness.clamp(min=0)))
            if conv.bias is not None:
                conv.bias.zero_()
    return conv


def size_of(x: Tensor) -> tuple[int, int]:
    """(height, width) of (N, C, H, W)."""
    return x.shape[-2], x.shape[-1]


def resize_pixels(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (N, C, H, W) to (N, C, *size) that keeps pixels' areas in line, where `resize` keeps the corners' centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) without the rows and columns beyond `size`; the tensor itself where there are none.

    A strided layer rounds sizes up, so a transposed one gives up to `stride - 1` pixels too many, at the lower and the right edge.
    """
    if x.shape[-2] <= size[0] and x.shape[-1] <= size[1]:
        return x
    return x[..., : size[0], : size[1]]


def add(x: Tensor, skip: Tensor) -> Tensor:
    """The sum of enlarged features (N, C, H', W'), cropped, and a skip connection (N, C, H, W) that is no larger."""
    return crop(x, size_of(skip)) + skip
