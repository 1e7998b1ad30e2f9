"""How sure a mean of few values is: Student's interval, as for gains paired by seed. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and the bounds between which it lies with 95 % confidence; NaN where a single value gives none."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of `values` with Student's 95 % interval.

    Raises:
        ValueError: no values.
    """
    from scipy.stats import t as student

    if not values:
        raise ValueError("a mean needs at least one value")
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Interval(mean, math.nan, math.nan)
    margin = float(student.ppf(0.975, count - 1)) * statistics.stdev(values) / count**0.5
    return Interval(mean, mean - margin, mean + margin)
