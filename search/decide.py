"""Eq. 5: which candidate a step takes, and what happens where that would hang on noise. Pure, a generator like `expand`.

No network is called faster than another inside the noise. Where two latencies lie nearer than that and the decision would
depend on it, the two are run in turns, and where that finds no difference they count as equally fast.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from types import MappingProxyType

from lpsnet.architecture import Architecture
from search.step import Answers, Candidate, Compare, Failure, Gain, InTurns, Member, Reply, Request, SearchStopped, Step, Tie, Trial


def slope(gain_percent: float, cost_ms: float) -> float:
    """Eq. 5: mIoU gained for each millisecond paid, both against the parent.

    A network that costs nothing has no finite slope: infinity if it gains, minus infinity if it does not.
    """
    if cost_ms > 0:
        return gain_percent / cost_ms
    return math.inf if gain_percent > 0 else -math.inf


def decide(
    number: int,
    parent: Member,
    target_ms: float,
    candidates: tuple[Candidate, ...],
    answers: Answers,
    skipped: Mapping[str, str],
    noise: float = 0.0,
    gains: Mapping[Architecture, Gain] = MappingProxyType({}),
    finalists: Collection[Architecture] | None = None,
) -> Generator[Request, Reply, Step]:
    """Take the candidate with the largest slope.

    Args:
        number: of the step.
        parent: the network expanded.
        target_ms: L_T.
        candidates: in the order of Table 1.
        answers: mIoU in percent by network.
        skipped: operation by name, and why.
        noise: relative gap of two latencies within which they are run in turns; 0 trusts every gap.
        gains: over the control; by default over the parent's mIoU.
        finalists: whom the step may take; by default every candidate that has an outcome.

    Yields `Compare` requests. Raises `SearchStopped` where every candidate failed.
    """
    turns = _Turns(number, noise)
    scored = []
    for candidate in candidates:
        network, outcome = candidate.architecture, answers[candidate.architecture]
        if not isinstance(outcome, Failure) and (finalists is None or network in finalists):
            cost = yield from _cost(turns, parent, candidate)
            gain = gains[network].percent if network in gains else outcome - parent.miou_percent
            scored.append(_Scored(candidate, outcome, gain, cost))
    if not scored:
        failures = {c.expansions[0][0]: a.reason for c in candidates if isinstance(a := answers[c.architecture], Failure)}
        raise SearchStopped(f"step {number}: every candidate failed ({reasons(failures)})")
    best = yield from _choose(turns, scored)
    costs = {one.candidate: one.cost_ms for one in scored}
    trials = tuple(_trial(c, answers[c.architecture], gains, parent, costs) for c in candidates)
    warnings = []
    if best.gain <= 0:
        warnings.append(f"no candidate gains mIoU for its latency; the step goes from {parent.miou_percent:.2f} to {best.miou:.2f}")
    if best.cost_ms <= 0:
        warnings.append("the chosen candidate is not slower than its parent")
    chosen = Member(best.candidate.architecture, best.candidate.latency_ms, best.miou)
    return Step(
        number, parent, target_ms, trials, chosen, dict(skipped), tuple(warnings), ties=tuple(turns.ties), sure=_sure(best, scored, gains)
    )


def likelier(one: Gain, one_ms: float, other: Gain, other_ms: float) -> float:
    """How likely the slope of `one` is above that of `other`, with independent normal errors of the gains.

    Where one of the two costs nothing, the gains alone are compared.
    """
    if min(one_ms, other_ms) <= 0:
        one_ms = other_ms = 1.0
    gap, spread = one.percent / one_ms - other.percent / other_ms, math.hypot(one.error / one_ms, other.error / other_ms)
    return NormalDist().cdf(gap / spread) if spread > 0 else float(gap > 0) + 0.5 * (gap == 0)


def _trial(
    candidate: Candidate, outcome: float | Failure, gains: Mapping[Architecture, Gain], parent: Member, costs: Mapping[Candidate, float]
) -> Trial:
    """A candidate's trial; one that was dropped on the way has the slope it was dropped at."""
    gain = gains.get(candidate.architecture)
    if isinstance(outcome, Failure):
        return Trial(candidate, outcome, math.nan)
    percent = outcome - parent.miou_percent if gain is None else gain.percent
    return Trial(candidate, outcome, slope(percent, costs.get(candidate, candidate.latency_ms - parent.latency_ms)), gain)


def _sure(best: _Scored, scored: list[_Scored], gains: Mapping[Architecture, Gain]) -> float:
    """How sure the choice is against its nearest rival."""

    def against(rival: _Scored) -> float:
        return likelier(gains[best.candidate.architecture], best.cost_ms, gains[rival.candidate.architecture], rival.cost_ms)

    rivals = [one for one in scored if one.candidate != best.candidate and one.candidate.architecture in gains]
    return min(map(against, rivals)) if rivals and best.candidate.architecture in gains else math.nan


def reasons(failures: Mapping[str, str]) -> str:
    """Failures by name, for a message."""
    return "; ".join(f"{name}: {reason}" for name, reason in failures.items())


@dataclass(frozen=True)
class _Scored:
    candidate: Candidate
    miou: float
    gain: float
    cost_ms: float

    @property
    def slope(self) -> float:
        return slope(self.gain, self.cost_ms)

    @property
    def rank(self) -> tuple[float, float, float]:
        return (self.slope, self.miou, -self.candidate.latency_ms)


@dataclass
class _Turns:
    """Asks for comparisons and keeps what they said."""

    step: int
    noise: float
    ties: list[Tie] = field(default_factory=list)

    def near(self, first_ms: float, second_ms: float) -> bool:
        return self.noise > 0 and abs(second_ms - first_ms) <= self.noise * min(first_ms, second_ms)

    def ratio(self, first: Architecture, second: Architecture) -> Generator[Request, Reply, float | None]:
        """Second over first, 1 where neither is faster, None where it cannot be had."""
        answer = yield Compare(self.step, first, second)
        assert isinstance(answer, InTurns | Failure)
        self.ties.append(Tie(first, second, answer))
        return answer.settled if isinstance(answer, InTurns) else None


def _cost(turns: _Turns, parent: Member, candidate: Candidate) -> Generator[Request, Reply, float]:
    """Milliseconds a candidate costs more than its parent."""
    if turns.near(parent.latency_ms, candidate.latency_ms):
        ratio = yield from turns.ratio(parent.architecture, candidate.architecture)
        if ratio is not None:
            return parent.latency_ms * (ratio - 1)
    return candidate.latency_ms - parent.latency_ms


def _choose(turns: _Turns, scored: list[_Scored]) -> Generator[Request, Reply, _Scored]:
    """The largest slope; a rival that might have it but for the noise is run in turns with the best so far."""
    best, *rivals = sorted(scored, key=lambda one: one.rank, reverse=True)
    for rival in rivals:
        best_ms = best.candidate.latency_ms
        at_best = slope(rival.gain, rival.cost_ms - turns.noise * rival.candidate.latency_ms)
        if not turns.near(best_ms, rival.candidate.latency_ms) or at_best < best.slope:
            continue
        ratio = yield from turns.ratio(best.candidate.architecture, rival.candidate.architecture)
        if ratio is not None:
            seen = replace(rival, cost_ms=best.cost_ms + best_ms * (ratio - 1))
            if (seen.slope, seen.miou) > (best.slope, best.miou):
                best = seen
    return best
