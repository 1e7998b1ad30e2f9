"""Student's interval of a mean: a worked table, how often it holds, and what gives none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.interval import mean_interval


def test_three_values_by_the_table() -> None:
    """Mean 2, standard deviation 1, and 4.303 is the 97.5 % point of Student's distribution with 2 degrees of freedom."""
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-4)


def test_a_single_value_has_no_bounds_and_none_no_mean() -> None:
    found = mean_interval([5.0])
    assert found.mean == 5 and math.isnan(found.low) and math.isnan(found.high)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


@pytest.mark.parametrize("count", [2, 4, 9])
def test_it_holds_the_true_mean_about_95_times_of_100(count: int) -> None:
    rng = np.random.default_rng(count)
    held = [low <= 3 <= high for _, low, high in (mean_interval(rng.normal(3, 2, count).tolist()) for _ in range(1000))]
    assert 0.93 < np.mean(held) < 0.97
