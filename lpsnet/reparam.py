"""The re-parameterised 3x3 convolution (RepVGG, arXiv 2101.03697): branches while training, one plain convolution after.

Covers the folding of batch normalisation and of parallel branches into a biased convolution, and the unit that most blocks and
interactions and the comparison networks are made of. Does not cover which block a network is made of (`blocks.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.cost import Cost, conv_cost


def fold_batch_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold an evaluated batch normalisation into the convolution in front of it.

    Args:
        weight: the convolution's kernel, (out, in / groups, kh, kw); the convolution has no bias.
        norm: the normalisation of its `out` channels, with running statistics.

    Returns:
        Kernel of the same shape and bias (out,), in double precision so that sums of branches stay exact.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.detach().double() - norm.running_mean.double() * gain
    return weight.detach().double() * gain.reshape(-1, 1, 1, 1), bias


def fold_in_place(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    """Make a convolution of either kind, biased or not, compute what it and its evaluated batch normalisation do together."""
    if conv.bias is not None:  # in front of a normalisation it is a shift of the mean
        assert norm.running_mean is not None
        norm.running_mean -= conv.bias.detach()
    across = isinstance(conv, nn.ConvTranspose2d)  # its kernel is (in, out, kh, kw)
    weight, bias = fold_batch_norm(conv.weight.transpose(0, 1) if across else conv.weight, norm)
    conv.weight = nn.Parameter((weight.transpose(0, 1) if across else weight).to(conv.weight.dtype).contiguous())
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype))


def plain_conv(weight: Tensor, bias: Tensor, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A biased convolution with "same" padding that holds the given kernel (out, in / groups, k, k) and bias (out,)."""
    out_channels, in_channels, kernel, _ = weight.shape
    conv = nn.Conv2d(in_channels * groups, out_channels, kernel, stride, kernel // 2, groups=groups, device=weight.device)
    with torch.no_grad():
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)
    return conv


ACTIVATIONS: MappingProxyType[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "leaky": partial(nn.LeakyReLU, 0.1),
        "silu": nn.SiLU,
        "hardswish": nn.Hardswish,
        "sigmoid": lambda inplace: nn.Sigmoid(),
    }
)
"""Activation by name; each takes `inplace`."""


class FoldableConv(nn.Module):
    """A convolution of either kind with its batch normalisation, none in deployed form, and its activation, none where there is none.

    Args:
        conv: the convolution.
        act: a name of `ACTIVATIONS`, or none.
        eps: of the normalisation.
        deployed: build the deployed form, for which `conv` must have a bias.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, act: str | None, eps: float = 1e-5, *, deployed: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.norm = None if deployed else nn.BatchNorm2d(conv.out_channels, eps)
        self.act = ACTIVATIONS[act](inplace=True) if act else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to the shape the convolution gives."""
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.act is None else self.act(x)

    def fold(self) -> None:
        """Turn into the deployed form as eval mode has it, in place; nothing where it has that form."""
        if self.norm is not None:
            fold_in_place(self.conv, self.norm)
            self.norm = None


