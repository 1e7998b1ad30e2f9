"""What a network costs on paper: parameters and multiply-adds, counted on the module itself.

Convention: one multiply-add is one MAC, of convolutions and matrix products only (no bias, activation, resize),
which is the convention of the paper's Tables 2 and 3. Papers differ; see `docs/glossary.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lpsnet.architecture import Architecture
from lpsnet.network import LPSNet


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


@cache
def complexity(architecture: Architecture | str, num_classes: int, size: tuple[int, int]) -> Complexity:
    """Complexity of an architecture in deployed form for one image of `size` (height, width); counted once, then remembered."""
    with torch.device("meta"):
        network = LPSNet(architecture, num_classes, deployed=True).eval()
    return Complexity(count_parameters(network), count_macs(network, size))
