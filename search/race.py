"""How the trainings of a step are spent: all candidates reach a rung before any is dropped, and close calls get more seeds.

Pure, a generator like `expand`: it yields `Train` requests and is sent scores. Candidates are ranked by the slope of Eq. 5, with the
gain over a control: the parent, trained as long and with the same seed. What is dropped or called close depends on the noise
of a gain, which is estimated from the seeds seen and, before there are any, taken from the plan.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

from lpsnet.architecture import Architecture
from search.config import RacePlan
from search.decide import likelier, slope
from search.step import CONTROL, Candidate, Failure, Gain, Member, Reply, Request, Train

PRIOR_WEIGHT = 4
"""The plan's noise of a gain counts like this many residuals of seeds."""

LEAST = 2
"""So many candidates reach the end, at least."""

Scores = dict[Architecture, dict[int, float]]
"""mIoU in percent of each network by seed, all after the same iterations."""


@dataclass(frozen=True)
class Raced:
    """What a race came to.

    Args:
        outcomes: mIoU in percent where a candidate's training ended, mean over its seeds; or why there is none.
        gains: of those that have a score, over the control.
        finalists: those that reached the end.
    """

    outcomes: Mapping[Architecture, float | Failure]
    gains: Mapping[Architecture, Gain]
    finalists: frozenset[Architecture]


def race(
    number: int, parent: Member, candidates: tuple[Candidate, ...], plan: RacePlan, iterations: int
) -> Generator[Request, Reply, Raced]:
    """Train the candidates of a step as far as each deserves.

    Args:
        number: of the step.
        parent: whose gains are asked for.
        candidates: in the order of Table 1.
        plan: rungs, seeds and what is sure enough.
        iterations: of a whole training.
    """
    field, found = _Field(number, parent, candidates, plan), {}
    for rung in (*plan.rungs, 0):
        yield from field.train(field.left, rung, 0)
        found.update(field.gains(rung or iterations))
        if rung:
            field.drop(found)
    for seed in range(1, plan.seeds):
        close = field.close_calls(found)
        if len(close) < 2:
            break
        yield from field.train(close, 0, seed)
        found.update(field.gains(iterations))
    finalists = frozenset(c.architecture for c in field.left if c.architecture in found)
    return Raced(field.outcomes, found, finalists)


class _Field:
    """The candidates of a race, and what is known of them."""

    def __init__(self, number: int, parent: Member, candidates: tuple[Candidate, ...], plan: RacePlan) -> None:
        self.left = list(candidates)
        self.outcomes: dict[Architecture, float | Failure] = {}
        self._number, self._parent, self._plan = number, parent, plan
        self._scores: Scores = {}
        self._control: dict[int, float] = {}

    def train(self, field: Iterable[Candidate], rung: int, seed: int) -> Generator[Request, Reply, None]:
        """Ask for scores, and for the control's where the parent's own is not what they compare with."""
        runners, parent = tuple(field), self._parent
        control = (Candidate(parent.architecture, CONTROL, parent.latency_ms),) if self._plan.needs_control else ()
        answers = yield Train(self._number, parent.architecture, (*runners, *control), rung, seed)
        assert isinstance(answers, Mapping)
        if seed == 0:
            self._scores.clear()
        own = answers[parent.architecture] if control else parent.miou_percent
        self._control[seed] = parent.miou_percent if isinstance(own, Failure) else own
        for candidate in runners:
            self._take(candidate, answers[candidate.architecture], seed)

    def _take(self, candidate: Candidate, answer: float | Failure, seed: int) -> None:
        network = candidate.architecture
        if not isinstance(answer, Failure):
            scores = self._scores.setdefault(network, {})
            scores[seed] = answer
            self.outcomes[network] = statistics.fmean(scores.values())
        elif seed == 0:
            self.outcomes[network] = answer
            self.left.remove(candidate)

    def gains(self, iterations: int) -> dict[Architecture, Gain]:
        """Of every network scored at this rung: mean over its seeds, each against the control of that seed."""
        noise, found = self._noise(), {}
        for network, scores in self._scores.items():
            gain = statistics.fmean(score - self._control[seed] for seed, score in scores.items())
            found[network] = Gain(gain, noise / math.sqrt(len(scores)), iterations, len(scores))
        return found

    def _noise(self) -> float:
        """Standard deviation of one seed's gain: residuals of the seeds seen, pooled, and the plan's guess."""
        squares, freedom = PRIOR_WEIGHT * self._plan.seed_noise_percent**2, PRIOR_WEIGHT
        for scores in self._scores.values():
            gains = [score - self._control[seed] for seed, score in scores.items()]
            squares += sum((gain - statistics.fmean(gains)) ** 2 for gain in gains)
            freedom += len(gains) - 1
        return math.sqrt(squares / freedom)

    def drop(self, found: Mapping[Architecture, Gain]) -> None:
        """Leave behind those whose slope is surely below the leader's; the best `LEAST` stay."""
        ranked = self._ranked(found)
        self.left = [c for place, c in enumerate(ranked) if place < LEAST or self._may_beat(c, ranked[0], found)]

    def close_calls(self, found: Mapping[Architecture, Gain]) -> list[Candidate]:
        """The leader and whatever may yet be better."""
        ranked = self._ranked(found)
        return [c for place, c in enumerate(ranked) if place == 0 or self._may_beat(c, ranked[0], found)]

    def _ranked(self, found: Mapping[Architecture, Gain]) -> list[Candidate]:
        return sorted(self.left, key=lambda c: slope(found[c.architecture].percent, self._cost(c)), reverse=True)

    def _may_beat(self, candidate: Candidate, leader: Candidate, found: Mapping[Architecture, Gain]) -> bool:
        one, other = found[candidate.architecture], found[leader.architecture]
        return likelier(one, self._cost(candidate), other, self._cost(leader)) > 1 - self._plan.sure

    def _cost(self, candidate: Candidate) -> float:
        return candidate.latency_ms - self._parent.latency_ms