class ConvNorm(FoldableConv):
    """A square convolution with "same" padding, batch normalisation, activation; deployed, one biased convolution and the activation.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel, odd.
        stride: of the convolution.
        groups: of the convolution; `in_channels` for a depthwise one.
        dilation: rate of the kernel, or (vertical, horizontal) rates.
        bias: whether the convolution has a bias in training form, which counts as parameters in some publications.
        act: a name of `ACTIVATIONS`, or none.
        eps: of the normalisation.
        padding: in pixels a side, for a published network whose padding is not "same".
        deployed: build the deployed form.
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
        deployed: bool = False,
    ) -> None:
        rates = (dilation, dilation) if isinstance(dilation, int) else dilation
        around = (kernel // 2 * rates[0], kernel // 2 * rates[1]) if padding is None else (padding, padding)
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, around, rates, groups, bias or deployed)
        super().__init__(conv, act, eps, deployed=deployed)


def fold(network: nn.Module) -> None:
    """Fold every batch normalisation of a network, each of which stands in a `FoldableConv`, in place."""
    for part in network.modules():
        if isinstance(part, FoldableConv):
            part.fold()
    left = [name for name, part in network.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert not left, f"no ConvNorm or DeconvNorm holds the normalisations {', '.join(left)}"


class Foldable(nn.Module):
    """A module that `fold` brings into deployed form, so that both forms share one forward."""

    def deploy(self) -> Self:
        """The same function in eval mode without batch normalisation; this module stays untouched."""
        twin = copy.deepcopy(self)
        fold(twin)
        return twin


class RepConv(nn.Module):
    """3x3 convolution, batch normalisation, ReLU; with parallel branches while training (RepVGG section 3.2).

    The sum before the ReLU is 3x3+BN, and with `branches` also 1x1+BN, and identity+BN where input and output have
    the same shape. `deploy` folds the sum to one biased 3x3 convolution.

    Args:
        in_channels: channels of the input (N, in_channels, H, W).
        out_channels: channels of the output (N, out_channels, ceil(H / stride), ceil(W / stride)).
        stride: 1 or 2.
        branches: whether to train with the extra branches.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.point_conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if branches else None
        self.point_norm = nn.BatchNorm2d(out_channels) if branches else None
        has_identity = branches and stride == 1 and in_channels == out_channels
        self.identity_norm = nn.BatchNorm2d(out_channels) if has_identity else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        total = self.norm(self.conv(x))
        if self.point_conv is not None and self.point_norm is not None:
            total = total + self.point_norm(self.point_conv(x))
        if self.identity_norm is not None:
            total = total + self.identity_norm(x)
        return F.relu(total, inplace=True)

    @staticmethod
    def cost(in_channels: int, out_channels: int, stride: int, size: tuple[int, int]) -> Cost:
        """Cost on an input of `size` (height, width)."""
        return conv_cost(in_channels, out_channels, 3, size, stride=stride)

    def scale_branches(self, gain: float) -> None:
        """Start the 3x3 and 1x1 branches at `gain` times their usual strength beside an identity branch.

        `network.Path` passes one over the root of the number of such blocks, as is usual for residual branches: the deeper
        a path, the more of its signal is carried by the identity at first.
        """
        if self.identity_norm is not None:
            for norm in (self.norm, self.point_norm):
                assert norm is not None
                nn.init.constant_(norm.weight, gain)

    def fold(self) -> tuple[Tensor, Tensor]:
        """The 3x3 kernel (out, in, 3, 3) and bias (out,) that compute the same sum in eval mode, in double precision."""
        kernel, bias = fold_batch_norm(self.conv.weight, self.norm)
        if self.point_conv is not None and self.point_norm is not None:
            point_kernel, point_bias = fold_batch_norm(self.point_conv.weight, self.point_norm)
            kernel = kernel + F.pad(point_kernel, (1, 1, 1, 1))
            bias = bias + point_bias
        if self.identity_norm is not None:
            channels = kernel.shape[0]
            eye = torch.eye(channels, dtype=kernel.dtype, device=kernel.device).reshape(channels, channels, 1, 1)
            identity_kernel, identity_bias = fold_batch_norm(eye, self.identity_norm)
            kernel = kernel + F.pad(identity_kernel, (1, 1, 1, 1))
            bias = bias + identity_bias
        return kernel, bias

    def deploy(self) -> nn.Sequential:
        """The same function in eval mode as one biased 3x3 convolution and a ReLU; this module stays untouched."""
        kernel, bias = self.fold()
        return nn.Sequential(plain_conv(kernel, bias, stride=self.stride), nn.ReLU(inplace=True))


def start_as_identity(network: nn.Module) -> None:
    """Start every block of a network that has an identity branch as that alone, in place; the others' scales are 0 and learn from there."""
    for module in network.modules():
        if isinstance(module, RepConv):
            module.scale_branches(0.0)
