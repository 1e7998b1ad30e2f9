"""What a part of a network costs, in whole numbers that add up to those of the network.

Blocks and interactions state their cost beside their forward as sums of these, without building anything; `complexity.py`
sums those of a network and counts built ones. What counts as a multiply-add: `docs/glossary.md`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Cost of a part of a network, for one image.

    Args:
        trained: parameters in training form, without re-parameterisation branches.
        deployed: parameters in deployed form.
        macs: multiply-adds of convolutions, the same in both forms.
        bias_adds: sums with a bias in deployed form, one an element that a convolution gives. The FLOPs of the paper's
            Tables 2 and 3 are `macs + bias_adds`.
    """

    trained: int = 0
    deployed: int = 0
    macs: int = 0
    bias_adds: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.trained + other.trained, self.deployed + other.deployed, self.macs + other.macs, self.bias_adds + other.bias_adds)

    def __mul__(self, count: int) -> Cost:
        return Cost(count * self.trained, count * self.deployed, count * self.macs, count * self.bias_adds)


def strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The (height, width) that a stride leaves of `size` under "same" padding."""
    return -(-size[0] // stride), -(-size[1] // stride)


def conv_cost(
    in_channels: int, out_channels: int, kernel: int, size: tuple[int, int], *, stride: int = 1, groups: int = 1, norm: bool = True
) -> Cost:
    """Cost of a square convolution with "same" padding on an input of `size` (height, width).

    With `norm` it is followed by batch normalisation and has a bias in deployed form only, without it in both forms.
    """
    height, width = strided(size, stride)
    weights = out_channels * in_channels // groups * kernel**2
    return Cost(
        trained=weights + (2 if norm else 1) * out_channels,
        deployed=weights + out_channels,
        macs=weights * height * width,
        bias_adds=out_channels * height * width,
    )
