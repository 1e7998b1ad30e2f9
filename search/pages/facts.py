"""What a report is made of: an open run, what its stores say it decided, and what could not be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from latency.measurement import Measurement
from lpsnet.data import data_name
from lpsnet.errors import UserError
from search.report import candidate_row, family_row, records
from search.run import Run
from search.runner import Progress, replay
from search.step import Step, Trial
from search.study import TrainingRecord


@dataclass(frozen=True)
class Omission:
    """Something that the report lacks or that the search passed over.

    Args:
        where: step or part.
        what: operation, network, file.
        why: the reason.
    """

    where: str
    what: str
    why: str


@dataclass(frozen=True)
class RunFacts:
    """A run and what it decided; read from its stores, nothing is measured or trained."""

    run: Run
    progress: Progress
    omissions: list[Omission] = field(default_factory=list)

    @property
    def steps(self) -> list[Step]:
        """Decided steps, the start first."""
        return self.progress.steps

    @cached_property
    def entries(self) -> tuple[tuple[Step, Trial, TrainingRecord], ...]:
        """Every candidate of every step with its training."""
        return tuple(records(self.run, self.steps))

    @cached_property
    def candidates(self) -> tuple[dict[str, Any], ...]:
        """Rows of `candidates.csv`, in the order of `entries`."""
        return tuple(candidate_row(self.run, *entry) for entry in self.entries)

    @property
    def members(self) -> tuple[tuple[Step, TrainingRecord], ...]:
        """The chain with its trainings."""
        return tuple((step, record) for step, trial, record in self.entries if trial is step.chosen_trial)

    @cached_property
    def family(self) -> tuple[dict[str, Any], ...]:
        """Rows of `family.csv`, in the order of `members`."""
        return tuple(family_row(self.run, step, record) for step, record in self.members)

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every latency of the run's store."""
        return tuple(self.run.store.all())

    @property
    def data(self) -> str:
        """Name of the data set."""
        return data_name(self.run.config.data)

    @property
    def latency_name(self) -> str:
        """What a latency of the search is, for an axis or a column."""
        return f"latency to the {self.run.config.boundary} (ms)"


def read_facts(run: Run) -> RunFacts:
    """What an open run decided so far. Raises `UserError` where that is nothing."""
    progress = replay(run)
    if not progress.steps:
        raise UserError(f"{run.path} has decided nothing yet; lps-search resume {run.path} goes on with it")
    return RunFacts(run, progress)
