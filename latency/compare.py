"""Networks side by side, and the noise floor of one: what a difference between two latencies is worth on this device.

Two networks are run in turns, A B A B, so that drifting clocks and other work meet both alike, and compared pair by pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latency.backends import usable_backend
from latency.lock import device_lock
from latency.measure import opened
from latency.measurement import Conditions
from latency.timing import sample, warm_up

if TYPE_CHECKING:
    from torch import nn

    from latency.protocols import Session

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
    if turns < MIN_TURNS:
        raise ValueError(f"turns must be at least {MIN_TURNS}, got {turns}")
    backend = usable_backend(conditions.backend, conditions.device)
    samples: tuple[list[float], list[float]] = ([], [])
    with device_lock(conditions.device, alone=True), ExitStack() as stack:
        sessions = [stack.enter_context(opened(backend, module, conditions)) for module in (first, second)]
        for session in sessions:
            warm_up(session, conditions.plan)
        for turn in range(turns):
            # Whoever goes second in a turn might always gain; so they change places.
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                samples[index].append(_burst(sessions[index]))
            on_turn(turn + 1, turns)
    return compared(*samples)


def compared(first_ms: list[float], second_ms: list[float]) -> Comparison:
    """A comparison of paired samples; the interval is that of the sign test, which asks nothing of their distribution."""
    from scipy.stats import binom

    ratios = sorted(b / a for a, b in zip(first_ms, second_ms, strict=True))
    outside = int(binom.ppf(0.025, len(ratios), 0.5)) - 1
    return Comparison(first_ms=tuple(first_ms), second_ms=tuple(second_ms), low=ratios[outside], high=ratios[-1 - outside])


def _burst(session: Session) -> float:
    session.run_ms()  # the other network has just filled the caches
    return statistics.median(session.run_ms() for _ in range(BURST))


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
        with device_lock(conditions.device, alone=True), opened(backend, module, conditions) as session:
            for repeat in range(repeats):
                samples = sample(session, conditions.plan).samples_ms
                row.append(statistics.median(samples))
                coefficients.append(statistics.stdev(samples) / statistics.mean(samples))
                on_repeat(build * repeats + repeat + 1, repeats * rebuilds)
        medians.append(tuple(row))
    return NoiseFloor(medians_ms=tuple(medians), coefficients=tuple(coefficients))


def _spread(values: list[float] | tuple[float, ...]) -> float:
    return (max(values) - min(values)) / statistics.median(values)
