"""What the comparison networks are made of: convolutions, plain and transposed, with normalisation and activation, and their folded form.

Every batch normalisation of a comparison network stands in a `ConvNorm` or a `DeconvNorm`, so that one pass folds them all.
Does not cover the blocks an LPS-Net path is made of (`lpsnet/blocks.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from lpsnet.reparam import fold_in_place

ACTIVATIONS: MappingProxyType[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "leaky": partial(nn.LeakyReLU, 0.1),
        "silu": nn.SiLU,
        "hardswish": nn.Hardswish,
    }
)
"""Activation by name; each takes `inplace`."""


TF_EPS = 1e-3
"""Of the normalisations of networks that were published in TensorFlow."""


class _Normalised(nn.Module):
    """A convolution of either kind with its normalisation and activation."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    norm: nn.Module
    act: nn.Module

    def _follow(self, channels: int, act: str | None, eps: float) -> None:
        """Add what follows the convolution."""
        self.norm = nn.BatchNorm2d(channels, eps)
        self.act = ACTIVATIONS[act](inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.act(self.norm(self.conv(x)))
        return found

    def fold(self) -> None:
        """Fold the normalisation, as it is in eval mode, into the convolution, in place; nothing where that was done before."""
        norm: nn.BatchNorm2d = self.norm  # type: ignore[assignment]
        if isinstance(norm, nn.Identity):
            return
        fold_in_place(self.conv, norm)
        self.norm = nn.Identity()


class ConvNorm(_Normalised):
    """Convolution with "same" padding, batch normalisation, activation: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel, odd.
        stride: of the convolution.
        groups: of the convolution; `in_channels` for a depthwise one.
        dilation: rate of the kernel.
        bias: whether the convolution has a bias in training form, which counts as parameters in some publications.
        act: a name of `ACTIVATIONS`, or none.
        eps: of the normalisation.
        padding: in pixels a side, for a published network whose padding is not "same".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int | tuple[int, int] = 1,
        bias: bool = False,
        act: str | None = "relu",
        eps: float = 1e-5,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        rates = (dilation, dilation) if isinstance(dilation, int) else dilation
        around = (kernel // 2 * rates[0], kernel // 2 * rates[1]) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, around, rates, groups, bias)
        self._follow(out_channels, act, eps)


class DeconvNorm(_Normalised):
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
        super().__init__()
        self.conv = deconv(in_channels, out_channels, kernel, stride, bias=bias)
        self._follow(out_channels, act, eps)


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


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) without the rows and columns beyond `size`; the tensor itself where there are none.

    A strided layer rounds sizes up, so a transposed one gives up to `stride - 1` pixels too many, at the lower and the right edge.
    """
    if x.shape[-2] <= size[0] and x.shape[-1] <= size[1]:
        return x
    return x[..., : size[0], : size[1]]


def add(x: Tensor, skip: Tensor) -> Tensor:
    """The sum of enlarged features (N, C, H', W'), cropped, and a skip connection (N, C, H, W) that is no larger."""
    return crop(x, (skip.shape[-2], skip.shape[-1])) + skip


def fold(network: nn.Module) -> None:
    """Fold every normalisation of a network in place."""
    for module in network.modules():
        if isinstance(module, _Normalised):
            module.fold()
    left = [name for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert not left, f"no ConvNorm or DeconvNorm holds the normalisations {', '.join(left)}"
