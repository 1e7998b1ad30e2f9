"""What the tests of Algorithm 1 share: a search answered by functions, and functions that are awkward."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping

from lpsnet import Architecture
from search import Bounds, Compare, Failure, InTurns, Measure, Step, Train, expand
from search.bracket import Forecast
from search.step import Reply, Request

Function = Callable[[Architecture], float | Failure]
SMALL = Bounds(max_scale=1.0, max_width=192, max_depth=7, max_paths=3)


def drive(
    start: Architecture, steps: int, latency: Function, miou: Function, bounds: Bounds = SMALL, forecast: Forecast | None = None
) -> tuple[list[Step], list[Architecture]]:
    """Answer a search from two functions; returns its steps and every network it asked to have measured."""
    search, answers, decided, measured = expand(start, steps=steps, bounds=bounds, forecast=forecast), None, [], []
    while True:
        try:
            request = search.send(answers)
        except StopIteration:
            return decided, measured
        if isinstance(request, Measure):
            measured += request.architectures
            answers = {architecture: latency(architecture) for architecture in request.architectures}
        elif isinstance(request, Train):
            answers = {candidate.architecture: miou(candidate.architecture) for candidate in request.candidates}
        else:
            decided.append(request)
            answers = None


def settled(deciding: Generator[Request, Reply, Step], turns: Mapping[tuple[Architecture, Architecture], InTurns | Failure]) -> Step:
    """Answer a decision's comparisons from a table; each pair there must be asked for once, and no other."""
    left, answer = dict(turns), None
    while True:
        try:
            request = deciding.send(answer)
        except StopIteration as end:
            assert not left
            step: Step = end.value
            return step
        assert isinstance(request, Compare)
        answer = left.pop((request.first, request.second))


def seeded(seed: int, dips: float) -> tuple[Function, Function]:
    """A latency that grows with the network, with dips and ties where `dips` is above 0, and a noisy accuracy."""

    def draw(kind: str, a: Architecture) -> float:
        return random.Random(f"{seed} {kind} {a}").random()

    def size(a: Architecture) -> float:
        work = sum(b * c**1.3 for b, c in zip(a.depths, a.widths, strict=True))
        return work * sum((scale / 8) ** 2 for scale in a.scales) / 100

    def latency(a: Architecture) -> float:
        value = size(a) * (1 - dips * (draw("dip", a) < 0.4) * draw("depth of dip", a))
        return round(value, 1) + 0.1 if dips > 0.5 else value  # rounding makes ties and gaps of 0

    return latency, lambda a: 10 * math.log1p(size(a)) + 4 * draw("miou", a)
