"""The network of the fact sheet, section 1.1, stated a second time: plain functions on a table of weights, no modules.

Nothing here comes from `lpsnet`; the tests hold the package against it. The table has the authors' key layout.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]

STAGE_STRIDES = (2, 2, 2, 2, 1)


def prefixes(paths: int) -> list[str]:
    """How the authors' files call each path, by number of paths."""
    return {1: ["net"], 2: ["netH", "netL"]}.get(paths) or [f"net{number}" for number in range(1, paths + 1)]


def random_weights(depths: tuple[int, ...], widths: tuple[int, ...], paths: int, classes: int, seed: int = 0) -> Weights:
    """Weights of a deployed network under which signal and differences reach the output (He, 2015, and some bias)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weights: Weights = {}
    for prefix in prefixes(paths):
        channels = 3
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for block in range(depth):
                key = f"{prefix}.stages.{stage}.{block}.0"
                weights[f"{key}.weight"] = normal(width, channels, 3, 3) * math.sqrt(2 / (9 * channels))
                weights[f"{key}.bias"] = 0.1 * normal(width)
                channels = width
    joined = paths * widths[-1]
    weights["head.weight"] = normal(classes, joined, 1, 1) / math.sqrt(joined * paths)
    weights["head.bias"] = normal(classes)
    return weights


def bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize with aligned corners as two matrix products: corner pixels keep their place, the rest is linear."""
    return _interpolation(x.shape[-2], height) @ x @ _interpolation(x.shape[-1], width).T


@functools.cache
def _interpolation(before: int, after: int) -> Tensor:
    """(after, before) matrix whose rows mix the two neighbours of each new pixel."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for new in range(after):
        place = new * (before - 1) / (after - 1) if after > 1 else 0.0
        low = min(int(place), before - 1)
        high = min(low + 1, before - 1)
        matrix[new, low] += 1 - (place - low)
        matrix[new, high] += place - low
    return matrix.float()


def scores(weights: Weights, depths: tuple[int, ...], ratios: tuple[float, ...], images: Tensor, *, interact: bool = True) -> Tensor:
    """Score maps (N, classes, h, w); `ratios` are those of the paths, largest first."""
    height, width = images.shape[-2:]
    maps = [bilinear(images, int(height * ratio), int(width * ratio)) for ratio in ratios]
    for stage, depth in enumerate(depths):
        for index, prefix in enumerate(prefixes(len(ratios))):
            for block in range(depth):
                key = f"{prefix}.stages.{stage}.{block}.0"
                stride = STAGE_STRIDES[stage] if block == 0 else 1
                maps[index] = F.conv2d(maps[index], weights[f"{key}.weight"], weights[f"{key}.bias"], stride, 1).clamp(min=0)
        if stage in (2, 3) and interact:  # after the third and the fourth
            maps = [sum(bilinear(other, *own.shape[-2:]) for other in maps) for own in maps]
    joined = torch.cat([bilinear(x, *maps[0].shape[-2:]) for x in maps], 1)
    return F.conv2d(joined, weights["head.weight"], weights["head.bias"])


def as_network_state(weights: Weights, paths: int) -> Weights:
    """The same table under the names of a deployed `LPSNet`."""
    state = {}
    for key, value in weights.items():
        first, _, rest = key.partition(".")
        state[key if first == "head" else f"paths.{prefixes(paths).index(first)}.{rest}"] = value
    return state
