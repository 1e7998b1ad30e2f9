"""What a checkpoint says of its network besides the weights, checked field by field: the text may come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lpsnet.data import check_class_names
from lpsnet.data.normalisation import MEAN, STD
from lpsnet.zoo import canonical

FORMAT = "lps-net-1"

MOST_EXTENT = 65_536
"""Pixels of an input's height or width."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a checkpoint says of its network besides the weights.

    Args:
        architecture: name of the network, as `canonical` gives it.
        class_names: one a class, in the order of the output channels.
        input_size: (height, width) the network was trained for.
        branches: whether the weights are those of the training form with branches.
        deployed: whether the weights are those of the deployed form.
        recipe: how it was trained, as `TrainRecipe.to_dict` gives it; empty when unknown.
        metrics: scores on the validation split; empty when unknown, or where that was trained on, too.
        colours: RGB of each class; empty when unknown.
        mean: of the channels of the input, RGB in 0 to 1.
        std: likewise the standard deviation.
        licence: of the data it was trained on, which its weights may be bound by; empty when unknown.
        provenance: commit, command, software, data and seed.
    """

    architecture: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    branches: bool
    deployed: bool
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    colours: tuple[tuple[int, int, int], ...] = ()
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    licence: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Metadata:
        """The description of plain values, which are used up. Raises one of several errors; the message says what is wrong."""
        if (found := values.pop("format")) != FORMAT:
            raise ValueError(f"found format {found!r}")
        canonical(values["architecture"])
        names, (height, width) = check_class_names(values.pop("class_names")), values.pop("input_size")
        if not all(type(extent) is int and 1 <= extent <= MOST_EXTENT for extent in (height, width)):
            raise ValueError(f"input_size must be two numbers of pixels from 1 to {MOST_EXTENT}, found {height!r} and {width!r}")
        colours = check_colours(values.pop("colours", ()), len(names))
        for name, default in (("mean", MEAN), ("std", STD)):
            values[name] = tuple(float(value) for value in values.get(name, default))
            if len(values[name]) != len(default) or not all(map(math.isfinite, values[name])):
                raise ValueError(f"{name} must be {len(default)} finite numbers, found {values[name]}")
        told = cls(**values, class_names=names, input_size=(height, width), colours=colours)
        for name, kind in _KINDS.items():
            if not isinstance(getattr(told, name), kind):
                raise TypeError(f"{name} must be of type {kind.__name__}, found {type(getattr(told, name)).__name__}")
        return told


_KINDS = {"branches": bool, "deployed": bool, "licence": str, "recipe": dict, "metrics": dict, "provenance": dict}


def check_colours(given: Sequence[Sequence[Any]], count: int) -> tuple[tuple[int, int, int], ...]:
    """RGB of each class as a file gives them, or none. Raises `ValueError` or `TypeError` for something else."""
    colours = tuple((int(red), int(green), int(blue)) for red, green, blue in given)
    if colours and len(colours) != count:
        raise ValueError(f"{len(colours)} colours for {count} classes")
    if not all(0 <= part <= 255 for colour in colours for part in colour):
        raise ValueError("a colour is three numbers from 0 to 255")
    return colours
