"""Rank correlations and regret against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.ranking import StepScores, overall_spearman, ranking, regret, seed_noise, seed_spread


def step(full: list[list[float]], cheap: list[list[float]], cost: list[float] | None = None) -> StepScores:
    """Scores whose controls are 0."""
    truth, quick = np.array(full), np.array(cheap)
    costs = np.array(cost or [1.0] * len(full))
    return StepScores(costs, truth, np.zeros(truth.shape[1]), quick, np.zeros(quick.shape[1]))


RISING = [[1.0], [2.0], [3.0], [4.0]]


def test_the_same_order_is_a_correlation_of_one_and_no_regret() -> None:
    found = ranking(step(RISING, [[10.0], [11.0], [15.0], [15.5]]))
    assert (found.kendall.value, found.spearman.value, found.regret.value) == (pytest.approx(1), pytest.approx(1), 0.0)
    assert found.kendall.low <= 1 and found.kendall.high <= 1.0 + 1e-12


def test_one_swap_of_four() -> None:
    found = ranking(step(RISING, [[1.0], [2.0], [4.0], [3.0]]))
    assert found.kendall.value == pytest.approx(4 / 6)  # 5 pairs agree, 1 does not
    assert found.spearman.value == pytest.approx(0.8)
    assert found.regret.value == pytest.approx(1.0)
    assert found.kendall.low < 4 / 6 < found.kendall.high + 1e-12


def test_slopes_are_ranked_not_scores() -> None:
    dear = step([[4.0], [3.0], [1.0]], [[4.0], [3.0], [1.0]], [8.0, 1.0, 1.0])
    assert dear.full_slopes().tolist() == [0.5, 3.0, 1.0]
    worse = step([[4.0], [3.0], [1.0]], [[9.0], [0.5], [1.0]], [8.0, 1.0, 1.0])  # takes the first: 0.5 a millisecond, not 3
    assert regret(worse).tolist() == pytest.approx([(3.0 - 0.5) * 10 / 3])


def test_gains_are_over_the_control_of_the_same_seed() -> None:
    scores = StepScores(
        np.ones(3), np.array([[11.0, 21.0], [12.0, 22.0], [13.0, 23.0]]), np.array([10.0, 20.0]), np.ones((3, 1)), np.zeros(1)
    )
    assert scores.full_slopes().tolist() == [1.0, 2.0, 3.0]
    assert seed_spread(scores) == 0.0


def test_the_seed_spread_is_pooled_over_candidates() -> None:
    rows = [[1.0, 3.0], [5.0, 5.0], [0.0, 4.0]]  # two points are shared by all; -0, 2 and -2 are their own
    assert seed_spread(step(rows, [[1.0]] * 3)) == pytest.approx(math.sqrt((0 + 2 + 2) / 2))
    assert seed_spread(step([[one, two + 7] for one, two in rows], [[1.0]] * 3)) == pytest.approx(math.sqrt(2))
    assert math.isnan(seed_spread(step(RISING, RISING)))


def test_each_cheap_seed_makes_its_own_choice() -> None:
    two = step([[1.0, 1.2], [2.0, 2.2], [4.0, 4.2]], [[1.0, 9.0], [2.0, 2.0], [3.0, 3.0]])
    assert regret(two).tolist() == pytest.approx([0.0, 3.0])
    found = ranking(two)
    assert found.regret.value == pytest.approx(1.5)
    assert found.within_one_sd == 0.5
    assert found.kendall.value == pytest.approx((1.0 - 1 / 3) / 2)


def test_over_all_candidates_the_scores_themselves_are_compared() -> None:
    low, high = step(RISING, RISING), step([[11.0], [12.0], [13.0], [14.0]], [[11.0], [12.0], [13.0], [14.0]])
    assert overall_spearman([low, high]).value == pytest.approx(1.0)
    mixed = overall_spearman([low, step([[11.0], [12.0], [13.0], [14.0]], [[14.0], [13.0], [12.0], [11.0]])])
    assert 0.7 < mixed.value < 1 and mixed.low < mixed.value


def test_luck_is_told_by_the_interval() -> None:
    rng = np.random.default_rng(3)
    found = ranking(step(rng.normal(size=(9, 2)).tolist(), rng.normal(size=(9, 1)).tolist()))
    assert found.kendall.low < 0 < found.kendall.high


def test_seed_noise_is_what_is_left_of_the_spread_once_what_all_share_is_taken_off() -> None:
    shared = step(RISING, [[1.0, 6.0], [2.0, 7.0], [4.0, 9.0]])  # the second seed is 5 points better for all
    assert seed_noise(shared) == pytest.approx(0)
    own = step(RISING, [[1.0, 3.0], [2.0, 2.0], [4.0, 2.0]])
    assert seed_noise(own) == pytest.approx(math.sqrt((2 + 0 + 2) / 2))
    assert math.isnan(seed_noise(step(RISING, RISING)))


def test_scores_that_are_all_alike_have_no_rank_and_no_interval() -> None:
    found = ranking(step([[1.0]] * 4, [[2.0]] * 4))
    assert math.isnan(found.kendall.value) and math.isnan(found.kendall.low) and found.regret.value == 0


def test_steps_with_more_seeds_than_others_are_ranked_by_those_all_have() -> None:
    two_seeds = step(RISING, [[1.0, 9.0], [2.0, 7.0], [3.0, 8.0], [5.0, 6.0]])
    one_seed = step(RISING, [[4.0], [3.0], [6.0], [7.0]])
    first = step(RISING, [[1.0], [2.0], [3.0], [5.0]])
    assert overall_spearman([two_seeds, one_seed]) == overall_spearman([first, one_seed])
