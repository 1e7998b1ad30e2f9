"""Every network that a name or a text stands for: LPS-Nets and the comparison networks of `baselines`, built and counted alike.

Does not cover weights on disk (`checkpoint.py`).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import prod
from typing import Protocol, Self

import torch
from torch import Tensor

from lpsnet.architecture import EIGHTHS, NAMED, Architecture, ArchitectureError
from lpsnet.baselines import BASELINES, Baseline
from lpsnet.complexity import Complexity, complexity, count_macs, count_parameters
from lpsnet.network import STRIDES, LPSNet
from lpsnet.reparam import fold, start_as_identity

Network = LPSNet | Baseline
"""What is trained, saved and exported."""


class SegmentationNetwork(Protocol):
    """What the tools ask of a network."""

    num_classes: int
    branches: bool
    """Whether it has the branches of re-parameterisation."""

    deployed: bool
    """Whether it is in deployed form."""

    @property
    def name(self) -> str:
        """Text of an LPS-Net's architecture, or name of a comparison network: what `canonical` gives."""
        ...

    def scores(self, images: Tensor) -> Tensor:
        """Score maps (N, num_classes, h, w) at the network's own scale for images (N, 3, H, W)."""
        ...

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W)."""
        ...

    def deploy(self) -> Self:
        """The same function in eval mode in deployed form; this one stays untouched."""
        ...


def canonical(text: Architecture | str) -> str:
    """The name of the network that a text stands for: of a comparison network, in any case of letters, else of an LPS-Net.

    Equal networks have equal names; the name is the key in stores and checkpoints.

    Raises:
        ArchitectureError: the text is neither; the message lists the names there are.
    """
    if isinstance(text, Architecture):
        return str(text)
    folded = text.strip().casefold()
    if folded in BASELINES:
        return folded
    try:
        return str(Architecture.parse(text))
    except ArchitectureError as error:
        raise ArchitectureError(f"{error}; the comparison networks are {', '.join(BASELINES)}") from None


def names() -> tuple[str, ...]:
    """Every network that has a name."""
    return (*NAMED, *BASELINES)


def lps_net(text: str, what: str) -> Architecture:
    """The architecture of a text, for `what` knows LPS-Nets only.

    Raises:
        ArchitectureError: the text describes none, or names a comparison network.
    """
    if (name := text.strip().casefold()) in BASELINES:
        raise ArchitectureError(f"{what} takes LPS-Nets only, such as N0 or LPS-Net-S; {name} is a comparison network")
    return Architecture.parse(text)


def build(
    network: Architecture | str, num_classes: int, *, branches: bool = True, identity_start: bool = False, deployed: bool = False
) -> Network:
    """A network with random weights.

    Args:
        network: an architecture, or a text that `canonical` knows.
        num_classes: channels of the output, at least 1.
        branches: train with the branches of re-parameterisation; comparison networks have none.
        identity_start: start blocks that have an identity branch as that alone; only the usual block has one.
        deployed: build the deployed form.

    Raises:
        ArchitectureError: as `canonical` does.
        ValueError: `num_classes` below 1.
    """
    name = canonical(network)
    if name not in BASELINES:
        plain = LPSNet(name, num_classes, branches=branches, deployed=deployed)
        if identity_start:
            start_as_identity(plain)
        return plain
    made = BASELINES[name](num_classes)
    if deployed:  # in place: a copy as `deploy` makes would hold every weight twice for a while
        fold(made)
        made.deployed = True
    return made


def for_classes(network: Network, num_classes: int) -> tuple[Network, tuple[str, ...]]:
    """The network for another number of classes: every weight that fits is taken over.

    Returns:
        A new network in the same form, and the names of its weights that are new, and random.
    """
    made = build(network.name, num_classes, branches=network.branches, deployed=network.deployed)
    theirs, own = network.state_dict(), made.state_dict()
    fitting = {name: tensor for name, tensor in theirs.items() if own[name].shape == tensor.shape}
    made.load_state_dict({**own, **fitting})
    return made.train(network.training), tuple(name for name in own if name not in fitting)


@cache
def complexity_of(network: str, num_classes: int, size: tuple[int, int]) -> Complexity:
    """Complexity of a network in deployed form, to its scores, for one image of `size` (height, width).

    Raises:
        ArchitectureError: as `canonical` does.
        ValueError: no class, or an image too small for the network.
    """
    name = canonical(network)
    if name not in BASELINES:
        return complexity(name, num_classes, size)
    with torch.device("meta"):
        made = build(name, num_classes, deployed=True).eval()
    try:
        return Complexity(count_parameters(made), count_macs(made, size))
    except RuntimeError as error:  # torch's own, of a layer that has no pixel left
        raise ValueError(f"input {size[0]}x{size[1]} is too small for {name}: {' '.join(str(error).split())}") from error


def least_parameters(network: str, num_classes: int, most_layers: int) -> int | None:
    """Parameters that a network has in any form, without building it; None where it has more than so many layers.

    Raises as `canonical` does.
    """
    name = canonical(network)
    if name in BASELINES:
        return 0  # none of them is large
    architecture = Architecture.parse(name)
    if architecture.num_paths * sum(architecture.depths) > most_layers:
        return None
    return complexity(name, num_classes, (EIGHTHS, EIGHTHS)).parameters


def check_size(network: Network, size: tuple[int, int]) -> None:
    """Raise `UserError` where images of `size` (height, width) leave a path of an LPS-Net without pixels."""
    if isinstance(network, LPSNet):
        network.path_sizes(*size)


def paper_of(network: str) -> tuple[str, str]:
    """Name and arXiv number of the paper that a network is from. Raises as `canonical` does."""
    name = canonical(network)
    return (BASELINES[name].paper.name, BASELINES[name].paper.arxiv) if name in BASELINES else ("LPS-Net", "2207.13600")


def score_scale(network: str) -> Fraction:
    """Extent of the score maps relative to the image's. Raises as `canonical` does."""
    name = canonical(network)
    if name in BASELINES:
        return Fraction(1, BASELINES[name].stride)
    return Fraction(Architecture.parse(name).scales[0], EIGHTHS * prod(STRIDES))
