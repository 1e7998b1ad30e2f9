"""How long a search may take, from what it has taken so far and how networks grew in the paper. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

GROWTH = 1.37
"""Latency from one step to the next: (31.18 / 0.38) ** (1 / 14), the paper's Table 4."""

LATENCIES_A_STEP = 50
"""Distinct networks measured in a step: 49 in the run `results/runs/2026-11-20_camvid_cpu`, rounded up."""

CANDIDATES_A_STEP = 9
"""Distinct candidates a step: on few paths the second and third scale operation coincide."""


GROWING_STEPS = 50
"""Networks are taken to grow for so many steps and no more; no search gets there, and its estimate stays a number."""


def steps_s(training_s: float, latency_s: float, steps: int) -> float:
    """Seconds of so many steps from a network whose training and whose latency take so long.

    A training grows with the network; what an export and a loop of samples take hardly does.
    """
    growing = min(steps, GROWING_STEPS)
    grown = GROWTH * (GROWTH**growing - 1) / (GROWTH - 1) + (steps - growing) * GROWTH**growing
    return LATENCIES_A_STEP * latency_s * steps + CANDIDATES_A_STEP * training_s * grown


def remaining_s(
    trainings_s: Sequence[float], latency_s: float, *, left: int, latencies_left: int = 0, steps_left: int, parallel: int = 1
) -> float | None:
    """Seconds a search may still take; None where no training has ended that it could be told from.

    Args:
        trainings_s: seconds of the trainings of the step at work, or where none has ended those of the step before.
        latency_s: seconds of a latency.
        left: candidates of the step at work that are still to be trained.
        latencies_left: networks that this step may still measure.
        steps_left: steps after that.
        parallel: trainings at a time.
    """
    if not trainings_s:
        return None
    training_s = statistics.fmean(trainings_s) / parallel
    return left * training_s + latencies_left * latency_s + steps_s(training_s, latency_s, steps_left)
