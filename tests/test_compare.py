"""Two networks in turns, and the noise floor: intervals against brute force, verdicts on made and on real sessions."""

from __future__ import annotations

import itertools
import random
import statistics
from pathlib import Path

import pytest
from torch import nn

from latency.compare import MIN_TURNS, compare, compared, comparison, in_turns, interleave, noise_floor
from latency.measurement import Conditions, TimingPlan
from latency.store import Store
from tests.backends import Small

QUICK = TimingPlan(warmup_s=0, min_samples=5, min_s=0)


def conditions(size: tuple[int, int] = (32, 48)) -> Conditions:
    return Conditions(backend="torch", device="cpu", shape=(1, 3, *size), boundary="logits", plan=QUICK)


def test_the_interval_is_that_of_the_sign_test() -> None:
    # Of 2**n equally likely sides of the median, at most 5 % leave it outside the interval; one rank more and it is above.
    for turns in range(MIN_TURNS, 13):
        found = compared([1.0] * turns, [float(value) for value in range(1, turns + 1)])
        outside = int(found.low) - 1
        assert found.high == turns - outside

        def missed(rank: int, turns: int = turns) -> float:
            sides = itertools.product((0, 1), repeat=turns)
            return sum(sum(side) <= rank or sum(side) >= turns - rank for side in sides) / 2**turns

        assert missed(outside) <= 0.05 < missed(outside + 1)


def test_a_gap_beyond_the_noise_has_a_winner_and_one_within_is_a_tie() -> None:
    generator = random.Random(0)
    drift = [1 + 0.3 * turn / 40 for turn in range(40)]
    first = [10 * d * generator.gauss(1, 0.02) for d in drift]
    slower = [10.6 * d * generator.gauss(1, 0.02) for d in drift]
    same = [10 * d * generator.gauss(1, 0.02) for d in drift]
    assert compared(first, slower).faster == "first"
    assert compared(slower, first).faster == "second"
    assert compared(first, same).faster == "tie"
    assert compared(first, slower).ratio == pytest.approx(1.06, abs=0.02)
    assert statistics.stdev(first) / statistics.mean(first) > 0.06  # single measurements would not have told


def test_networks_are_run_in_turns_and_change_places(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []

    class Counting(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.inner, self.number = Small(), number

        def forward(self, image: object) -> object:
            order.append(self.number)
            return self.inner(image)

    told: list[tuple[int, int]] = []
    found = interleave(Counting(0), Counting(1), conditions(), turns=6, on_turn=lambda done, total: told.append((done, total)))
    assert len(found.first_ms) == len(found.second_ms) == 6
    assert told == [(turn, 6) for turn in range(1, 7)]
    counted = order[-6 * 8 :]  # before them, agreement and warm-up
    turns = [counted[8 * turn : 8 * turn + 8] for turn in range(6)]
    assert turns == [[0] * 4 + [1] * 4, [1] * 4 + [0] * 4] * 3


def test_a_network_that_does_far_more_is_slower() -> None:
    large = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1))
    found = interleave(nn.Conv2d(3, 4, 1), large, conditions((128, 128)), turns=MIN_TURNS)
    assert found.faster == "first" and found.summary()["ratio"] > 2


def test_too_few_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6, got 5"):
        interleave(Small(), Small(), conditions(), turns=5)


def test_the_noise_floor_has_a_row_a_build_and_a_column_a_repeat() -> None:
    told: list[int] = []
    found = noise_floor(Small(), conditions(), repeats=2, rebuilds=3, on_repeat=lambda done, total: told.append(done))
    assert [len(row) for row in found.medians_ms] == [2, 2, 2] and told == [1, 2, 3, 4, 5, 6]
    spreads = [abs(a - b) / statistics.median((a, b)) for a, b in found.medians_ms]
    assert found.repeat_spread == pytest.approx(max(spreads))
    builds = [statistics.median(row) for row in found.medians_ms]
    assert found.rebuild_spread == pytest.approx((max(builds) - min(builds)) / statistics.median(builds))
    assert found.floor == max(found.repeat_spread, found.rebuild_spread)
    assert found.coefficient_of_variation > 0


def test_networks_in_turns_are_a_row_of_their_own_that_is_kept(tmp_path: Path) -> None:
    store, at = Store(tmp_path / "store.sqlite"), conditions()
    first, second = Small(), nn.Conv2d(3, 4, 3)
    row = compare(first, second, at, subjects=("a", "b"), store=store, reason="a tie", turns=MIN_TURNS)
    assert compare(first, second, at, subjects=("a", "b"), store=store, reason="a tie") == row
    assert row.subject == in_turns("a", "b") and row.found["reason"] == "a tie"
    assert store.find("a", at, row.environment) is None and len(store.all()) == 1  # no single measurement is answered by it
    found = comparison(row)
    assert found.first_ms == row.samples_ms and found.low <= found.ratio <= found.high
    other = compare(second, first, at, subjects=("b", "a"), store=store, reason="a tie", turns=MIN_TURNS)
    assert other.subject != row.subject and len(store.all()) == 2
