"""Trainings as a table that accrues: one row a training, appended as it ends, so that a study goes on wherever it was killed.

Used by the studies of the proxy and by the tabular benchmark; what a search trains is in its own studies (`study.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

from latency.told import parse_json
from lpsnet.architecture import Architecture
from lpsnet.checkpoint import save
from lpsnet.data import data_name
from lpsnet.errors import TrainingFailed, UserError
from search.config import SearchConfig
from search.files import append_row, grown_rows, open_alone
from search.observer import Observer
from search.pool import Ended, Pool
from search.proxy import TrainJob
from search.run import make_folder, write_json

LOCK = "study.lock"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a network of a study is trained.

    Args:
        iterations: of the whole training.
        inherit: from the parent's weights.
        branches: with re-parameterisation branches.
        identity: these begin as the identity (`TrainRecipe.identity_start`).
        shrink: the input is so many times smaller, for training and scoring.
        rate: the learning rate is so many times the study's.
        frames: score on so many frames of the split; 0 for all.
        rung: score after so many of the iterations, the training to be gone on with; 0 for its end.
    """

    iterations: int
    inherit: bool = False
    branches: bool = True
    identity: bool = False
    shrink: int = 1
    rate: int = 1
    frames: int = 0
    rung: int = 0

    @property
    def name(self) -> str:
        """For tables: `scratch-400`, `identity-rate2-300`, `inherit-200`, `plain-400`, `scratch-small2-400` or `scratch-400@100`."""
        kind = "inherit" if self.inherit else "identity" if self.identity else "scratch" if self.branches else "plain"
        shown = {"small": self.shrink > 1 and self.shrink, "rate": self.rate > 1 and self.rate, "frames": self.frames}
        factors = "".join(f"-{name}{value}" for name, value in shown.items() if value)
        return f"{kind}{factors}-{self.iterations}" + (f"@{self.rung}" if self.rung else "")

    @classmethod
    def parse(cls, text: str) -> Setting:
        """The inverse of `name`. Raises `UserError`."""
        body, _, rung = text.partition("@")
        try:
            kind, *middle, iterations = body.split("-")
            factors = {part.rstrip(digits): int(part.lstrip(ascii_lowercase)) for part in middle}
            kinds = {"inherit": kind == "inherit", "identity": kind == "identity", "branches": kind != "plain"}
            numbers = {"shrink": factors.get("small", 1), "rate": factors.get("rate", 1), "frames": factors.get("frames", 0)}
            given: dict[str, Any] = {"iterations": int(iterations), "rung": int(rung or 0), **numbers, **kinds}
            found: Setting | None = cls(**given)
        except ValueError:
            found = None
        if found is not None and found.rung >= found.iterations and found.rung:
            raise UserError(f"{text!r} is to be scored after {found.rung} of its {found.iterations} iterations; a rung lies before the end")
        if found is None or found.name != text or min(found.iterations, found.shrink, found.rate) < 1:
            raise UserError(
                "a setting is scratch-N, identity-N, plain-N or inherit-N, such as scratch-400, with -smallM for an input M times smaller, "
                f"-rateM for M times the learning rate, -framesM for scores on M frames and @RUNG for its way, got {text!r}"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training that a study wants: a network under a setting, from its parent's weights where the setting inherits."""

    architecture: str
    setting: str
    seed: int
    parent: str = ""


@dataclass(frozen=True, kw_only=True)
class Row(Task):
    """A training that is done; without a score, why."""

    miou_percent: float | None
    seconds: float
    failure: str = ""


class TrainingTable:
    """Rows in a CSV file. A last line that a kill has torn is no row.

    Raises:
        UserError: the file is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Task, Row] = {}
        try:
            for values in grown_rows(path):
                self._hold(_row(values))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} is no table of trainings: {error!r}; name another folder with --out") from error

    def add(self, row: Row) -> None:
        """Append a row. Raises `UserError` where the file cannot be written."""
        score = "" if row.miou_percent is None else f"{row.miou_percent:.4f}"
        append_row(self.path, {**dataclasses.asdict(row), "miou_percent": score, "seconds": f"{row.seconds:.4g}"})
        self._hold(row)

    def score(self, architecture: str, setting: str, seed: int, parent: str = "") -> float | None:
        """mIoU in percent of a training, None where there is none."""
        row = self.rows.get(Task(architecture=architecture, setting=setting, seed=seed, parent=parent))
        return None if row is None else row.miou_percent

    def _hold(self, row: Row) -> None:
        self.rows[Task(architecture=row.architecture, setting=row.setting, seed=row.seed, parent=row.parent)] = row


def _row(values: dict[str, Any]) -> Row:
    score, seconds = values["miou_percent"], float(values["seconds"])
    if not (0 <= float(score or 0) <= 100 and 0 <= seconds < math.inf):
        raise ValueError(f"a training has an mIoU of {score} percent after {seconds} seconds")
    return Row(
        architecture=values["architecture"],
        setting=values["setting"],
        seed=int(values["seed"]),
        parent=values["parent"],
        miou_percent=float(score) if score else None,
        seconds=seconds,
        failure=values["failure"],
    )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a study's folder, so that no other call trains the same there. Raises `UserError` where one does."""
    make_folder(folder)
    with open_alone(folder / LOCK):
        yield


def open_table(folder: Path, base: SearchConfig, more: Mapping[str, Any] | None = None) -> TrainingTable:
    """The table of a study's folder, whose `recipe.json` says what its trainings have in common.

    Args:
        folder: it is made when absent.
        base: of the trainings.
        more: what else its rows have in common, such as how latencies were measured.

    Raises:
        UserError: the folder cannot be written, or holds trainings of another data set, size or recipe, whose scores do not compare.
    """
    named = ("iterations", "warmup_iterations", "branches", "identity_start")  # by each setting
    recipe = {name: value for name, value in dataclasses.asdict(base.proxy).items() if name not in named}
    wanted = {
        "data": data_name(base.data),
        "height": base.height,
        "width": base.width,
        "precision": base.precision,
        **recipe,
        **(more or {}),
    }
    path = folder / "recipe.json"
    make_folder(folder)
    try:
        others = set(folder.iterdir()) - {path, folder / LOCK}
        begun = path.exists() and bool(others)  # else a start that failed has left it
        found = dict(parse_json(path.read_text())) if begun else None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}; name another folder with --out") from error
    if found is None:
        write_json(path, wanted)
    elif different := [f"{name}: {found.get(name)!r}, not {value!r}" for name, value in wanted.items() if found.get(name) != value]:
        raise UserError(f"{folder} holds trainings of another kind ({'; '.join(different)}); name another folder with --out")
    return TrainingTable(folder / "trainings.csv")


