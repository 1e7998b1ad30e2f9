"""What a network costs on paper: parameters and multiply-adds, summed from what its parts state, or counted on a module.

Convention: one multiply-add is one MAC, of convolutions and matrix products only (no bias, activation, resize).
The FLOPs of the paper's Tables 2 and 3 are these and the sums with biases. Papers differ; see `docs/glossary.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lpsnet.architecture import Architecture
from lpsnet.blocks import BLOCKS
from lpsnet.cost import Cost, conv_cost, strided
from lpsnet.interactions import INTERACTIONS
from lpsnet.network import IMAGE_CHANNELS, INTERACT_AFTER, STRIDES, check_classes, path_sizes


@dataclass(frozen=True)
class Complexity:
    """Parameters (trainable numbers) and MACs of one network at one input size."""

    parameters: int
    macs: int


def count_parameters(module: nn.Module) -> int:
    """Number of parameters of `module`; buffers such as running statistics are not parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of one forward pass of `module` for one image of `size` (height, width), without computing it.

    The module is left as it is; it must live on the meta device or be cheap to run once.
    """
    device = next(module.parameters()).device
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(torch.empty(1, 3, *size, device=device))
    return counter.get_total_flops() // 2


def network_cost(architecture: Architecture, num_classes: int, size: tuple[int, int]) -> Cost:
    """Cost of a network for one image of `size` (height, width), without building it: the sum of what its parts state.

    Raises:
        ValueError: no class, or an image too small for one of the paths.
    """
    check_classes(num_classes)
    block, interaction = BLOCKS[architecture.block], INTERACTIONS[architecture.interaction]
    sizes, channels, total = path_sizes(architecture.scales, *size), IMAGE_CHANNELS, Cost()
    for stage, (depth, width, stride) in enumerate(zip(architecture.depths, architecture.widths, STRIDES, strict=True)):
        for number, before in enumerate(sizes):
            sizes[number] = strided(before, stride)
            total += block.cost(channels, width, stride, before) + block.cost(width, width, 1, sizes[number]) * (depth - 1)
        if stage in INTERACT_AFTER:
            total += interaction.cost(width, sizes)
        channels = width
    return total + conv_cost(architecture.num_paths * channels, num_classes, 1, sizes[0], norm=False)


@cache
def complexity(architecture: Architecture | str, num_classes: int, size: tuple[int, int]) -> Complexity:
    """Complexity of an architecture in deployed form for one image of `size` (height, width). Raises as `network_cost` does."""
    cost = network_cost(Architecture.parse(architecture) if isinstance(architecture, str) else architecture, num_classes, size)
    return Complexity(cost.deployed, cost.macs)
