"""The width of a network whose latency comes nearest a target. Pure."""

from __future__ import annotations

from collections.abc import Callable

from latency.protocols import MeasurementFailed

MOST_WIDTH = 1024
"""Beyond it a fit ends, however fast the network still is."""


NOISE = 0.03
"""Latencies that lie nearer to each other, as a share, are not called different; as in a search."""

EVEN = 8
"""Of widths that are multiples of it vectors and tensor cores compute whole ones, so that they may be faster than narrower ones."""


def nearest_width(latency_ms: Callable[[int], float], target_ms: float, first: int, most: int = MOST_WIDTH) -> int:
    """The whole width from 1 to `most` whose latency lies nearest `target_ms`; of those as fast as it the widest.

    Doubles or halves `first` until the target lies between two widths, then halves what lies between, then tries the multiples of
    `EVEN` above what is nearest while they are faster than the target. A width counts as fast as another up to `NOISE`; it is not
    taken where a wider one was found to be as fast. Where latency grows with the width no other comes nearer by more than the noise.

    Args:
        latency_ms: latency of a width; asked once for each of a few widths, none above twice the fitted one and `EVEN` but for `first`.
        target_ms: what is to be met.
        first: asked for first, from 1 to `most`.
        most: the largest width.
    """
    known: dict[int, float] = {}
    low, high, width = 0, most + 1, first  # latency at low < target <= latency at high, as far as they are widths
    while high - low > 1:
        known[width] = latency_ms(width)
        if known[width] < target_ms:
            low = width
        else:
            high = width
        if high > most:
            width = min(2 * low, most)
        elif not low:
            width = high // 2
        else:
            width = (low + high) // 2
    above = range(_nearest(known, target_ms) // EVEN * EVEN + EVEN, most + 1, EVEN)
    for even in above if low else ():  # where the narrowest is too slow already, so are they
        if even not in known:
            try:
                known[even] = latency_ms(even)
            except MeasurementFailed:  # what was found without it stands
                break
        if known[even] >= target_ms:
            break
    return _nearest(known, target_ms)


def _nearest(known: dict[int, float], target_ms: float) -> int:
    taken = [one for one in known if not any(wider > one and known[wider] <= known[one] for wider in known)]
    nearest = min(taken, key=lambda one: (abs(known[one] - target_ms), -one))
    return max(one for one in known if known[one] <= (1 + NOISE) * known[nearest])
