"""The width of a network whose latency comes nearest a target. Pure."""

from __future__ import annotations

from collections.abc import Callable

MOST_WIDTH = 1024
"""Beyond it a fit ends, however fast the network still is."""


def nearest_width(latency_ms: Callable[[int], float], target_ms: float, first: int, most: int = MOST_WIDTH) -> int:
    """The whole width from 1 to `most` whose latency lies nearest `target_ms`; of two as near the wider.

    Doubles or halves `first` until the target lies between two widths, then halves what lies between. Where latency grows with
    the width no other comes nearer; where it does not, none that was asked for does.

    Args:
        latency_ms: latency of a width; asked once for each of a few widths, none above twice the fitted one but for `first`.
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
    return min(known, key=lambda one: (abs(known[one] - target_ms), -one))
