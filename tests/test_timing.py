"""Warm-up and sampling over a session that is made up, under a clock that only its runs move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from latency import timing
from latency.measurement import MIN_SAMPLES_EVER, TimingPlan
from latency.protocols import MeasurementFailed

MakeSession = Callable[..., "FakeSession"]


class FakeSession:
    """Each run moves the clock by `run_s` and reports the next of `values`, then 1.0 for ever."""

    clock = "perf_counter"

    def __init__(self, now: list[float], run_s: float, values: Iterable[float]) -> None:
        self.found: dict[str, Any] = {}
        self.runs = 0
        self._now = now
        self._run_s = run_s
        self._values: Iterator[float] = chain(values, repeat(1.0))

    def infer(self, image: np.ndarray) -> np.ndarray:
        raise AssertionError("sampling needs no output")

    def run_ms(self) -> float:
        self.runs += 1
        self._now[0] += self._run_s
        return next(self._values)


@pytest.fixture
def make_session(monkeypatch: pytest.MonkeyPatch) -> MakeSession:
    now = [100.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def make(run_s: float = 0.125, values: Iterable[float] = ()) -> FakeSession:
        return FakeSession(now, run_s, values)

    return make


def test_three_runs_warm_up_where_no_time_is_asked_for(make_session: MakeSession) -> None:
    session = make_session(values=[90.0, 50.0, 20.0])
    result = timing.sample(session, TimingPlan(warmup_s=0, min_samples=5, min_s=0))
    assert result.warmup_runs == 3
    assert result.samples_ms == (1.0,) * 5
    assert session.runs == 8


def test_warm_up_lasts_as_long_as_asked(make_session: MakeSession) -> None:
    session = make_session(run_s=0.125, values=[9.0] * 16)
    result = timing.sample(session, TimingPlan(warmup_s=2.0, min_samples=5, min_s=0))
    assert result.warmup_runs == 16
    assert 9.0 not in result.samples_ms


def test_samples_stop_at_the_least_number_when_no_time_is_asked_for(make_session: MakeSession) -> None:
    assert len(timing.sample(make_session(), TimingPlan(min_samples=17, min_s=0)).samples_ms) == 17


def test_samples_go_on_for_the_least_time_which_the_warm_up_does_not_count_in(make_session: MakeSession) -> None:
    result = timing.sample(make_session(run_s=0.125), TimingPlan(warmup_s=2.0, min_samples=5, min_s=4.0, max_s=100))
    assert len(result.samples_ms) == 32


def test_the_least_number_of_samples_is_taken_beyond_the_least_time(make_session: MakeSession) -> None:
    assert len(timing.sample(make_session(run_s=1.0), TimingPlan(min_samples=12, min_s=3.0, max_s=100)).samples_ms) == 12


def test_the_longest_time_ends_sampling_short_of_the_least_number(make_session: MakeSession) -> None:
    assert len(timing.sample(make_session(run_s=1.0), TimingPlan(min_samples=30, min_s=1.0, max_s=10.0)).samples_ms) == 10


def test_the_longest_time_does_not_end_sampling_before_a_measurement_can_be_made(make_session: MakeSession) -> None:
    result = timing.sample(make_session(run_s=60.0), TimingPlan(min_samples=30, min_s=1.0, max_s=10.0))
    assert len(result.samples_ms) == MIN_SAMPLES_EVER


def test_samples_keep_their_order(make_session: MakeSession) -> None:
    values = [8.0, 8.0, 8.0, 5.0, 3.0, 4.0, 2.0, 6.0]
    assert timing.sample(make_session(values=values), TimingPlan(warmup_s=0, min_samples=5, min_s=0)).samples_ms == tuple(values[3:])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 0.0, -0.5])
def test_a_time_that_is_not_finite_and_above_zero_fails_with_the_value(make_session: MakeSession, wrong: float) -> None:
    session = make_session(values=[1.0] * 7 + [wrong])
    with pytest.raises(MeasurementFailed, match=f"reported {wrong} ms"):
        timing.sample(session, TimingPlan(warmup_s=0, min_samples=30, min_s=0))
    assert session.runs == 8


@pytest.mark.parametrize(("run_ms", "expected"), [(1.0, 1), (0.2, 1), (0.07, 3), (0.01, 20)])
def test_a_run_too_short_for_the_devices_clock_is_timed_several_times_in_a_row(
    run_ms: float, expected: int, make_session: MakeSession
) -> None:
    session = make_session(run_s=0.001, values=[run_ms] * 1000)
    session.runs_a_sample = 1  # type: ignore[attr-defined]
    result = timing.sample(session, TimingPlan(warmup_s=0.05, min_samples=5, min_s=0))
    assert result.runs_a_sample == session.runs_a_sample == expected  # type: ignore[attr-defined]


def test_a_session_that_times_single_runs_only_is_left_alone(make_session: MakeSession) -> None:
    session = make_session(run_s=0.001, values=[0.01] * 1000)
    result = timing.sample(session, TimingPlan(warmup_s=0.05, min_samples=5, min_s=0))
    assert result.runs_a_sample == 1 and not hasattr(session, "runs_a_sample")


PACED = TimingPlan(warmup_s=0, min_samples=5, min_s=0.2, max_s=3.0)
"""Three runs to warm up; then blocks of a run that brings back the caches and samples for 0.05 s."""


def told(values: list[float]) -> Callable[[], float]:
    """One of the values a call, the last for ever."""
    rest = chain(values, repeat(values[-1]))
    return lambda: next(rest)


def test_what_is_sampled_while_the_machine_is_slow_is_left_out(make_session: MakeSession) -> None:
    session = make_session(run_s=0.01, values=[9.0] * 3 + [8.0] + [1.0] * 5 + [8.0] + [2.0] * 5 + [8.0] + [3.0] * 5)
    result = timing.sample(session, PACED, told([1.0, 1.1, 1.9, 1.2, 1.2]))  # before the blocks: 1.0, 1.1, 1.9, 1.2
    assert set(result.left_out_ms) == {2.0, 3.0} and result.slowness == 1.2
    assert set(result.samples_ms) == {1.0} and len(result.samples_ms) >= 20


def test_a_machine_that_stays_slow_is_sampled_all_the_same(make_session: MakeSession) -> None:
    session = make_session(run_s=0.01)
    result = timing.sample(session, PACED, told([1.0, 1.4, 2.0]))
    assert result.slowness == 2.0 and result.left_out_ms == ()
    assert len(result.samples_ms) == session.runs - 3 - round(len(result.samples_ms) / 5)  # each block has an unrecorded run
    assert 6 * PACED.min_s <= session.runs * 0.01 < 6 * PACED.min_s + 0.2


def test_a_few_samples_of_a_fast_machine_are_better_than_many_of_a_slow_one(make_session: MakeSession) -> None:
    result = timing.sample(make_session(run_s=0.01), PACED, told([1.0, 1.0, 1.0, 3.0]))
    assert result.slowness == 1.0 and len(result.samples_ms) == 10 and len(result.left_out_ms) > 50


def test_a_slow_network_is_sampled_run_by_run(make_session: MakeSession) -> None:
    session = make_session(run_s=1.0, values=[1.0] * 3 + [5.0, 6.0, 7.0])
    result = timing.paced(session, TimingPlan(min_s=0.4), told([1.0]), wanted=1)
    assert len(result.samples_ms) == 1 and result.slowness == 1.0
    result = timing.sample(make_session(run_s=1.0), TimingPlan(warmup_s=0, min_samples=30, min_s=1.0, max_s=10.0), told([1.0]))
    assert len(result.samples_ms) == 10
