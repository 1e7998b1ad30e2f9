"""How fast frames come and how fast a network takes them: does a training wait for its data?"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch

from lpsnet.data import DataSpec, native_size, open_split
from lpsnet.data.frames import Batch, Frames
from lpsnet.data.prefetch import ahead
from lpsnet.parallel import Lane
from lpsnet.recipe import TrainRecipe
from lpsnet.training import fit
from lpsnet.zoo import build, canonical
from search.observer import Observer
from search.proxy import keep_freed_memory

WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class DataBench:
    """Images a second of the loader alone, of the network alone on one batch, and of both as in a training.

    Args:
        loader: alone.
        network: alone.
        both: as in a training.
        idle_percent: share of the time that a training waited for its frames, by the clock.
    """

    loader: float
    network: float
    both: float
    idle_percent: float


class _Same(Frames):
    """A split that gives one batch again and again."""

    def __init__(self, frames: Frames, batch_size: int) -> None:
        super().__init__(frames.source, frames.size)
        self._same = frames.batch([index % len(frames) for index in range(batch_size)])

    def batch(self, indices: object, *, pin: bool = False) -> Batch:
        return self._same


def bench_data(data: str, architecture: str, recipe: TrainRecipe, iterations: int, lane: Lane, observer: Observer) -> DataBench:
    """Measure a data set against a network under a recipe, on a lane: a device, a precision, compiled or not.

    Raises:
        DataError: the data set is not as expected.
    """
    keep_freed_memory()
    spec = DataSpec.parse(data)
    frames = open_split(spec, "train", native_size(spec))
    frames.hold(lambda done, total: observer.work("frames", done, total))
    short = dataclasses.replace(recipe, iterations=iterations + WARM_UP)
    batch, name = recipe.batch_size, canonical(architecture)
    chosen = [[(batch * number + inner) % len(frames) for inner in range(batch)] for number in range(iterations)]
    start = time.perf_counter()
    for _ in ahead(chosen, frames.batch):
        pass
    loader = batch * iterations / (time.perf_counter() - start)

    def speed(split: Frames) -> tuple[float, float]:
        marks: list[float] = []
        waits: list[float] = []
        torch.manual_seed(0)
        network = build(name, split.num_classes, branches=recipe.branches).to(lane.device)

        def mark(what: str, done: int, total: int) -> None:
            observer.work(what, done, total)
            marks.append(time.perf_counter())

        fit(network, split, short, seed=0, lane=lane, on_progress=mark, on_point=lambda point, _: waits.append(point.waiting_percent))
        return batch * iterations / (marks[-1] - marks[WARM_UP - 1]), sum(waits[WARM_UP:]) / max(1, len(waits[WARM_UP:]))

    alone, (both, idle) = speed(_Same(frames, batch))[0], speed(frames)
    return DataBench(loader=loader, network=alone, both=both, idle_percent=idle)
