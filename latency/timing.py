"""Warm-up and sampling over a session: the only place where runs are repeated."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

from latency.measurement import MIN_SAMPLES_EVER, TimingPlan
from latency.protocols import MeasurementFailed, Session

_MIN_WARMUP_RUNS = 3
_WINDOW = 5
_SETTLED = 0.05
_LONGEST_WARMUP = 5

SHORTEST_MS = 0.2
"""Where a run is shorter than this on a device's clock, as many are timed in a row: an event resolves half a microsecond."""


@dataclass(frozen=True)
class Timing:
    """Samples in milliseconds a run, in the order taken, the unrecorded runs before them, and the runs behind each sample."""

    samples_ms: tuple[float, ...]
    warmup_runs: int
    runs_a_sample: int = 1


def sample(session: Session, plan: TimingPlan) -> Timing:
    """Warm a session up and sample it as `plan` says.

    Raises:
        MeasurementFailed: the session reports a time that is not finite and above 0.
    """
    warmup_runs = warm_up(session, plan)
    samples: list[float] = []
    start = time.perf_counter()
    while True:
        elapsed = time.perf_counter() - start
        enough = len(samples) >= plan.min_samples and elapsed >= plan.min_s
        out_of_time = len(samples) >= MIN_SAMPLES_EVER and elapsed >= plan.max_s
        if enough or out_of_time:
            return Timing(tuple(samples), warmup_runs, getattr(session, "runs_a_sample", 1))
        samples.append(timed_run(session))


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
