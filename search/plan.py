"""What a search would do and how long it may take, estimated from its start (`expand --dry-run`)."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from latency.protocols import MeasurementFailed
from latency.store import Store
from lpsnet.complexity import complexity
from lpsnet.errors import UserError
from lpsnet.training import train
from search.config import SearchConfig
from search.estimate import CANDIDATES_A_STEP, GROWTH, LATENCIES_A_STEP, steps_s
from search.executor import LocalExecutor
from search.observer import Observer
from search.space import OPERATIONS, expansion

_TRIAL_ITERATIONS = 5


@dataclass(frozen=True, kw_only=True)
class Child:
    """One unit of one operation on the start."""

    operation: str
    architecture: str
    parameters: int
    macs_giga: float


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search would do.

    Args:
        children: the networks of the first round of measurements.
        latencies: networks measured in all, about.
        trainings: candidates trained in all, about.
        latency_s: seconds a latency of the start takes, its export included.
        training_s: seconds a training of the start takes, its validation included.
        growth: assumed growth in cost a step.
        total_s: estimated seconds in all.
    """

    children: tuple[Child, ...]
    latencies: int
    trainings: int
    latency_s: float
    training_s: float
    growth: float
    total_s: float


def plan_search(config: SearchConfig, store: Store, observer: Observer) -> SearchPlan:
    """Plan a search from one real latency and a few real iterations of its start.

    Raises:
        UserError: the start cannot be measured.
    """
    executor = LocalExecutor(config, store, observer)
    start = config.start_architecture
    children = []
    for operation in OPERATIONS:
        child = expansion(start, operation, 1)
        if config.bounds.allow(child):
            cost = complexity(child, len(executor.proxy.class_names), config.size)
            children.append(Child(operation=operation.name, architecture=str(child), parameters=cost.parameters, macs_giga=cost.macs / 1e9))
    try:
        measurement = executor.measure(start)
    except MeasurementFailed as failure:
        raise UserError(f"the start {start} cannot be measured: {failure}") from failure
    latency_s = measurement.load_s + config.plan.warmup_s + sum(measurement.samples_ms) / 1e3
    training_s = _training_seconds(config, executor)
    return SearchPlan(
        children=tuple(children),
        latencies=1 + LATENCIES_A_STEP * config.steps,
        trainings=1 + CANDIDATES_A_STEP * config.steps,
        latency_s=latency_s,
        training_s=training_s,
        growth=GROWTH,
        total_s=latency_s + training_s + steps_s(training_s, latency_s, config.steps),
    )


def _training_seconds(config: SearchConfig, executor: LocalExecutor) -> float:
    """Seconds of a whole training of the start, scaled up from a few iterations and a whole validation."""
    frames = executor.proxy.training
    frames.hold()
    executor.proxy.validation.hold()
    short = dataclasses.replace(config.proxy, iterations=_TRIAL_ITERATIONS)
    marks: list[float] = []

    def mark(what: str, done: int, total: int) -> None:
        if what == "iterations":
            marks.append(time.perf_counter())

    train(
        config.start_architecture,
        frames,
        executor.proxy.validation,
        short,
        seed=config.seed,
        device=config.training_device,
        on_progress=mark,
    )
    validation_s = time.perf_counter() - marks[-1]
    return (marks[-1] - marks[0]) / (_TRIAL_ITERATIONS - 1) * config.proxy.iterations + validation_s
