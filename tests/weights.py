"""Modules whose normalisations and inputs leave nothing to chance: what the tests of forms and definitions share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lpsnet.architecture import Architecture
from lpsnet.network import LPSNet


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def randomise(module: nn.Module) -> None:
    """Give every normalisation statistics and an affine map that leave nothing to chance, negative gains included."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for norm in norms(module):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))  # type: ignore[union-attr]
            norm.running_var.copy_(0.3 + 2 * torch.rand(norm.num_features, generator=generator))  # type: ignore[union-attr]


def real_valued(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lively(architecture: str | Architecture, frame: Tensor, *, branches: bool = True) -> LPSNet:
    """A network with random affine maps and the frame's own running statistics, so that its scores vary; in eval mode."""
    torch.manual_seed(0)
    network = LPSNet(architecture, 4, branches=branches).train()
    with torch.no_grad():
        for norm in norms(network):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
            norm.momentum = 0.9
        network.scores(frame)
        network.head.weight.normal_(0, 0.5)
    return network.eval()


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Differences are within the tolerance, relative to the largest value where that is above 1."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))
