"""Many networks in turns: a turn loads one network, warms it up and samples it shortly, and every round gives each a turn.

So clocks that drift and neighbours that come and go meet all networks alike, one network is in memory at a time, and a
turn that is done need not be done again. Two networks that are loaded side by side are compared in `compare.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from latency.backends import usable_backend
from latency.measure import failures_of, is_paced
from latency.measurement import Conditions
from latency.memory import Growth
from latency.pace import least_ms, slowness
from latency.protocols import MeasurementFailed
from latency.state import machine_state
from latency.timing import paced, timed_run, warm_up

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from latency.protocols import Session

RUNS_TO_WARM = 10
"""A network is warmed up where so many runs fit the time of its turn; of a slower one two runs before the samples will do."""

MAX_SPREAD = 0.10
"""How far a network's second fastest turn may be from its fastest, as a share of it, before its latency is called unstable."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a turn gave.

    Args:
        samples_ms: milliseconds a run, at least one.
        clock: "perf_counter" or "cuda-events".
        load_s: seconds to load the network.
        memory_bytes: taken by loading and running it, None where that was not asked for or is not known.
        found: what the runtime reported of itself, the output's shape, and the state of the machine.
    """

    samples_ms: tuple[float, ...]
    clock: str
    load_s: float
    memory_bytes: int | None = None
    found: dict[str, Any] = field(default_factory=dict)


def take_turn(
    make: Callable[[], nn.Module], conditions: Conditions, *, expected: np.ndarray | None = None, with_memory: bool = False
) -> Turn:
    """Load a network, check its output, and sample it for the plan's time; at least once.

    Args:
        make: gives a module that ends at the boundary, in the form that is timed, or a `GraphFile`.
        conditions: of the turn.
        expected: its output for the seeded input; without one the output must only be finite.
        with_memory: also measure the memory it takes; this process should have loaded no other network then.

    Raises:
        BackendError: an unknown or unusable backend.
        MeasurementFailed: it cannot be built or run, or gives something else.
    """
    from latency.export import seeded_input

    backend = usable_backend(conditions.backend, conditions.device)
    growth = Growth(conditions.device) if with_memory else None
    with failures_of(backend):
        start = time.perf_counter()
        with backend.load(make(), conditions) as session:
            load_s = time.perf_counter() - start
            output = session.infer(seeded_input(conditions.shape))
            run_s = time.perf_counter() - start - load_s
            _check(output, expected, conditions.precision)
            if RUNS_TO_WARM * run_s <= conditions.plan.min_s:
                warm_up(session, conditions.plan)
            else:
                timed_run(session)  # having seen a run ONNX Runtime lays out its memory anew, which can double the second
            samples, pace = _samples(session, conditions)
            found = {**session.found, "output_shape": list(output.shape), "output_type": str(output.dtype)}
            return Turn(
                samples_ms=samples,
                clock=session.clock,
                load_s=load_s,
                memory_bytes=growth.bytes() if growth else None,
                found={**found, "state": machine_state(conditions.device) | pace},
            )


def _samples(session: Session, conditions: Conditions) -> tuple[tuple[float, ...], dict[str, Any]]:
    """At least one sample; of those that a CPU allows, only what was taken while it was as fast as it can be."""
    if is_paced(conditions):
        timing = paced(session, conditions.plan, partial(slowness, conditions.threads), wanted=1)
        pace = {"pace_ms": least_ms(conditions.threads)}
        return timing.samples_ms, {"slowness": timing.slowness, "slow_samples": len(timing.left_out_ms), **pace}
    samples, start = [timed_run(session)], time.perf_counter()
    while time.perf_counter() - start < conditions.plan.min_s:
        samples.append(timed_run(session))
    return tuple(samples), {}


def _check(output: np.ndarray, expected: np.ndarray | None, precision: str) -> None:
    import numpy as np

    from latency.export import check_agreement

    if expected is not None:
        check_agreement(output, expected, precision)
    elif not np.isfinite(output).all():
        raise MeasurementFailed("the output holds NaN or infinity")


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The turns of one network under the same conditions, one a round. What disturbs a turn adds time, so that the fastest counts."""

    turns: tuple[Sequence[float], ...]
    """Samples of each turn, milliseconds."""

    @property
    def latency_ms(self) -> float:
        """Smallest median of a turn."""
        return self._medians[0]

    @property
    def slowest_ms(self) -> float:
        """Largest."""
        return self._medians[-1]

    @property
    def stable(self) -> bool:
        """Whether a second turn comes near the fastest; a single one has none."""
        return len(self.turns) > 1 and self._medians[1] - self.latency_ms <= MAX_SPREAD * self.latency_ms

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(map(len, self.turns))

    @cached_property
    def _medians(self) -> list[float]:
        return sorted(statistics.median(samples) for samples in self.turns)
