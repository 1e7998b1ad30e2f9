"""Networks side by side, and the noise floor of one: what a difference between two latencies is worth on this device.

Two networks are run in turns, A B A B, so that drifting clocks and other work meet both alike, and compared pair by pair.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from latency.backends import usable_backend
from latency.environment import environment
from latency.lock import device_lock
from latency.measure import failures_of, opened
from latency.measurement import Conditions, Measurement
from latency.timing import sample, timed_run, warm_up
from latency.worker import Worker

if TYPE_CHECKING:
    from torch import nn

    from latency.protocols import Session
    from latency.store import Store

MIN_TURNS = 6
"""The fewest pairs whose smallest and largest ratio bound the median with 95 % confidence."""

BURST = 3
"""Runs in a row of one network in a turn; their median is the turn's sample, and the run before them is not counted."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two networks measured in turns.

    Args:
        first_ms: one sample a turn, milliseconds.
        second_ms: likewise, in the same order.
        low: lower end of the 95 % interval of the median ratio second / first.
        high: upper end.
    """

    first_ms: tuple[float, ...]
    second_ms: tuple[float, ...]
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """Median over the turns of second / first."""
        return statistics.median(b / a for a, b in zip(self.first_ms, self.second_ms, strict=True))

    @property
    def faster(self) -> str:
        """ "first", "second", or "tie" where the interval holds 1: the gap is within the noise."""
        return "first" if self.low > 1 else "second" if self.high < 1 else "tie"

    def summary(self) -> dict[str, Any]:
        """The figures a table or a machine reads."""
        return {
            "first_ms": statistics.median(self.first_ms),
            "second_ms": statistics.median(self.second_ms),
            "ratio": self.ratio,
            "ratio_low": self.low,
            "ratio_high": self.high,
            "turns": len(self.first_ms),
            "faster": self.faster,
        }


def interleave(
    first: nn.Module,
    second: nn.Module,
    conditions: Conditions,
    *,
    turns: int = 40,
    on_turn: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Run two networks in turns under the same conditions.

    Args:
        first: a network in any form; left untouched.
        second: another.
        conditions: of both.
        turns: pairs of samples, at least 6, the fewest that give a 95 % interval.
        on_turn: told how many turns are done, and how many there are.

    Raises:
        BackendError: an unknown or unusable backend.
        MeasurementFailed: a network cannot be built or run, or disagrees with torch.
        ValueError: fewer than 6 turns.
    """
    with device_lock(conditions.device, alone=True):
        return comparison(_in_turns(first, second, conditions, ("", ""), turns, on_turn))


def compare(
    first: nn.Module,
    second: nn.Module,
    conditions: Conditions,
    *,
    subjects: tuple[str, str],
    store: Store,
    reason: str,
    turns: int = 40,
    worker: Worker | None = None,
) -> Measurement:
    """Run two networks in turns, once: the store's row is returned where it holds one, and a new one is kept.

    Args:
        first: a network in any form; left untouched.
        second: another.
        conditions: of both.
        subjects: what to call them in the record.
        store: where the row is looked up and kept.
        reason: why they are run in turns, for the record.
        turns: pairs of samples.
        worker: a process to run them in, with a time limit; by default this one, without.

    Returns:
        A row of its own, which no single measurement is answered by; `comparison` reads it.

    Raises:
        BackendError: an unknown or unusable backend.
        MeasurementFailed: a network cannot be built or run, or disagrees with torch. Such a failure is not kept.
    """
    backend = usable_backend(conditions.backend, conditions.device)
    known = store.find(in_turns(*subjects), conditions, environment(backend, conditions.device))
    if not isinstance(known, Measurement):
        with device_lock(conditions.device, alone=True):
            run = _in_turns if worker is None else partial(worker.call_twice, _in_turns)
            known = run(first, second, conditions, subjects, turns)
        known.found["reason"] = reason
        store.add(known)
    return known


def in_turns(first: str, second: str) -> str:
    """What a row of two networks in turns is called."""
    return f"{first} in turns with {second}"


def comparison(row: Measurement) -> Comparison:
    """What a row of two networks in turns says."""
    return compared(list(row.samples_ms), list(row.found["second_ms"]))


