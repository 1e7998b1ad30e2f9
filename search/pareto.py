"""Fronts of mIoU over latency: which networks are beaten by none, the area they cover, and the knee. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
"""Latency in ms, mIoU in percent."""


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that none beats in both, from fast to slow; of equal points the first."""
    best, kept = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best:
            best = points[index][1]
            kept.append(index)
    return kept


def hypervolume(points: Sequence[Point], slowest_ms: float, worst_percent: float = 0.0) -> float:
    """Area that points cover up to a latency and above an mIoU: points of mIoU times the logarithm (base e) of latency.

    The logarithm, since latencies of a family span two orders of magnitude and each step of a chain is a factor.
    """
    chosen = [points[index] for index in front(points) if points[index][0] < slowest_ms and points[index][1] > worst_percent]
    ends = [*(latency for latency, _ in chosen[1:]), slowest_ms][: len(chosen)]
    return sum((miou - worst_percent) * math.log(end / latency) for (latency, miou), end in zip(chosen, ends, strict=True))


def knee(points: Sequence[Point]) -> int | None:
    """Index of the front's point farthest above the straight line between its ends, both axes scaled to 1; None for fewer than three.

    Latency counts by its logarithm, as in `hypervolume`.
    """
    kept = front(points)
    if len(kept) < 3:
        return None
    (first, low), (last, high) = points[kept[0]], points[kept[-1]]
    width, height = math.log(last / first), high - low

    def above(index: int) -> float:
        latency, miou = points[index]
        return (miou - low) / height - math.log(latency / first) / width

    return max(kept, key=above)
