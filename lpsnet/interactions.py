"""How the paths of a network exchange features after a stage (paper Table 3), one read-only table.

An interaction maps the paths' features, a list of (N, C, H_i, W_i), to a list of the same shapes.
"""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.architecture import INTERACTION_NAMES


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize with aligned corners of (N, C, H, W) to (N, C, *size), up or down; the tensor itself when it fits.

    The released network and its port resize in this way everywhere.
    """
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class NoInteraction(nn.Module):
    """Every path keeps its own features (the baseline of Table 3)."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The features as they came."""
        return features


class BilateralB(nn.Module):
    """Every path adds the resized features of all others (Eq. 2): no weights, no activation."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Each output is its path's input plus the other paths' *inputs*, resized to its size."""
        mixed = []
        for own in features:
            total = own
            for other in features:
                if other is not own:
                    total = total + resize(other, (own.shape[-2], own.shape[-1]))
            mixed.append(total)
        return mixed


INTERACTIONS: MappingProxyType[str, type[nn.Module]] = MappingProxyType({"bilateral-b": BilateralB, "none": NoInteraction})
"""Interaction by the name used in an architecture's text."""

assert tuple(INTERACTIONS) == INTERACTION_NAMES
