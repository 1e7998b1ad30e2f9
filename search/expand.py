"""Algorithm 1, progressive scaling (paper section 3.4), as a pure generator that asks and is told.

It yields what it wants measured or trained and is sent the answers, so it holds no file, device, clock or randomness;
the same answers give the same chain. Where the paper is silent:

- k runs over every legal value up to `WINDOW` beyond the first whose latency is at or above the target, because a
  wider network may be faster; a gap of 0 ends it, and the smallest k wins a tie.
- A candidate that is not slower than its parent has no finite slope: it ranks above all others if it gains mIoU and
  below all others if it does not.
- Equal slopes are decided by the larger gain, then the lower latency, then the order of Table 1.
- Where every gain is negative the rule still holds: the largest slope is taken, and the step carries a warning.
- A measurement that fails ends its operation there (what lies beyond is larger still); the values before it count.
- A candidate whose training fails is recorded and passed over. Where none is left, the search stops.
- Operations that lead to the same network are one candidate, trained once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace

from lpsnet.architecture import Architecture
from search.bracket import Forecast, Interval, next_for_target, next_k, reached
from search.config import RacePlan
from search.decide import decide, reasons
from search.race import race
from search.space import OPERATIONS, Bounds, Operation, expansion
from search.step import Candidate, Failure, Measure, Member, Reply, Request, SearchStopped, Step, Train, Trial

WINDOW = 3
"""How many k beyond the first at or above the target are tried."""


def expand(
    start: Architecture,
    *,
    steps: int,
    bounds: Bounds | None = None,
    forecast: Forecast | None = None,
    noise: float = 0.0,
    plan: RacePlan | None = None,
    iterations: int = 0,
) -> Generator[Request, Reply, None]:
    """Run Algorithm 1 from `start` for `steps` steps.

    With a `forecast` only those latencies are asked for that it leaves in doubt: which one-unit expansion is the
    slowest, and which k comes nearest the target. As far as its bounds hold, the chain is the same.

    With `noise` above 0, two latencies that differ by no more than this share are not called different: where the choice
    depends on them, the networks are run in turns (see `search.decide`).

    A `plan` says how the trainings of a step are spent (see `search.race`), whole ones being of so many `iterations`; by default
    every candidate is trained once to the end.

    Yields `Measure` and `Train` requests, to be answered by `send` with a mapping from each architecture to a number or
    a `Failure`; `Compare` requests, to be answered with an `InTurns` or a `Failure`; and a `Step` when one is decided (the
    start is step 0), to be answered with None.

    Raises:
        SearchStopped: the start fails, nothing can be expanded within the bounds, or every candidate of a step fails.
    """
    limits = bounds or Bounds()
    if not limits.allow(start):
        raise SearchStopped(f"the start {start} lies outside the bounds {limits}")
    latencies: dict[Architecture, float | Failure] = {}
    member = yield from _start(start, latencies)
    for number in range(1, steps + 1):
        target, candidates, skipped, excluded = yield from _candidates(number, member, latencies, limits, forecast)
        raced = yield from race(number, member, candidates, plan or RacePlan(), iterations)
        decided = yield from decide(number, member, target, candidates, raced.outcomes, skipped, noise, raced.gains, raced.finalists)
        step = replace(decided, excluded=excluded)
        yield step
        member = step.chosen


def _start(start: Architecture, latencies: dict[Architecture, float | Failure]) -> Generator[Request, Reply, Member]:
    yield from _measure(0, (start,), latencies)
    latency = latencies[start]
    if isinstance(latency, Failure):
        raise SearchStopped(f"the start {start} could not be measured: {latency.reason}")
    candidate = Candidate(start, (), latency)
    answers = yield Train(0, None, (candidate,))
    assert isinstance(answers, Mapping)
    outcome = answers[start]
    if isinstance(outcome, Failure):
        raise SearchStopped(f"the start {start} could not be trained: {outcome.reason}")
    member = Member(start, latency, outcome)
    yield Step(0, None, None, (Trial(candidate, outcome, math.nan),), member, {}, ())
    return member


def _measure(
    step: int, architectures: Iterable[Architecture], latencies: dict[Architecture, float | Failure]
) -> Generator[Request, Reply, None]:
    """Ask for what is not known yet."""
    unknown = tuple(dict.fromkeys(a for a in architectures if a not in latencies))
    if unknown:
        answers = yield Measure(step, unknown)
        assert isinstance(answers, Mapping)
        latencies.update({architecture: answers[architecture] for architecture in unknown})


def _candidates(
    number: int, parent: Member, latencies: dict[Architecture, float | Failure], bounds: Bounds, forecast: Forecast | None
) -> Generator[Request, Reply, tuple[float, tuple[Candidate, ...], dict[str, str], dict[str, str]]]:
    """Eq. 3 and 4: the target, and for every operation the network nearest to it."""
    round_ = _Round(number, parent.architecture, latencies, bounds)
    units = [ladder[0] for ladder in round_.ladders.values()]
    if forecast is None:
        yield from _measure(number, units, latencies)
    else:
        while unit := next_for_target(units, round_.measured(), round_.failed(), forecast(round_.measured())):
            yield from _measure(number, (unit,), latencies)
    skipped = round_.skipped
    for operation in [operation for operation, (first,) in round_.ladders.items() if first in round_.failed()]:
        skipped[operation.name] = f"k = 1 could not be measured: {round_.reason(operation, 1)}"
        del round_.ladders[operation]
    measured = round_.measured()
    known = [measured[unit] for unit in units if unit in measured]
    if not known:
        raise SearchStopped(f"step {number}: no expansion of {parent.architecture} could be measured ({reasons(skipped)})")
    target = max(known)
    excluded: dict[str, str] = {}
    if forecast is None:
        yield from _climb(round_, target)
    else:
        yield from _bracket(round_, target, forecast)
        excluded = round_.unmeasured()
    return target, _nearest(round_.ladders, target, latencies), skipped, excluded


class _Round:
    """A step's search for its candidates: of each operation the networks for k = 1, 2, ..., and why some are left out."""

    def __init__(self, number: int, parent: Architecture, latencies: dict[Architecture, float | Failure], bounds: Bounds) -> None:
        self.number = number
        self.latencies = latencies
        self.ladders: dict[Operation, list[Architecture]] = {operation: [] for operation in OPERATIONS}
        self.skipped: dict[str, str] = {}
        self._parent = parent
        self._bounds = bounds
        for operation in OPERATIONS:
            if not self.extend(operation):
                self.skipped[operation.name] = "beyond the bounds at k = 1"
                del self.ladders[operation]

    def extend(self, operation: Operation) -> bool:
        """Add the next k of an operation; False where the bounds forbid it."""
        after = expansion(self._parent, operation, len(self.ladders[operation]) + 1)
        allowed = self._bounds.allow(after)
        if allowed:
            self.ladders[operation].append(after)
        return allowed

    def cut(self, operation: Operation, k: int) -> None:
        """Leave out a k that could not be measured, and what lies beyond."""
        self.skipped[operation.name] = f"from k = {k} on, which could not be measured: {self.reason(operation, k)}"
        del self.ladders[operation][k - 1 :]

    def reason(self, operation: Operation, k: int) -> str:
        """Why a k could not be measured."""
        latency = self.latencies[self.ladders[operation][k - 1]]
        return latency.reason if isinstance(latency, Failure) else ""

    def measured(self) -> dict[Architecture, float]:
        """The latencies that are known of the parent and its expansions."""
        return {network: latency for network, latency in self._known() if not isinstance(latency, Failure)}

    def failed(self) -> set[Architecture]:
        """The expansions that could not be measured."""
        return {network for network, latency in self._known() if isinstance(latency, Failure)}

    def _known(self) -> Iterator[tuple[Architecture, float | Failure]]:
        """Of this step's networks alone: a long search knows very many."""
        for network in itertools.chain((self._parent,), *self.ladders.values()):
            if network in self.latencies:
                yield network, self.latencies[network]

    def unmeasured(self) -> dict[str, str]:
        """Operation by name, and which k of its ladder nobody asked for."""
        spared = {o.name: [str(k) for k, a in enumerate(ladder, 1) if a not in self.latencies] for o, ladder in self.ladders.items()}
        return {name: f"k = {', '.join(ks)}" for name, ks in spared.items() if ks}


