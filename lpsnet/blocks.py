"""The convolutional blocks a path can be made of (paper Table 2), one read-only table.

A block maps (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)) and offers `deploy()`, the same function
in eval mode without batch normalisation. Which block a network uses is part of its `Architecture`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from lpsnet.architecture import BLOCK_NAMES
from lpsnet.reparam import RepConv, fold_batch_norm, plain_conv


class SepConv(nn.Module):
    """Depthwise 3x3, BN, ReLU, then pointwise 1x1, BN, ReLU (paper Table 2, "3x3 SepConv"; the branches do not apply)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        x = nn.functional.relu(self.depthwise_norm(self.depthwise(x)), inplace=True)
        return nn.functional.relu(self.pointwise_norm(self.pointwise(x)), inplace=True)

    def deploy(self) -> nn.Sequential:
        """The same function in eval mode as two biased convolutions with ReLU."""
        depthwise = fold_batch_norm(self.depthwise.weight, self.depthwise_norm)
        pointwise = fold_batch_norm(self.pointwise.weight, self.pointwise_norm)
        return nn.Sequential(
            plain_conv(*depthwise, stride=self.stride, groups=self.depthwise.groups),
            nn.ReLU(inplace=True),
            plain_conv(*pointwise),
            nn.ReLU(inplace=True),
        )


class Block(Protocol):
    """What a block offers besides being a module."""

    def deploy(self) -> nn.Sequential:
        """The same function in eval mode without batch normalisation."""
        ...


class MakeBlock(Protocol):
    """How a block is made: channels in, channels out, stride, and whether it trains with parallel branches."""

    def __call__(self, in_channels: int, out_channels: int, stride: int = 1, *, branches: bool = True) -> nn.Module: ...


BLOCKS: MappingProxyType[str, MakeBlock] = MappingProxyType({"conv3x3": RepConv, "sepconv3x3": SepConv})
"""Block by the name used in an architecture's text."""

assert tuple(BLOCKS) == BLOCK_NAMES

PLAIN: MappingProxyType[str, Callable[[int, int, int], nn.Sequential]] = MappingProxyType(
    {
        "conv3x3": lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.ReLU(inplace=True)),
        "sepconv3x3": lambda i, o, s: nn.Sequential(
            nn.Conv2d(i, i, 3, s, 1, groups=i), nn.ReLU(inplace=True), nn.Conv2d(i, o, 1), nn.ReLU(inplace=True)
        ),
    }
)
"""The deployed form of each block, built without a training form in front of it (for loading deployed weights)."""
