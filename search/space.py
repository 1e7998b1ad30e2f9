"""The ten expansion operations (paper Table 1) and the bounds of the space. Pure values, no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lpsnet.architecture import Architecture
from lpsnet.errors import UserError

SCALE_SLOTS = 3
"""Paths the scale operations can reach: the third opens or scales the third largest."""


@dataclass(frozen=True)
class Operation:
    """One expansion: what one unit of it adds.

    Args:
        name: dimension and first stage or path it acts on, for example `depth-2` or `scale-1`.
        dimension: "depth", "width" or "scale".
        unit: added to B, C or to R in eighths (largest scale first).
    """

    name: str
    dimension: str
    unit: tuple[int, ...]


OPERATIONS = (
    Operation("depth-2", "depth", (0, 1, 1, 1, 1)),
    Operation("depth-3", "depth", (0, 0, 1, 1, 1)),
    Operation("depth-4", "depth", (0, 0, 0, 1, 1)),
    Operation("width-1", "width", (4, 8, 16, 32, 32)),
    Operation("width-2", "width", (0, 8, 16, 32, 32)),
    Operation("width-3", "width", (0, 0, 16, 32, 32)),
    Operation("width-4", "width", (0, 0, 0, 32, 32)),
    Operation("scale-1", "scale", (1, 0, 0)),
    Operation("scale-2", "scale", (0, 1, 0)),
    Operation("scale-3", "scale", (0, 0, 1)),
)
"""Table 1, in its order."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What no network of the search may exceed.

    Args:
        max_scale: of a path, as a multiple of the input size; a whole number of eighths.
        max_width: channels of a stage.
        max_depth: blocks of a stage.
        max_paths: number of paths.
    """

    max_scale: float = 2.0
    max_width: int = 1024
    max_depth: int = 64
    max_paths: int = SCALE_SLOTS

    def __post_init__(self) -> None:
        if not self.max_scale * 8 >= 1 or self.max_scale * 8 != int(self.max_scale * 8):
            raise UserError(f"max_scale must be a whole number of eighths above 0, such as 1.5 or 2, got {self.max_scale}")
        if min(self.max_width, self.max_depth, self.max_paths) < 1:
            raise UserError(f"bounds must be at least 1, got width {self.max_width}, depth {self.max_depth}, paths {self.max_paths}")

    def allow(self, architecture: Architecture) -> bool:
        """Whether a network lies inside."""
        return (
            architecture.scales[0] <= self.max_scale * 8
            and max(architecture.widths) <= self.max_width
            and max(architecture.depths) <= self.max_depth
            and architecture.num_paths <= self.max_paths
        )


def expansion(architecture: Architecture, operation: Operation, k: int) -> Architecture:
    """The network after `k` units of an operation, N + k d (section 3.4).

    Scales are taken from large to small with absent paths as 0, so the second and third slot may open a path; paths
    beyond the third stay as they are.
    """
    assert k >= 1
    if operation.dimension == "depth":
        return dataclasses.replace(architecture, depths=_added(architecture.depths, operation.unit, k))
    if operation.dimension == "width":
        return dataclasses.replace(architecture, widths=_added(architecture.widths, operation.unit, k))
    slots = architecture.scales[:SCALE_SLOTS] + (0,) * (SCALE_SLOTS - architecture.num_paths)
    return dataclasses.replace(architecture, scales=_added(slots, operation.unit, k) + architecture.scales[SCALE_SLOTS:])


def _added(values: tuple[int, ...], unit: tuple[int, ...], k: int) -> tuple[int, ...]:
    return tuple(value + k * step for value, step in zip(values, unit, strict=True))