def config_for(setting: Setting, base: SearchConfig) -> SearchConfig:
    """The configuration that a setting trains under: the base's recipe but for what the setting names."""
    proxy = dataclasses.replace(
        base.proxy,
        iterations=setting.iterations,
        warmup_iterations=min(20, max(1, setting.iterations // 10)),
        branches=setting.branches,
        identity_start=setting.identity,
        learning_rate=base.proxy.learning_rate * setting.rate,
    )
    height, width = base.height // setting.shrink, base.width // setting.shrink
    return dataclasses.replace(base, proxy=proxy, height=height, width=width, validation_frames=setting.frames)


def train_tasks(
    table: TrainingTable, tasks: Iterable[Task], base: SearchConfig, pool: Pool, observer: Observer, *, keep: Path | None = None
) -> None:
    """Train what the table does not hold, setting by setting, and append each as it ends.

    Args:
        table: is added to.
        tasks: wanted; an inheriting one needs its parent's weights in `keep`.
        base: data, size, recipe and threads.
        pool: does the work.
        observer: told of progress.
        keep: folder of weights that are inherited and of states that are gone on with.
    """
    every = list(dict.fromkeys(tasks))
    origins = {_origin(task) for task in every if task.parent}
    missing = [task for task in every if task not in table.rows]
    lost = {_origin(task) for task in missing if keep is not None and task.parent and not _origin_file(keep, task).exists()}
    wanted = [task for task in every if task not in table.rows or task in lost]
    done = 0

    def told(detail: str) -> None:
        observer.work("candidates", done, len(wanted), detail)

    # What is scored on its way comes before what ends it, and what inherits after what it inherits from.
    names = sorted(dict.fromkeys(task.setting for task in wanted), key=lambda name: ("inherit" in name, "@" not in name))
    for name in names:
        for ended in _train_setting(table, [task for task in wanted if task.setting == name], base, pool, told, keep, origins):
            done += 1
            told(f"{name}: {ended.job.architecture}")


def _train_setting(
    table: TrainingTable,
    tasks: list[Task],
    base: SearchConfig,
    pool: Pool,
    told: Callable[[str], None],
    keep: Path | None,
    origins: set[Task],
) -> Iterator[Ended]:
    """Train tasks of one setting; yields each once its row is written, and its weights where others start from them."""
    setting = Setting.parse(tasks[0].setting)
    jobs = {_job(task, setting, keep): task for task in tasks}

    def begin(job: TrainJob) -> None:
        told(f"{setting.name}: {job.architecture}")

    def wait(running: int) -> None:
        told(f"{setting.name}: {running} at a time")

    for ended in pool.run(config_for(setting, base), list(jobs), begin, wait):
        if keep is not None and jobs[ended.job] in origins:
            _keep_weights(ended, jobs[ended.job], keep, base)
        if jobs[ended.job] not in table.rows:  # else its weights alone were wanted again
            table.add(_ended_row(jobs[ended.job], ended))
        if ended.job.state is not None and not setting.rung:  # its row is written: a kill before loses nothing
            ended.job.state.unlink(missing_ok=True)
        yield ended


def weights_file(keep: Path, architecture: str, setting: str) -> Path:
    """Where the weights of a training from scratch with seed 0 lie."""
    return keep / f"{architecture}_{setting}_seed0.safetensors"


def parent_setting(setting: Setting) -> str:
    """The training whose weights an inheriting one starts from: its own length, from scratch, as a chain's start is trained."""
    return dataclasses.replace(setting, inherit=False, rung=0).name


def _origin(task: Task) -> Task:
    """The training that an inheriting one starts from."""
    return Task(architecture=task.parent, setting=parent_setting(Setting.parse(task.setting)), seed=0)


def _origin_file(keep: Path, task: Task) -> Path:
    return weights_file(keep, task.parent, parent_setting(Setting.parse(task.setting)))


def _job(task: Task, setting: Setting, keep: Path | None) -> TrainJob:
    parent, state = None, None
    if setting.inherit:
        assert keep is not None
        parent = _origin_file(keep, task)
    if keep is not None and not setting.inherit:
        digest = hashlib.sha256(repr((task.architecture, dataclasses.replace(setting, rung=0), task.seed)).encode()).hexdigest()[:24]
        path = keep / f"{digest}.pt"
        state = path if setting.rung or path.exists() else None
    return TrainJob(architecture=Architecture.parse(task.architecture), seed=task.seed, rung=setting.rung, parent=parent, state=state)


def _keep_weights(ended: Ended, task: Task, keep: Path, base: SearchConfig) -> None:
    if not isinstance(ended.result, TrainingFailed):
        names = tuple(f"class {number}" for number in range(ended.result.network.num_classes))
        keep.mkdir(parents=True, exist_ok=True)
        save(weights_file(keep, task.architecture, task.setting), ended.result.network, class_names=names, input_size=base.size)


def _ended_row(task: Task, ended: Ended) -> Row:
    same = {"architecture": task.architecture, "setting": task.setting, "seed": task.seed, "parent": task.parent}
    if isinstance(ended.result, TrainingFailed):
        return Row(**same, miou_percent=None, seconds=ended.seconds, failure=str(ended.result))  # type: ignore[arg-type]
    return Row(**same, miou_percent=ended.result.scores.miou_percent, seconds=ended.seconds)  # type: ignore[arg-type]
