"""Warm-up and sampling over a session: the only place where runs are repeated."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from latency.measurement import MIN_SAMPLES_EVER, TimingPlan
from latency.protocols import MeasurementFailed, Session

_MIN_WARMUP_RUNS = 3


@dataclass(frozen=True)
class Timing:
    """Samples in milliseconds, in the order taken, and the unrecorded runs before them."""

    samples_ms: tuple[float, ...]
    warmup_runs: int


def sample(session: Session, plan: TimingPlan) -> Timing:
    """Run a session as `plan` says.

    Raises:
        MeasurementFailed: the session reports a time that is not finite and above 0.
    """
    start = time.perf_counter()
    warmup_runs = 0
    while warmup_runs < _MIN_WARMUP_RUNS or time.perf_counter() - start < plan.warmup_s:
        session.run_ms()
        warmup_runs += 1
    samples: list[float] = []
    start = time.perf_counter()
    while True:
        elapsed = time.perf_counter() - start
        enough = len(samples) >= plan.min_samples and elapsed >= plan.min_s
        out_of_time = len(samples) >= MIN_SAMPLES_EVER and elapsed >= plan.max_s
        if enough or out_of_time:
            return Timing(tuple(samples), warmup_runs)
        value = session.run_ms()
        if not (math.isfinite(value) and value > 0):
            raise MeasurementFailed(f"the backend reported {value} ms for a run")
        samples.append(value)
