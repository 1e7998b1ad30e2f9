"""How entries are compared, and what is known of each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from latency.measurement import Conditions
from lpsnet.errors import UserError
from lpsnet.recipe import TrainRecipe
from search.compare_entries import GRAPH, Entry


@dataclass(frozen=True, kw_only=True)
class ComparePlan:
    """What is compared, and how.

    Args:
        entries: what is compared.
        conditions: of every network but for shape and boundary.
        boundary: where they are ranked; latencies to the scores and to the labels are measured in any case.
        rounds: turns of each network at each boundary; up to as many more where they do not agree.
        limit_s: seconds that preparing, or a turn, may take in a process of its own; 0 for this process and no limit.
        data: data set the networks are scored on; empty for the scores that checkpoints hold.
        recipe: how networks without weights are trained on the data; None for not at all.
        seeds: of the trainings of each network.
        precision: of the trainings, one of `lpsnet.recipe.PRECISIONS`.
        parallel: trainings at a time, which share the threads.
        training_device: "cpu" or "cuda".

    Raises:
        UserError: a recipe without data.
    """

    entries: tuple[Entry, ...]
    conditions: Conditions
    boundary: str = "labels"
    rounds: int = 2
    limit_s: float = 300.0
    data: str = ""
    recipe: TrainRecipe | None = None
    seeds: tuple[int, ...] = (0,)
    precision: str = "fp32"
    parallel: int = 1
    training_device: str = "cpu"

    def __post_init__(self) -> None:
        if self.recipe is not None and not self.data:
            raise UserError("a training needs data: add --data NAME or NAME:PATH")

    def ends(self, entry: Entry) -> tuple[Conditions, ...]:
        """The conditions an entry is measured under: where networks are ranked first; a graph where it ends."""
        boundaries = (self.boundary,) if entry.kind == GRAPH else tuple(dict.fromkeys((self.boundary, "scores", "labels")))
        shape = (1, 3, *entry.size)
        return tuple(dataclasses.replace(self.conditions, boundary=boundary, shape=shape) for boundary in boundaries)


@dataclass(kw_only=True)
class Found:
    """What is known of an entry.

    Args:
        entry: which.
        turns: samples by boundary, a list a turn.
        slowness: by boundary, a number a turn: what a small graph took beside it over its least (`latency.pace`); NaN where none was run.
        memory_bytes: taken by loading and running it, None where it is unknown.
        output: shape and type of its output by boundary.
        mious: mIoU in percent, one a seed of a training.
        miou_from: where they come from.
        miou_data: data set they are of.
        miou_input: size of the input they are of.
        seen: whether it was trained on the frames it was scored on.
        failures: what went wrong, by what was tried.
    """

    entry: Entry
    turns: dict[str, list[list[float]]] = field(default_factory=dict)
    slowness: dict[str, list[float]] = field(default_factory=dict)
    memory_bytes: int | None = None
    output: dict[str, str] = field(default_factory=dict)
    mious: list[float] = field(default_factory=list)
    miou_from: str = ""
    miou_data: str = ""
    miou_input: str = ""
    seen: bool = False
    failures: dict[str, str] = field(default_factory=dict)


def extent(size: tuple[int, ...]) -> str:
    """A height and width as it is told, such as 512x1024."""
    return "x".join(map(str, size))
