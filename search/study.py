"""The record of trainings: one Optuna study a step, one trial a training, in a journal file or any database.

Every trial carries the key it answers (architecture, recipe, parent trial, seed, iterations), so that a run resumes by
looking its questions up. A trial whose driver was killed is marked failed when the record is opened again and answers
nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from latency.told import check_fields, is_whole
from lpsnet.recipe import TrainRecipe
from search.journal import StudyError, open_journal, without_password

if TYPE_CHECKING:
    from search.database import Database

T = TypeVar("T")

optuna.logging.set_verbosity(optuna.logging.WARNING)

_STEP = re.compile("[0-9]{2,9}")

_SAMPLER = optuna.samplers.RandomSampler()
"""Never asked: the candidates come from Algorithm 1."""

METRIC = "mIoU (%)"
"""What the value of a trial is called in Optuna's own tools."""

ORPHANED = "the driver ended before the training did"


@dataclass(frozen=True, kw_only=True)
class TrainingKey:
    """What a training answers: equal keys are one training.

    Args:
        architecture: text of the network.
        recipe: of the whole training.
        parent_trial: trial of the network it was expanded from.
        seed: of weights, order of frames and augmentation.
        rung: iterations after which it was scored on its way; 0 at its end.
        inherited: whether it started from the weights of `parent_trial`.
    """

    architecture: str
    recipe: TrainRecipe
    parent_trial: str
    seed: int
    rung: int = 0
    inherited: bool = False

    def text(self) -> str:
        """Canonical text; the recipe is named by its hash, its iterations stand apart."""
        recipe = json.dumps(self.recipe.to_dict(), sort_keys=True)
        digest = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        parts = [self.architecture, f"recipe={digest}", f"parent={self.parent_trial}", f"seed={self.seed}"]
        parts.append(f"iterations={self.recipe.iterations}")
        return " ".join([*parts, *([f"rung={self.rung}"] if self.rung else []), *(["inherited"] if self.inherited else [])])


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """A finished training.

    Args:
        trial: name of the trial, `step/number`; empty before it is stored.
        miou_percent: validation mIoU, None for a failure.
        failure: why there is no score, empty otherwise.
        class_iou_percent: IoU a class, None where a class never occurs.
        curve: (iteration, mean loss) pairs.
        seconds: training and validation.
        weights: file in the run's folder, and its SHA-256; both empty for a failure.
    """

    trial: str = ""
    miou_percent: float | None = None
    failure: str = ""
    class_iou_percent: tuple[float | None, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    weights: str = ""
    weights_sha256: str = ""


class TrainingStudy:
    """The trainings of one run.

    Args:
        name: of the run; its studies are `name/step-00`, `name/step-01`, ...
        storage: a journal file's path, or a database URL (with `://`).
        heal: repair what a killed driver left. Only the one driver of the run may ask for it; a database server grants it to one.

    Raises:
        StudyError: a journal damaged elsewhere than in its last line, a database that cannot be reached, or another driver.
    """

    def __init__(self, name: str, storage: str, *, heal: bool) -> None:
        self.name, self._where = name, storage
        self._database = _open_database(storage, name if heal else None) if "://" in storage else None
        self._storage: BaseStorage = self._database.storage if self._database else open_journal(Path(storage), heal=heal)
        self._studies: dict[int, optuna.Study] = {}
        self._records: dict[str, TrainingRecord] = {}
        with self._told():
            self._read(heal=heal)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what a full disk or a lost database raises into `StudyError`."""
        try:
            yield
        except (OSError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise StudyError(
                f"study {without_password(self._where)} cannot be written: {reason}; go on with lps-search resume once it can"
            ) from error

    def refresh(self) -> None:
        """Take in what the run's driver has stored since; for a reader beside it."""
        self._read(heal=False)

    def _read(self, *, heal: bool) -> None:
        for study_name in sorted(name for name in optuna.get_all_study_names(self._storage) if isinstance(name, str)):
            prefix, _, step = study_name.rpartition("/step-")
            if prefix != self.name or not _STEP.fullmatch(step):
                continue
            if int(step) not in self._studies:
                # Loaded, not created: a reader beside a driver must write nothing.
                self._studies[int(step)] = optuna.load_study(study_name=study_name, storage=self._storage, sampler=_SAMPLER)
                if heal:
                    _name_metric(self._studies[int(step)])
            self._read_step(int(step), heal=heal)

    def find(self, key: TrainingKey) -> TrainingRecord | None:
        """The training that answers a key, or None where none has finished."""
        return self._records.get(key.text())

    def has_scores(self) -> bool:
        """Whether any training has given a score."""
        return any(record.miou_percent is not None for record in self._records.values())

    def close(self) -> None:
        """Let another driver have the record."""
        if self._database is not None:
            self._database.close()

    def begin(self, step: int, key: TrainingKey, attributes: dict[str, Any]) -> OpenTrial:
        """Open a trial in state RUNNING with its key and what else is known; JSON values only.

        Raises:
            StudyError: the database does not answer, or has granted the record to another driver meanwhile.
        """
        return self._write(lambda: self._begin(step, key, attributes))

    def _begin(self, step: int, key: TrainingKey, attributes: dict[str, Any]) -> OpenTrial:
        trial = self._study(step).ask()
        # In this order they are shown by Optuna's tools: what a reader looks for comes first.
        named = {"architecture": key.architecture, **attributes, "iterations": key.rung or key.recipe.iterations, "seed": key.seed}
        named |= {"parent_trial": key.parent_trial, "key": key.text(), "recipe": key.recipe.to_dict()}
        for name, value in named.items():
            trial.set_user_attr(name, value)
        return OpenTrial(step, trial.number, trial)

    def finish(
        self, handle: OpenTrial, key: TrainingKey, record: TrainingRecord, attributes: dict[str, Any] | None = None
    ) -> TrainingRecord:
        """Close a trial with its outcome and what else is known of it, and return the record with the trial's name. Raises as `begin`."""
        stored = dataclasses.replace(record, trial=f"step-{handle.step:02d}/{handle.number}")
        columns = {"failure": stored.failure} if stored.miou_percent is None else {"miou_percent": stored.miou_percent}
        told = {**columns, "train_s": stored.seconds, **(attributes or {}), "record": dataclasses.asdict(stored)}
        self._write(lambda: self._finish(handle, stored, told))
        self._records[key.text()] = stored
        return stored

    def _finish(self, handle: OpenTrial, stored: TrainingRecord, told: dict[str, Any]) -> None:
        with suppress(UpdateFinishedTrialError):  # a write that was tried again had arrived
            for name, value in told.items():
                handle.trial.set_user_attr(name, value)
            # The value itself is what makes the trial count, so it is written last.
            if stored.miou_percent is None:
                self._study(handle.step).tell(handle.number, state=TrialState.FAIL)
            else:
                self._study(handle.step).tell(handle.number, stored.miou_percent)

    def describe(self, step: int, attributes: dict[str, Any]) -> None:
        """Tell of a step what a reader of its study should know; JSON values only. Raises as `begin` does."""
        self._write(lambda: self._describe(step, attributes))

    def _describe(self, step: int, attributes: dict[str, Any]) -> None:
        study = self._study(step)
        known = study.user_attrs
        for name, value in attributes.items():
            if known.get(name) != value:
                study.set_user_attr(name, value)

    def _write(self, action: Callable[[], T]) -> T:
        """Write as the driver of the record, patiently where it lies in a database."""
        with self._told():
            return self._database.write(action) if self._database else action()

    def records(self) -> tuple[TrainingRecord, ...]:
        """Every finished training."""
        return tuple(self._records.values())

    def trials(self, step: int) -> list[FrozenTrial]:
        """Every trial of a step, orphaned ones included, in the order begun."""
        return self._study(step).get_trials(deepcopy=False) if step in self._studies else []

    def _study(self, step: int) -> optuna.Study:
        if step not in self._studies:
            self._studies[step] = optuna.create_study(
                study_name=f"{self.name}/step-{step:02d}",
                storage=self._storage,
                sampler=_SAMPLER,
                direction="maximize",
                load_if_exists=True,
            )
            _name_metric(self._studies[step])
        return self._studies[step]

    def _read_step(self, step: int, *, heal: bool) -> None:
        study = self._study(step)
        for trial in study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and heal:
                self._storage.set_trial_user_attr(trial._trial_id, "orphaned", ORPHANED)
                study.tell(trial.number, state=TrialState.FAIL)
            stored = trial.user_attrs.get("record")
            if stored is None:
                continue
            try:
                key, record = str(trial.user_attrs["key"]), _record(stored)
                if not is_whole(trial.user_attrs.get("iterations", 0)):
                    raise ValueError(f"its iterations are {trial.user_attrs['iterations']!r}")
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise StudyError(f"trial {trial.number} of study {study.study_name} holds no record of a training: {error}") from error
            # A trial killed between its outcome and its end is orphaned, too: it counts as not trained.
            if trial.state in (TrialState.COMPLETE, TrialState.FAIL) and "orphaned" not in trial.user_attrs:
                self._records[key] = record


@dataclass(frozen=True)
class OpenTrial:
    """A trial that runs: its step, its number within the step, and Optuna's own handle."""

    step: int
    number: int
    trial: optuna.Trial


def _name_metric(study: optuna.Study) -> None:
    """Name the value of a study's trials, where that was not done yet."""
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([METRIC])


def _record(stored: dict[str, Any]) -> TrainingRecord:
    curve = tuple((int(iteration), float(loss)) for iteration, loss in stored["curve"])
    found = TrainingRecord(**{**stored, "curve": curve, "class_iou_percent": tuple(stored["class_iou_percent"])})
    check_fields(found)
    if found.miou_percent is not None and not math.isfinite(found.miou_percent):
        raise ValueError(f"a score is a finite number, got {found.miou_percent}")
    return found


def open_storage(storage: str) -> BaseStorage:
    """Optuna's storage of a journal file or a database URL, to read. Raises as `TrainingStudy` does."""
    return _open_database(storage, None).storage if "://" in storage else open_journal(Path(storage), heal=False)


def _open_database(url: str, driver_of: str | None) -> Database:
    from search.database import Database  # and with it SQLAlchemy, which takes its time

    return Database(url, driver_of)
