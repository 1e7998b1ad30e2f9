"""Warm-up and sampling over a session: the only place where runs are repeated."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from latency.measurement import MAX_SLOWNESS, MIN_SAMPLES_EVER, TimingPlan
from latency.protocols import MeasurementFailed, Session

_MIN_WARMUP_RUNS = 3
_WINDOW = 5
_SETTLED = 0.05
_LONGEST_WARMUP = 5
_BLOCK_S = 0.05
_PATIENT = 6
"""A machine that is slow now and then is sampled for at most so many times the planned seconds."""

SHORTEST_MS = 0.2
"""Where a run is shorter than this on a device's clock, as many are timed in a row: an event resolves half a microsecond."""


@dataclass(frozen=True)
class Timing:
    """What sampling gave.

    Args:
        samples_ms: milliseconds a run, in the order taken.
        warmup_runs: unrecorded runs before them.
        runs_a_sample: runs behind each sample.
        slowness: the largest the machine was found at beside these samples, None where it was not asked for.
        left_out_ms: samples taken while the machine was slow.
    """

    samples_ms: tuple[float, ...]
    warmup_runs: int
    runs_a_sample: int = 1
    slowness: float | None = None
    left_out_ms: tuple[float, ...] = ()


def sample(session: Session, plan: TimingPlan, slowness: Callable[[], float] | None = None) -> Timing:
    """Warm a session up and sample it as `plan` says.

    Args:
        session: is run.
        plan: how long and how often.
        slowness: of the machine now, over its best (`latency.pace`). Asked before and after each twentieth of a second: what was
            sampled between is left out where the machine was slow, unless too little were to remain.

    Raises:
        MeasurementFailed: the session reports a time that is not finite and above 0.
    """
    warmup_runs = warm_up(session, plan)
    if slowness is not None:
        return dataclasses.replace(paced(session, plan, slowness), warmup_runs=warmup_runs)
    samples: list[float] = []
    start = time.perf_counter()
    while True:
        elapsed = time.perf_counter() - start
        enough = len(samples) >= plan.min_samples and elapsed >= plan.min_s
        out_of_time = len(samples) >= MIN_SAMPLES_EVER and elapsed >= plan.max_s
        if enough or out_of_time:
            return Timing(tuple(samples), warmup_runs, getattr(session, "runs_a_sample", 1))
        samples.append(timed_run(session))


def paced(session: Session, plan: TimingPlan, slowness: Callable[[], float], wanted: int | None = None) -> Timing:
    """As `sample`, of a session that is warm already.

    Args:
        session: is run.
        plan: how long and how often.
        slowness: of the machine now.
        wanted: samples at least, in the place of the plan's.

    Raises:
        MeasurementFailed: the session reports a time that is not finite and above 0.
    """
    wanted = wanted or plan.min_samples
    fewest = min(wanted, MIN_SAMPLES_EVER)
    kept: list[float] = []
    left_out: list[float] = []
    every: list[float] = []
    usual_s, usual, worst, start, before = 0.0, 1.0, 1.0, time.perf_counter(), slowness()
    while True:
        block, seconds = _block(session)
        after = slowness()
        slow, before = max(before, after), after
        worst = max(worst, slow)
        every += block
        if slow <= MAX_SLOWNESS:
            kept, usual_s, usual = kept + block, usual_s + seconds, max(usual, slow)
        else:
            left_out += block
        elapsed = time.perf_counter() - start
        enough = len(kept) >= wanted and usual_s >= plan.min_s
        tired = len(every) >= wanted and elapsed >= _PATIENT * plan.min_s
        out_of_time = len(every) >= fewest and elapsed >= plan.max_s
        if enough or tired or out_of_time:
            runs = getattr(session, "runs_a_sample", 1)
            if len(kept) < fewest:
                return Timing(tuple(every), 0, runs, worst)
            return Timing(tuple(kept), 0, runs, usual, tuple(left_out))


def _block(session: Session) -> tuple[list[float], float]:
    """Samples of a twentieth of a second, at least one, and the seconds they took; a short first run brings back the caches only."""
    start = time.perf_counter()
    samples = [timed_run(session)]
    if time.perf_counter() - start < _BLOCK_S:
        start, samples = time.perf_counter(), []
    while not samples or time.perf_counter() - start < _BLOCK_S:
        samples.append(timed_run(session))
    return samples, time.perf_counter() - start


def timed_run(session: Session) -> float:
    """Milliseconds of a run. Raises `MeasurementFailed` where the session reports a time that is not finite and above 0."""
    value = session.run_ms()
    if not (math.isfinite(value) and value > 0):
        raise MeasurementFailed(f"the backend reported {value} ms for a run")
    return value


def warm_up(session: Session, plan: TimingPlan) -> int:
    """Run a session unrecorded for the plan's time, then until it is steady; returns the number of runs.

    A session that can time several runs in a row is told to where one is too short for its clock.

    Steady is when the median of the last runs is near that of as many before; after five times the planned time the
    sampling begins all the same, and the verdict on its drift tells.
    """
    start = time.perf_counter()
    runs: list[float] = []
    while True:
        elapsed = time.perf_counter() - start
        if len(runs) >= _MIN_WARMUP_RUNS and elapsed >= plan.warmup_s and (_steady(runs) or elapsed >= _LONGEST_WARMUP * plan.warmup_s):
            _lengthen(session, runs)
            return len(runs)
        runs.append(timed_run(session))


def _lengthen(session: Session, runs: list[float]) -> None:
    if hasattr(session, "runs_a_sample"):
        session.runs_a_sample = max(1, math.ceil(SHORTEST_MS / statistics.median(runs[-_WINDOW:])))


def _steady(runs: list[float]) -> bool:
    if len(runs) < 2 * _WINDOW:
        return False
    before, last = statistics.median(runs[-2 * _WINDOW : -_WINDOW]), statistics.median(runs[-_WINDOW:])
    return abs(last - before) <= _SETTLED * before
