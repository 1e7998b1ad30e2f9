"""The LPS-Net network: N paths of five stages, interactions after stages 3 and 4, one 1x1 head (paper section 3.2).

Covers building a network from its `Architecture`, its score maps, its full-resolution logits and its deployed form.
Does not cover training, weights on disk or latency.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from lpsnet.architecture import EIGHTHS, Architecture
from lpsnet.blocks import BLOCKS, Block, plain_block
from lpsnet.errors import UserError
from lpsnet.interactions import INTERACTIONS, Interaction, resize
from lpsnet.reparam import RepConv

STRIDES = (2, 2, 2, 2, 1)
"""Stride of the first block of each stage; every further block has stride 1."""

OUTPUT_STRIDE = prod(STRIDES)
"""By how much a path's output is smaller than its input."""

INTERACT_AFTER = (2, 3)
"""Stages (counted from 0) whose outputs interact; after the last stage the paths are joined by the head."""

IMAGE_CHANNELS = 3


def check_classes(num_classes: int) -> None:
    """Raises `ValueError` for a network without classes."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")


def path_sizes(scales: tuple[int, ...], height: int, width: int) -> list[tuple[int, int]]:
    """Input size in pixels of the path of each scale, (floor(H * r), floor(W * r)), for an image of that height and width.

    Raises:
        UserError: a path without pixels; the message gives the least size that works.
    """
    sizes = [(int(height) * scale // EIGHTHS, int(width) * scale // EIGHTHS) for scale in scales]
    if min(sizes[-1]) < 1:
        least = -(-EIGHTHS // scales[-1])
        raise UserError(
            f"input {height}x{width} is too small for the path at {scales[-1]}/{EIGHTHS} scale; "
            f"the least size that works is {least}x{least}"
        )
    return sizes


class Path(nn.Module):
    """Five stages of blocks, output stride 16 of the path's own input.

    Args:
        architecture: B, C and block; its scales do not matter here.
        branches: whether blocks train with re-parameterisation branches.
        deployed: build the blocks in deployed form.
    """

    def __init__(self, architecture: Architecture, *, branches: bool, deployed: bool) -> None:
        super().__init__()
        make, plain = BLOCKS[architecture.block], plain_block(architecture.block)
        stages = []
        channels = pairwise((IMAGE_CHANNELS, *architecture.widths))
        for (before, after), depth, stride in zip(channels, architecture.depths, STRIDES, strict=True):
            shapes = [(before, after, stride)] + [(after, after, 1)] * (depth - 1)
            blocks = [plain(i, o, s) if deployed else make(i, o, s, branches=branches) for i, o, s in shapes]
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        residual = [m for m in self.modules() if isinstance(m, RepConv) and m.identity_norm is not None]
        for block in residual:
            block.scale_branches(len(residual) ** -0.5)

    def stage(self, number: int, features: Tensor) -> Tensor:
        """Run one stage, counted from 0, on (N, C, H, W)."""
        output: Tensor = self.stages[number](features)
        return output

    def deploy_from(self, source: Path) -> None:
        """Take over the folded blocks of a path in training form."""
        for number, blocks in enumerate(source.stages):
            assert isinstance(blocks, nn.Sequential)
            self.stages[number] = nn.Sequential(*(cast(Block, block).deploy() for block in blocks))


class LPSNet(nn.Module):
    """The network that an architecture describes.

    Args:
        architecture: an `Architecture`, its text, or a name such as `LPS-Net-S`.
        num_classes: channels of the output, at least 1.
        branches: train with the parallel branches of re-parameterisation. Without them the training form is the
            plain convolution, batch normalisation and ReLU that the published parameter counts refer to.
        deployed: build the deployed form (biased convolutions, no batch normalisation), for loading its weights.

    Raises:
        ArchitectureError: a text that describes no architecture.
        ValueError: `num_classes` below 1.
    """

    def __init__(self, architecture: Architecture | str, num_classes: int = 19, *, branches: bool = True, deployed: bool = False) -> None:
        super().__init__()
        check_classes(num_classes)
        self.architecture = Architecture.parse(architecture) if isinstance(architecture, str) else architecture
        self.num_classes = num_classes
        self.branches = branches and not deployed
        self.deployed = deployed
        self.paths = nn.ModuleList(Path(self.architecture, branches=branches, deployed=deployed) for _ in self.architecture.scales)
        make, widths = INTERACTIONS[self.architecture.interaction], self.architecture.widths
        self.interactions = nn.ModuleList(make(self.architecture.num_paths, widths[i], deployed=deployed) for i in INTERACT_AFTER)
        self.head = nn.Conv2d(self.architecture.num_paths * self.architecture.widths[-1], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at full resolution, (N, num_classes, H, W), for images (N, 3, H, W).

        Raises:
            UserError: an input too small for one of the paths; the message gives the least size that works.
        """
        return resize(self.scores(images), (images.shape[-2], images.shape[-1]))

    def scores(self, images: Tensor) -> Tensor:
        """Score maps at 1/16 of the largest path's input, (N, num_classes, h, w): what the authors time.

        h = ceil(floor(H * r) / 16) and likewise w, for the largest scale r. Raises as `forward` does.
        """
        features = [resize(images, size) for size in self.path_sizes(images.shape[-2], images.shape[-1])]
        for stage in range(len(STRIDES)):
            features = [path.stage(stage, x) for path, x in zip(self._paths(), features, strict=True)]
            if stage in INTERACT_AFTER:
                features = self.interactions[INTERACT_AFTER.index(stage)](features)
        size = (features[0].shape[-2], features[0].shape[-1])
        joined = torch.cat([resize(x, size) for x in features], dim=1) if len(features) > 1 else features[0]
        scores: Tensor = self.head(joined)
        return scores

    def _paths(self) -> Iterator[Path]:
        return (cast(Path, path) for path in self.paths)

    def path_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Input size of each path, (floor(H * r), floor(W * r)) in pixels. Raises as `forward` does."""
        return path_sizes(self.architecture.scales, height, width)

    def deploy(self) -> LPSNet:
        """A new network in deployed form that computes the same function in eval mode; this one stays untouched."""
        network = LPSNet(self.architecture, self.num_classes, deployed=True)
        device = self.head.weight.device
        if self.deployed:
            network.load_state_dict(self.state_dict())
            return network.train(self.training).to(device)
        for path, source in zip(network._paths(), self._paths(), strict=True):
            path.deploy_from(source)
        network.interactions = nn.ModuleList(cast(Interaction, interaction).deploy() for interaction in self.interactions)
        network.head = copy.deepcopy(self.head)
        return network.train(self.training).to(device)

    @property
    def name(self) -> str:
        """The architecture's text."""
        return str(self.architecture)

    def extra_repr(self) -> str:
        """The architecture's text and the form."""
        return f"{self.architecture}, num_classes={self.num_classes}, {'deployed' if self.deployed else 'training'} form"
