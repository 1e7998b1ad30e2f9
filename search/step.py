"""What a search asks for and what it decides, as values: requests, answers, candidates, steps. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lpsnet.architecture import Architecture


@dataclass(frozen=True)
class Failure:
    """An answer that could not be had, and why."""

    reason: str


@dataclass(frozen=True)
class Measure:
    """Asks for the latency, in milliseconds, of each network."""

    step: int
    architectures: tuple[Architecture, ...]


@dataclass(frozen=True)
class Candidate:
    """A network that a step may take: the operations and their k that lead to it, and its latency."""

    architecture: Architecture
    expansions: tuple[tuple[str, int], ...]
    latency_ms: float

    @property
    def text(self) -> str:
        """The operations for a reader, for example `depth-4 x7` or `scale-2 x1 = scale-3 x1`; "start" for the start."""
        if self.expansions == CONTROL:
            return "control"
        return " = ".join(f"{name} x{k}" for name, k in self.expansions) or "start"

    @property
    def k(self) -> int:
        """Units of the first operation, 0 for the start."""
        return self.expansions[0][1] if self.expansions else 0


CONTROL = (("control", 0),)
"""The expansions of the candidate that is the parent again, trained as long as the others."""


@dataclass(frozen=True)
class Train:
    """Asks for the validation mIoU, in percent, of each candidate.

    Args:
        step: number of the step.
        parent: None for the start.
        candidates: what to train; the parent is among them where a control is needed.
        rung: iterations after which to score, the training to be gone on with later; 0 for a whole training.
        seed: which of the search's seeds, counted from 0.
    """

    step: int
    parent: Architecture | None
    candidates: tuple[Candidate, ...]
    rung: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Gain:
    """What a candidate gains over its parent.

    Args:
        percent: points of mIoU, mean over the seeds.
        error: standard error of it, in points.
        iterations: of training after which it was scored.
        seeds: how many were trained.
    """

    percent: float
    error: float
    iterations: int
    seeds: int


@dataclass(frozen=True)
class Compare:
    """Asks which of two networks is faster, by running them in turns: their latencies are too near for anything else."""

    step: int
    first: Architecture
    second: Architecture


@dataclass(frozen=True)
class InTurns:
    """The answer to `Compare`: median ratio of the latencies, second over first, with the ends of its 95 % interval."""

    ratio: float
    low: float
    high: float

    @property
    def settled(self) -> float:
        """The ratio, or 1 where the interval holds 1: then neither is faster."""
        return 1.0 if self.low <= 1 <= self.high else self.ratio


@dataclass(frozen=True)
class Tie:
    """Two networks whose latencies lay within the noise, and what running them in turns said."""

    first: Architecture
    second: Architecture
    answer: InTurns | Failure

    @property
    def text(self) -> str:
        """For a reader."""
        if isinstance(self.answer, Failure):
            return f"{self.first} against {self.second}: {self.answer.reason}; the single measurements decide"
        verdict = "neither is faster" if self.answer.settled == 1 else f"{self.first if self.answer.ratio > 1 else self.second} is faster"
        return f"{self.first} against {self.second} in turns, ratio {self.answer.low:.3f} to {self.answer.high:.3f}: {verdict}"


@dataclass(frozen=True)
class Member:
    """A network of the chain with its latency and mIoU."""

    architecture: Architecture
    latency_ms: float
    miou_percent: float


@dataclass(frozen=True)
class Trial:
    """A candidate of a step with its outcome.

    Args:
        candidate: the network.
        outcome: mIoU in percent, or why there is none.
        slope: gain in mIoU over gain in latency (Eq. 5), percent a millisecond; NaN without an outcome. The gain in latency
            is that of the single measurements, or of the parent in turns with the candidate where these were a tie.
        gain: over the control, None without an outcome and for the start.
    """

    candidate: Candidate
    outcome: float | Failure
    slope: float
    gain: Gain | None = None


@dataclass(frozen=True)
class Step:
    """A decided step.

    Args:
        number: 0 for the start, which has no parent, target or rivals.
        parent: the network expanded.
        target_ms: L_T, the largest latency after one unit of any operation.
        trials: every candidate, in the order of Table 1.
        chosen: the new member of the chain.
        skipped: operation by name, and why it (or what lies beyond some k) was not considered.
        warnings: what a reader should know of the choice.
        excluded: operation by name, and which k a forecast spared a measurement.
        ties: what was run in turns.
        sure: how likely the chosen one's slope is the larger, against the rival nearest to it; NaN without a rival.
    """

    number: int
    parent: Member | None
    target_ms: float | None
    trials: tuple[Trial, ...]
    chosen: Member
    skipped: Mapping[str, str]
    warnings: tuple[str, ...]
    excluded: Mapping[str, str] = field(default_factory=dict)
    ties: tuple[Tie, ...] = ()
    sure: float = math.nan

    @property
    def chosen_trial(self) -> Trial:
        """The trial that was taken."""
        return next(trial for trial in self.trials if trial.candidate.architecture == self.chosen.architecture)


def slope_text(value: float) -> str:
    """A slope for a reader: a number, a free gain, or none."""
    if math.isnan(value):
        return "-"
    return {math.inf: "free gain", -math.inf: "no gain"}.get(value, f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.2g}")


Answers = Mapping[Architecture, float | Failure]
"""What is sent for `Measure` and `Train`: a number or a failure for every network asked for."""

Request = Measure | Train | Compare | Step

Reply = Answers | InTurns | Failure | None
"""What is sent for a request: `Answers`, for `Compare` an `InTurns` or a failure, for a `Step` None."""


class SearchStopped(Exception):
    """The search cannot take another step; the message says why. What was decided before stays valid."""