def _in_turns(
    first: nn.Module,
    second: nn.Module,
    conditions: Conditions,
    subjects: tuple[str, str],
    turns: int,
    on_turn: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    if turns < MIN_TURNS:
        raise ValueError(f"turns must be at least {MIN_TURNS}, got {turns}")
    backend = usable_backend(conditions.backend, conditions.device)
    samples: tuple[list[float], list[float]] = ([], [])
    with failures_of(backend), ExitStack() as stack:
        start = time.perf_counter()
        sessions = [stack.enter_context(opened(backend, module, conditions)) for module in (first, second)]
        load_s = time.perf_counter() - start
        warmup_runs = sum([warm_up(session, conditions.plan) for session in sessions])
        for turn in range(turns):
            # Whoever goes second in a turn might always gain; so they change places.
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                samples[index].append(_burst(sessions[index]))
            on_turn(turn + 1, turns)
        found = {**sessions[0].found, "second_ms": samples[1]}
        json.dumps(found)  # what cannot be kept is found out here
        return Measurement(
            subject=in_turns(*subjects),
            conditions=conditions,
            environment=environment(backend, conditions.device),
            samples_ms=tuple(samples[0]),
            clock=sessions[0].clock,
            warmup_runs=warmup_runs,
            load_s=load_s,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            found=found,
        )


def compared(first_ms: list[float], second_ms: list[float]) -> Comparison:
    """A comparison of paired samples; the interval is that of the sign test, which asks nothing of their distribution."""
    from scipy.stats import binom

    ratios = sorted(b / a for a, b in zip(first_ms, second_ms, strict=True))
    outside = int(binom.ppf(0.025, len(ratios), 0.5)) - 1
    return Comparison(first_ms=tuple(first_ms), second_ms=tuple(second_ms), low=ratios[outside], high=ratios[-1 - outside])


def _burst(session: Session) -> float:
    timed_run(session)  # the other network has just filled the caches
    return statistics.median(timed_run(session) for _ in range(BURST))


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """Medians of one network, measured again and again.

    Args:
        medians_ms: a row for each time the network was built and loaded, a column for each repeat in that session.
        coefficients: the coefficient of variation of each of these measurements, in the same order.
    """

    medians_ms: tuple[tuple[float, ...], ...]
    coefficients: tuple[float, ...]

    @property
    def coefficient_of_variation(self) -> float:
        """Median coefficient of variation of a measurement's samples."""
        return statistics.median(self.coefficients)

    @property
    def repeat_spread(self) -> float:
        """Largest relative range of the medians of one session."""
        return max(_spread(row) for row in self.medians_ms)

    @property
    def rebuild_spread(self) -> float:
        """Relative range of the sessions' medians."""
        return _spread([statistics.median(row) for row in self.medians_ms])

    @property
    def floor(self) -> float:
        """The larger of the two: a smaller gap between two single measurements means nothing."""
        return max(self.repeat_spread, self.rebuild_spread)


def noise_floor(
    module: nn.Module,
    conditions: Conditions,
    *,
    repeats: int = 3,
    rebuilds: int = 3,
    on_repeat: Callable[[int, int], None] = lambda done, total: None,
) -> NoiseFloor:
    """Build a network `rebuilds` times and measure it `repeats` times each. Raises as `interleave` does."""
    backend = usable_backend(conditions.backend, conditions.device)
    medians: list[tuple[float, ...]] = []
    coefficients: list[float] = []
    for build in range(rebuilds):
        row = []
        with device_lock(conditions.device, alone=True), failures_of(backend), opened(backend, module, conditions) as session:
            for repeat in range(repeats):
                samples = sample(session, conditions.plan).samples_ms
                row.append(statistics.median(samples))
                coefficients.append(statistics.stdev(samples) / statistics.mean(samples))
                on_repeat(build * repeats + repeat + 1, repeats * rebuilds)
        medians.append(tuple(row))
    return NoiseFloor(medians_ms=tuple(medians), coefficients=tuple(coefficients))


def _spread(values: list[float] | tuple[float, ...]) -> float:
    return (max(values) - min(values)) / statistics.median(values)
