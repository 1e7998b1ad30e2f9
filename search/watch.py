"""What a run has come to, for whoever looks on: read from its record and stores again and again, while it is driven or long after.

Nothing is written, no lock is kept, and nothing is read anew that has not changed. Does not cover how it is shown (`cli/watch_frame.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from latency.measurement import Measurement
from lpsnet.architecture import Architecture
from search.config import SearchConfig
from search.decide import slope
from search.estimate import CANDIDATES_A_STEP, GROWTH, LATENCIES_A_STEP, remaining_s
from search.run import JOURNAL, LOCK, STORE, Run, RunError, read_header, read_json
from search.runner import Pending, Progress, replay
from search.step import CONTROL, Candidate, Measure, Member, Step, Train
from search.study import TrainingRecord

SHARE = 0.02
"""Of a core, the most that looking may take: what is being measured beside it must not be slowed."""

WAITING, TRAINING, SCORED, FAILED = "waiting", "training", "scored", "failed"
"""States of a candidate of the step at work."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate of the step at work.

    Args:
        expansion: operations for a reader.
        architecture: its text.
        latency_ms: at the search's boundary.
        state: one of the states above.
        miou_percent: None without a score.
        gain_percent: over the parent, or the control where there is one and it is scored.
        slope: of that gain over the single latencies, percent a millisecond.
        seconds: its training took, or has taken so far.
        failure: why there is no score.
    """

    expansion: str
    architecture: str
    latency_ms: float
    state: str
    miou_percent: float | None = None
    gain_percent: float | None = None
    slope: float | None = None
    seconds: float | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run does, or did when it was left.

    Args:
        step: number of the step at work.
        text: what is being done.
        done: how much of it.
        total: of how much.
        rows: the candidates, once they are known.
    """

    step: int
    text: str
    done: int
    total: int
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run has taken: trainings, and latencies measured since it began, with the seconds of each."""

    trainings: int = 0
    training_s: float = 0.0
    latencies: int = 0
    latency_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class View:
    """A run at a moment.

    Args:
        path: its folder.
        config: of the search.
        device: its latencies are measured on.
        steps: decided, the start first.
        work: None where nothing is left to do.
        stopped: why the search can take no further step; empty where it can, or is done.
        driver: process of this machine that drives it; None where there is none.
        cost: so far.
        began: UTC.
        changed: UTC, when something was last stored.
        remaining_s: estimated seconds of work to come; None where nothing tells.
    """

    path: Path
    config: SearchConfig
    device: str
    steps: tuple[Step, ...]
    work: Work | None
    stopped: str
    driver: int | None
    cost: Cost
    began: datetime
    changed: datetime
    remaining_s: float | None

    @property
    def state(self) -> str:
        """One word: finished, stopped, running, or paused."""
        if len(self.steps) > self.config.steps:
            return "finished"
        if self.stopped:
            return "stopped"
        return "paused" if self.driver is None else "running"


class Watch:
    """Looks at a run.

    Args:
        path: its folder.

    Raises:
        RunError: `path` holds no run, or a part of one.
        StoreError: its latency store is damaged.
        StudyError: its record is damaged or cannot be reached.
    """

    def __init__(self, path: Path) -> None:
        self._open(path)
        self.rest_s = 0.0
        """Seconds to wait before the next look, by what the last one took."""

    def _open(self, path: Path) -> None:
        # Taken before anything is read: what changes meanwhile is then read again.
        self._identity, self._content = _fingerprints(path, bool(read_header(path).config.storage))
        self._run = Run.read(path)
        self._progress = replay(self._run)
        self._cost, self._row = Cost(), 0
        self._measured: list[datetime] = []

    def close(self) -> None:
        """Look no more."""
        self._run.close()

    def look(self) -> View:
        """The run as it is now. Raises as the constructor does."""
        start = time.process_time()
        view = self._looked()
        self.rest_s = (time.process_time() - start) / SHARE
        return view

    def _looked(self) -> View:
        identity, content = _fingerprints(self._run.path, bool(self._run.config.storage))
        if identity != self._identity:
            self.close()
            self._open(self._run.path)
        elif content is None or content != self._content:
            self._run.refresh()
            self._progress, self._content = replay(self._run), content
        run, progress = self._run, self._progress
        began = _time(read_json(run.path / "environment.json").get("created"), run.path)
        cost = self._spent(began)
        trained = self._trained()
        work = _work(run, progress.pending, progress.steps[-1].chosen if progress.steps else None)
        return View(
            path=run.path,
            config=run.config,
            device=run.environment.device,
            steps=tuple(progress.steps),
            work=work,
            stopped=progress.stopped,
            driver=driver_of(run.path),
            cost=cost,
            began=began,
            changed=max([began, *self._measured[-1:], *trained]),
            remaining_s=_remaining(run, progress, work, cost, measured=sum(when > max(trained, default=began) for when in self._measured)),
        )

    def _trained(self) -> list[datetime]:
        """When the trainings of the last decided step and of the one at work ended, or began."""
        last = len(self._progress.steps)
        trials = [trial for step in (last - 1, last) for trial in self._run.study.trials(step)]
        # Optuna writes the local time of the driver.
        return [when.astimezone(UTC) for trial in trials if (when := trial.datetime_complete or trial.datetime_start)]

    def _spent(self, began: datetime) -> Cost:
        records, store = self._run.study.records(), self._run.store
        fresh = [found for found in store.all(self._row) if _time(found.created, self._run.path) >= began]
        self._row = store.last_row()
        self._measured += [_time(found.created, self._run.path) for found in fresh]
        self._cost = Cost(
            trainings=len(records),
            training_s=sum(record.seconds for record in records),
            latencies=self._cost.latencies + len(fresh),
            latency_s=self._cost.latency_s + sum(map(_seconds, fresh)),
        )
        return self._cost


def _fingerprints(path: Path, in_database: bool) -> tuple[object, object]:
    """What is equal where this is the same run in the same environment, and what is where nothing was stored since.

    The latter is None where that cannot be told, as of a record in a database. Raises `RunError` where a part is missing.
    """
    try:
        whole = [(path / name).stat() for name in ("config.json", "environment.json")]
        growing = [(path / name).stat() for name in (STORE, *([] if in_database else [JOURNAL]))]
    except OSError as error:
        raise RunError(f"{path} is incomplete: {Path(str(error.filename)).name}: {error.strerror}") from error
    identity = [(state.st_ino, state.st_mtime_ns) for state in whole], [state.st_ino for state in growing]
    return identity, None if in_database else [(state.st_mtime_ns, state.st_size) for state in growing]


def driver_of(path: Path) -> int | None:
    """The process of this machine that drives the run at `path`: the one named in the lock file, where it has that file open."""
    lock = path / LOCK
    try:
        pid, own = int(lock.read_text()), lock.stat()
        if pid <= 0:
            return None
        os.kill(pid, 0)
        held = list(Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return pid  # another user's, of which no more is told
    except (OSError, ValueError, OverflowError) as error:
        alive = isinstance(error, FileNotFoundError) and str(error.filename).startswith("/proc/")
        return pid if alive and not Path("/proc/self").exists() else None  # a system that does not tell
    return pid if any(_is(link, own) for link in held) else None


def _is(link: Path, own: os.stat_result) -> bool:
    try:
        return os.path.samestat(link.stat(), own)
    except OSError:
        return False


def _time(text: object, path: Path) -> datetime:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise RunError(f"{path} does not tell when it began: {error}") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _seconds(found: Measurement) -> float:
    """What a latency took: loading, warm-up and sampling."""
    return found.load_s + found.conditions.plan.warmup_s + sum(found.samples_ms) / 1e3


def _work(run: Run, pending: Pending | None, parent: Member | None) -> Work | None:
    if pending is None:
        return None
    request = pending.request
    if isinstance(request, Measure):
        return Work(step=request.step, text="measuring latencies", done=len(pending.latencies), total=len(request.architectures))
    if isinstance(request, Train):
        rows = _rows(run, request, pending.trainings, parent)
        return Work(step=request.step, text=_training(request), done=len(pending.trainings), total=len(rows), rows=rows)
    return Work(step=request.step, text=f"{request.first} and {request.second} in turns: which is faster?", done=0, total=1)


def _training(request: Train) -> str:
    told = f", scored after {request.rung} iterations" if request.rung else ""
    return f"training candidates{told}" + (f", seed {request.seed + 1} of the close ones" if request.seed else "")


def _rows(run: Run, request: Train, known: Mapping[Architecture, TrainingRecord], parent: Member | None) -> tuple[Row, ...]:
    trials = [trial for trial in run.study.trials(request.step) if trial.state == TrialState.RUNNING]
    begun = {str(trial.user_attrs.get("architecture")): trial for trial in trials}
    before = None if parent is None else parent.miou_percent
    if any(candidate.expansions == CONTROL for candidate in request.candidates) and parent is not None:
        before = known[parent.architecture].miou_percent if parent.architecture in known else None
    rows = (_row(candidate, known.get(candidate.architecture), begun, parent, before) for candidate in request.candidates)
    return tuple(rows)


def _row(
    candidate: Candidate, record: TrainingRecord | None, begun: Mapping[str, FrozenTrial], parent: Member | None, before: float | None
) -> Row:
    text = str(candidate.architecture)
    same = {"expansion": candidate.text, "architecture": text, "latency_ms": candidate.latency_ms}
    if record is None:
        trial = begun.get(text)
        taken = (datetime.now() - trial.datetime_start).total_seconds() if trial and trial.datetime_start else None
        return Row(**same, state=WAITING if trial is None else TRAINING, seconds=taken)  # type: ignore[arg-type]
    if record.miou_percent is None:
        return Row(**same, state=FAILED, failure=record.failure, seconds=record.seconds)  # type: ignore[arg-type]
    gain = None if before is None or candidate.expansions == CONTROL else record.miou_percent - before
    rise = None if gain is None or parent is None else slope(gain, candidate.latency_ms - parent.latency_ms)
    scored = {"miou_percent": record.miou_percent, "gain_percent": gain, "slope": rise, "seconds": record.seconds}
    return Row(**same, state=SCORED, **scored)  # type: ignore[arg-type]


def _remaining(run: Run, progress: Progress, work: Work | None, cost: Cost, *, measured: int) -> float | None:
    """Seconds of work to come, from the trainings of the step at work, or grown from those of the one before.

    `measured` are the latencies since the last training.
    """
    if work is None:
        return None
    taken = [row.seconds for row in work.rows if row.state in (SCORED, FAILED) and row.seconds is not None]
    if not taken and progress.steps:
        records = [trial.user_attrs.get("record") for trial in run.study.trials(len(progress.steps) - 1)]
        taken = [GROWTH * record["seconds"] for record in records if record]
    return remaining_s(
        taken,
        cost.latency_s / cost.latencies if cost.latencies else 0.0,
        left=sum(row.state in (WAITING, TRAINING) for row in work.rows) if work.rows else CANDIDATES_A_STEP,
        latencies_left=0 if work.rows else max(0, LATENCIES_A_STEP - measured),
        steps_left=run.config.steps - work.step,
        parallel=run.config.parallel,
    )
