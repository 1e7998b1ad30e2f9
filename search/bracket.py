"""Which latencies Eq. 3 and 4 still need when a forecast bounds them: measured first is what is likely nearest.

Pure. A forecast only says what need not be measured; every latency that decides anything is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from lpsnet.architecture import Architecture

Interval = Callable[[Architecture], tuple[float, float]]
"""Lower and upper end, in milliseconds, of where a network's latency is expected."""

Forecast = Callable[[Mapping[Architecture, float]], Interval]
"""The same, given the measured latencies, in milliseconds, of a parent and of what expansions of it are known."""


def next_for_target(
    units: Sequence[Architecture], measured: Mapping[Architecture, float], failed: set[Architecture], expected: Interval
) -> Architecture | None:
    """The one-unit expansion to measure next to find the largest latency (Eq. 3); None where no other can be larger.

    Args:
        units: the networks after one unit of each operation.
        measured: latencies that are known.
        failed: networks that could not be measured.
        expected: of the others.
    """
    largest = max((measured[unit] for unit in units if unit in measured), default=-math.inf)
    open_units = {unit: expected(unit)[1] for unit in units if unit not in measured and unit not in failed}
    possible = [unit for unit, high in open_units.items() if high > largest]
    return max(possible, key=open_units.__getitem__, default=None)


def next_k(ladder: Sequence[Architecture], measured: Mapping[Architecture, float], target: float, expected: Interval) -> int | None:
    """The k to measure next to find the latency nearest the target (Eq. 4); None where no other can be nearer.

    Args:
        ladder: the legal networks of an operation for k = 1, 2, ...
        measured: latencies that are known.
        target: L_T.
        expected: of the others.
    """
    known = {k: abs(measured[network] - target) for k, network in enumerate(ladder, 1) if network in measured}
    nearest = min(known, key=lambda k: (known[k], k), default=None)
    gap = math.inf if nearest is None else known[nearest]
    best, best_distance = None, math.inf
    for k, network in enumerate(ladder, 1):
        if k in known:
            continue
        low, high = expected(network)
        least = max(low - target, target - high, 0.0)
        could_win = least < gap or (least == gap and nearest is not None and k < nearest)
        distance = abs((low + high) / 2 - target)
        if could_win and distance < best_distance:
            best, best_distance = k, distance
    return best


def reached(ladder: Sequence[Architecture], measured: Mapping[Architecture, float], target: float, expected: Interval) -> int | None:
    """The first k that is at or above the target, measured or beyond doubt; None where there is none yet."""
    for k, network in enumerate(ladder, 1):
        if (measured[network] if network in measured else expected(network)[0]) >= target:
            return k
    return None
