"""Weights of one network put into another where they fit: fine-tuning, other classes, and a classifier's path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from lpsnet.checkpoint import CheckpointError, read_tensors


@dataclass(frozen=True)
class Transferred:
    """Names of the weights that were taken over, and of those of the network that kept their own."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]

    def __str__(self) -> str:
        own = f"; new: {', '.join(self.kept[:4])}{' and more' if len(self.kept) > 4 else ''}" if self.kept else ""
        return f"{len(self.taken)} of {len(self.taken) + len(self.kept)} weights taken over{own}"


def transfer(source: str | Path, network: nn.Module) -> Transferred:
    """Take over every weight of a checkpoint whose name and shape the network has.

    A checkpoint of a classifier (`classifier.py`) holds one path, which every path of the network takes.

    Raises:
        CheckpointError: the file cannot be read, or nothing in it fits.
    """
    theirs = read_tensors(source)
    own = network.state_dict()
    taken = {}
    for name, tensor in own.items():
        found = theirs.get(name, theirs.get(_in_classifier(name)))
        if found is not None and found.shape == tensor.shape:
            taken[name] = found.to(tensor.dtype)
    if not any(name.endswith("weight") for name in taken):
        raise CheckpointError(f"nothing in {source} fits the network; its weights are {_listed(theirs)}")
    network.load_state_dict({**own, **taken})
    return Transferred(tuple(taken), tuple(name for name in own if name not in taken))


def _in_classifier(name: str) -> str:
    """The name that a weight of some path has in a classifier's checkpoint: `paths.1.0.weight` is `path.0.weight`."""
    parts = name.split(".", 2)
    return f"path.{parts[2]}" if parts[0] == "paths" and len(parts) == 3 else name


def _listed(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in list(tensors.items())[:3])
