"""One seam for every comparison network: an encoder gives features, a decoder turns them into score maps.

    BASELINES["skipnet-mobilenet"](num_classes) is a Baseline(name, encoder, decoder, num_classes)

Does not cover the networks themselves (a file each family) or their training.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from lpsnet.baselines.layers import crop
from lpsnet.interactions import resize
from lpsnet.reparam import fold


class Encoder(Protocol):
    """Features of an image, from large to small."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """(N, channels[i], ceil(H / strides[i]), ceil(W / strides[i])) for images (N, 3, H, W)."""
        ...


class Link(NamedTuple):
    """A layer of a chain: its name, itself, its output's channels, and by what it divides the size, rounding up."""

    name: str
    layer: nn.Module
    channels: int
    stride: int = 1


class Chain(nn.Module):
    """An `Encoder` that is a chain of layers, the outputs of some of which are its features.

    Layers beyond the last of these are left out.

    Args:
        links: the layers in order. None may change its input in place: that may be a feature.
        taps: names of the layers whose outputs are features, in order.
        unused: layers that a published network holds and never uses, for its count of parameters.
    """

    def __init__(self, links: Sequence[Link], taps: Sequence[str], *, unused: nn.Module | None = None) -> None:
        super().__init__()
        names = [link.name for link in links]
        places = [names.index(tap) for tap in taps]
        assert places and places == sorted(places), f"{taps} are not in the order of {names}"
        strides = list(accumulate((link.stride for link in links), mul))
        self.channels = tuple(links[place].channels for place in places)
        self.strides = tuple(strides[place] for place in places)
        self.taps = tuple(taps)
        self.layers = nn.ModuleDict({link.name: link.layer for link in links[: places[-1] + 1]})
        self.unused = unused

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features of images (N, 3, H, W), see `Encoder`."""
        found, x = [], images
        for name, layer in self.layers.items():
            x = layer(x)
            if name in self.taps:
                found.append(x)
        return found


class Baseline(nn.Module):
    """A comparison network.

    Args:
        name: in `BASELINES`.
        encoder: an `Encoder`.
        decoder: takes the encoder's features, gives score maps (N, num_classes, h, w) at the network's own scale.
        num_classes: channels of the score maps.
    """

    branches = False
    """It has no branches to train with; see `LPSNet`."""

    def __init__(self, name: str, encoder: nn.Module, decoder: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.name, self.num_classes, self.deployed = name, num_classes, False
        self.encoder, self.decoder = encoder, decoder

    def scores(self, images: Tensor) -> Tensor:
        """Score maps at the network's own scale, (N, num_classes, h, w), for images (N, 3, H, W).

        Maps beyond the image, of decoders that enlarge a size that was rounded up, are cropped to it.
        """
        return crop(self.decoder(self.encoder(images)), (images.shape[-2], images.shape[-1]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits at full resolution, (N, num_classes, H, W), for images (N, 3, H, W)."""
        return resize(self.scores(images), (images.shape[-2], images.shape[-1]))

    def deploy(self) -> Baseline:
        """A copy that computes the same in eval mode with every batch normalisation folded; this one stays untouched."""
        network = copy.deepcopy(self)
        fold(network)
        network.deployed = True
        return network

    def extra_repr(self) -> str:
        """The name and the form."""
        return f"{self.name}, num_classes={self.num_classes}, {'deployed' if self.deployed else 'training'} form"