def _bracket(round_: _Round, target: float, forecast: Forecast) -> Generator[Request, Reply, None]:
    """Measure of each operation, a round at a time, what may come nearest the target; leave the rest to the forecast."""
    while True:
        wanted = []
        measured, failed, expected = round_.measured(), round_.failed(), forecast(round_.measured())
        for operation, ladder in list(round_.ladders.items()):
            broken = next((k for k, network in enumerate(ladder, 1) if network in failed), None)
            if broken is not None:
                round_.cut(operation, broken)
            elif operation.name not in round_.skipped:
                _extend(round_, operation, measured, target, expected)
            if not ladder:
                del round_.ladders[operation]
            elif (k := next_k(ladder, measured, target, expected)) is not None:
                wanted.append(ladder[k - 1])
        if not wanted:
            return
        yield from _measure(round_.number, wanted, round_.latencies)


def _extend(round_: _Round, operation: Operation, measured: Mapping[Architecture, float], target: float, expected: Interval) -> None:
    """Let a ladder hold every legal k up to `WINDOW` beyond the first that reaches the target, and no more."""
    ladder = round_.ladders[operation]
    while (passed := reached(ladder, measured, target, expected)) is None or len(ladder) < passed + WINDOW:
        if not round_.extend(operation):
            return
    del ladder[passed + WINDOW :]


def _climb(round_: _Round, target: float) -> Generator[Request, Reply, None]:
    """Extend each operation's networks, k = 1, 2, ..., a round of measurements at a time, until no larger k is due."""
    ladders, latencies = round_.ladders, round_.latencies
    climbing = list(ladders)
    while climbing:
        due = [operation for operation in climbing if not _complete([latencies[a] for a in ladders[operation]], target)]
        climbing = [operation for operation in due if round_.extend(operation)]
        yield from _measure(round_.number, (ladders[operation][-1] for operation in climbing), latencies)
        for operation in list(climbing):
            if isinstance(latencies[ladders[operation][-1]], Failure):
                round_.cut(operation, len(ladders[operation]))
                climbing.remove(operation)


def _complete(known: list[float | Failure], target: float) -> bool:
    """Whether the latencies of k = 1, 2, ... hold every k that Eq. 4 must see."""
    if known[-1] == target:
        return True
    passed = next((index for index, latency in enumerate(known) if isinstance(latency, float | int) and latency >= target), None)
    return passed is not None and len(known) >= passed + 1 + WINDOW


def _nearest(
    ladders: Mapping[Operation, list[Architecture]], target: float, latencies: Mapping[Architecture, float | Failure]
) -> tuple[Candidate, ...]:
    """The network of each operation whose latency comes nearest the target, equal ones joined."""
    found: dict[Architecture, Candidate] = {}
    for operation, ladder in ladders.items():
        known = {k: latency for k, a in enumerate(ladder, 1) if not isinstance(latency := latencies.get(a, Failure("")), Failure)}
        k = min(known, key=lambda k: abs(known[k] - target))
        network = ladder[k - 1]
        before = found[network].expansions if network in found else ()
        found[network] = Candidate(network, (*before, (operation.name, k)), known[k])
    return tuple(found.values())
