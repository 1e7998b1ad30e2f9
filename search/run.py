"""A run's folder: configuration, environment, studies, the latency rows used, and the chain's weights.

    config.json  environment.json  study.journal  latency.sqlite  checkpoints/  candidates.csv  family.csv  trajectory.png

The folder can be read on any machine; one driver at a time may write to it.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from uuid import uuid4

from latency.environment import cpu_name, package_version
from latency.measurement import Environment
from latency.store import Store
from latency.told import is_shown, parse_json, shortened
from lpsnet.architecture import Architecture
from lpsnet.data import check_class_names
from lpsnet.errors import UserError
from search.bracket import Forecast
from search.config import SearchConfig
from search.forecast import PREDICTOR_FILE, TABLE_FILE, check_predictor, forecaster
from search.study import TrainingKey, TrainingStudy

FORMAT = 1
PREDICTOR, STORE, JOURNAL, LOCK = "predictor", "latency.sqlite", "study.journal", "driver.lock"
_UNFINISHED = (
    ".config.json.*", ".environment.json.*", ".candidates.csv.*", ".family.csv.*", ".trajectory.png.*",
    "checkpoints/.*.safetensors.*", "states/.*.pt.*",
)  # fmt: skip
"""Files that a driver was killed in the midst of writing."""

_PACKAGES = ("lps-search", "torch", "kornia", "numpy", "onnx", "onnxruntime", "onnxscript", "optuna", "pandas", "torchmetrics")


class RunError(UserError):
    """A run folder that is not there, cannot be written, is in use, or belongs to another search."""


@dataclass(frozen=True)
class Header:
    """What `config.json` holds: the configuration, the data set's classes, and the name of the run's studies."""

    config: SearchConfig
    class_names: tuple[str, ...]
    study: str


class Run:
    """An open run folder.

    Use `Run.start` to create or continue one as its driver and `Run.read` to look at one, both in a `with` statement.
    """

    def __init__(self, path: Path, header: Header, environment: Environment, *, heal: bool, lock: IO[str] | None) -> None:
        self.path = path
        self.config = header.config
        self.class_names = header.class_names
        self.environment = environment
        self.study = TrainingStudy(header.study, header.config.storage or str(path / JOURNAL), heal=heal)
        self.store = Store(path / STORE) if lock else Store.snapshot(path / STORE)
        self._lock = lock

    @classmethod
    def start(
        cls, path: Path, config: SearchConfig, class_names: tuple[str, ...], environment: Environment, *, remeasure: bool = False
    ) -> Run:
        """Create a run, or continue the one that lies at `path`, as its only driver.

        Args:
            path: the folder.
            config: the search; where it continues a run in which something has been trained, only its number of steps may differ.
            class_names: of the data set.
            environment: of the latency now.
            remeasure: accept another environment and measure everything anew in it.

        Raises:
            RunError: the folder cannot be written, is being driven, or belongs to another configuration or environment.
        """
        make_folder(path)
        lock = _acquire(path)
        try:
            for left in (left for pattern in _UNFINISHED for left in path.glob(pattern)):
                left.unlink(missing_ok=True)
            header, new = _header(path, config, class_names, remeasure=remeasure)
            if new:
                shutil.rmtree(path / PREDICTOR, ignore_errors=True)
            if new or _check_environment(path, environment, remeasure=remeasure):
                write_json(path / "environment.json", {"latency": asdict(environment), **provenance()})
            _copy_predictor(path, config, environment)
            values = {"format": FORMAT, "study": header.study, "class_names": list(class_names), "config": config.to_dict()}
            write_json(path / "config.json", values)
            return cls(path, header, environment, heal=True, lock=lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def read(cls, path: Path) -> Run:
        """Open a run to look at it as it is now, also while it is driven: nothing is written, no lock kept.

        Raises:
            RunError: `path` holds no run, or a part of one.
        """
        header = read_header(path)
        for file in (path / STORE, *([] if header.config.storage else [path / JOURNAL])):
            if not file.is_file():  # opening it would make an empty one
                raise RunError(f"{path} is incomplete: {file.name} is missing")
        return cls(path, header, _environment_of(read_json(path / "environment.json"), path), heal=False, lock=None)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another driver have the folder."""
        self.store.close()
        self.study.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def refresh(self) -> None:
        """Take in what the driver has stored since this run was read; only for one that was."""
        self.study.refresh()
        self.store = Store.snapshot(self.path / STORE)

    @cached_property
    def forecast(self) -> Forecast | None:
        """What the run's copy of a predictor expects of a network's latency; None for a run without one."""
        if not self.config.predictor:
            return None
        return forecaster(self.path / PREDICTOR, len(self.class_names), self.config.size)

    def key(self, architecture: Architecture, parent_trial: str, *, rung: int = 0, seed: int = 0) -> TrainingKey:
        """What a training of this run answers; the start, which has no `parent_trial`, inherits nothing."""
        config = self.config
        return TrainingKey(
            architecture=str(architecture),
            recipe=config.proxy,
            parent_trial=parent_trial,
            seed=config.seed + seed,
            rung=rung,
            inherited=config.race.inherit and bool(parent_trial),
        )

    @property
    def checkpoints(self) -> Path:
        """Folder of the trained weights."""
        return self.path / "checkpoints"

    @property
    def states(self) -> Path:
        """Folder of the trainings of a step that are gone on with."""
        return self.path / "states"

    def weights_path(self, architecture: Architecture) -> Path:
        """Where the trained weights of a network lie."""
        return self.checkpoints / f"{architecture}.safetensors"


def _copy_predictor(path: Path, config: SearchConfig, environment: Environment) -> None:
    """Give a new run its own copy of the predictor, so that it resumes the same wherever that one goes."""
    if not config.predictor or (path / PREDICTOR).is_dir():
        return
    source, partial = Path(config.predictor), path / f".{PREDICTOR}"
    check_predictor(source, config, environment)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in (TABLE_FILE, PREDICTOR_FILE):
            shutil.copy(source / name, partial / name)
        partial.rename(path / PREDICTOR)
    except OSError as error:
        raise RunError(f"run folder {path} cannot be written: {error}; name another one with --out") from error


def read_header(path: Path) -> Header:
    """What `config.json` of the run at `path` says.

    Raises:
        RunError: `path` holds no run.
    """
    file = path / "config.json"
    if not file.is_file():
        raise RunError(f"{path} holds no run: {file.name} is missing; start one with lps-search expand --out {path}")
    values = read_json(file)
    if values.get("format") != FORMAT:
        raise RunError(f"{file} has format {values.get('format')!r}, expected {FORMAT}")
    try:
        if not is_shown(values["study"]):
            raise ValueError(f"its study must be named by letters that can be printed, got {shortened(values['study'])}")
        return Header(SearchConfig.from_dict(values["config"]), check_class_names(values["class_names"]), values["study"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} does not describe a run: {error}") from error


def provenance() -> dict[str, Any]:
    """Where a result comes from: software, system, commit, command and time."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": cpu_name(),
        "packages": {name: package_version(name) for name in _PACKAGES},
        "commit": _commit(),
        "command": " ".join([_program(), *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _program() -> str:
    """What was called: this tool, or a script of `results/`."""
    script = Path(sys.argv[0])
    return f"python results/{script.name}" if script.parent.name == "results" else "lps-search"


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(values, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error


def make_folder(path: Path) -> None:
    """Make a folder where there is none, and write to it: that this fails is found before the work whose results it is for.

    Raises:
        RunError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"folder {path} cannot be made: {error}; name another one with --out") from error
    try:
        with TemporaryFile(dir=path) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        raise RunError(f"folder {path} cannot be written: {error}; name another one with --out") from error


def _acquire(path: Path) -> IO[str]:
    try:
        lock = (path / LOCK).open("a+")
    except OSError as error:
        raise RunError(f"run folder {path} cannot be written: {error}; name another one with --out") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise RunError(f"run {path} is being driven by process {holder or 'unknown'}; one driver a run") from error
    try:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    except OSError as error:
        with suppress(OSError):  # closing tries to write it again
            lock.close()
        raise RunError(f"run folder {path} cannot be written: {error}; name another one with --out") from error
    return lock


def _header(path: Path, config: SearchConfig, class_names: tuple[str, ...], *, remeasure: bool) -> tuple[Header, bool]:
    """The header of the run as it is to be, and whether it is a new one. Raises `RunError` where another search lies there."""
    fresh = Header(config, class_names, f"{path.resolve().name}-{uuid4().hex[:12]}")
    if not (path / "config.json").exists():
        return fresh, True
    known = read_header(path)
    _check_parts(path, known.config, remeasure=remeasure)
    different = known.config.differences(config)
    if known.class_names != class_names:
        different.append(f"classes: {list(known.class_names)}, not {list(class_names)}")
    if (different or config.steps < known.config.steps) and not _has_trained(path, known):
        return fresh, True
    if different:
        raise RunError(f"run {path} was started with another configuration ({'; '.join(different)}); use it, or another --out")
    if config.steps < known.config.steps:
        raise RunError(f"run {path} was started for {known.config.steps} steps, not {config.steps}; steps are not taken back")
    return Header(config, class_names, known.study), False


def _has_trained(path: Path, known: Header) -> bool:
    """Whether any training of a run has given a score: a start that failed leaves a folder without."""
    journal = path / "study.journal"
    if not known.config.storage and not journal.is_file():  # opening it would make an empty one
        return False
    with closing(TrainingStudy(known.study, known.config.storage or str(journal), heal=False)) as study:
        return study.has_scores()


def _check_parts(path: Path, config: SearchConfig, *, remeasure: bool) -> None:
    """Refuse a run that has trained something but lost a part of its record: it would be trained or measured again unasked."""
    parts = [path / "environment.json", *([] if remeasure else [path / STORE]), *([] if config.storage else [path / JOURNAL])]
    parts += [path / PREDICTOR / name for name in (TABLE_FILE, PREDICTOR_FILE) if config.predictor]
    lost = [part.name for part in parts if not part.is_file()]
    if lost and ((path / "candidates.csv").exists() or any((path / "checkpoints").glob("*.safetensors"))):
        again = "; lps-search resume --remeasure takes latencies from this machine's store, and measures what that lacks"
        told = f"run {path} has lost {' and '.join(lost)}: put it back, or start anew with another --out"
        raise RunError(told + (again if lost == [STORE] else ""))


def _check_environment(path: Path, environment: Environment, *, remeasure: bool) -> bool:
    """Whether the environment is to be written; refuses one that the run was not measured in, unless told to measure anew."""
    file = path / "environment.json"
    if not file.exists():
        return True
    different = _environment_of(read_json(file), path).differences(environment)
    if different and not remeasure:
        raise RunError(
            f"run {path} was measured in another environment ({'; '.join(different)}); "
            "go on there, or measure everything anew here with lps-search resume --remeasure"
        )
    return bool(different)


def _commit() -> str:
    """The checkout's commit, with a plus sign where the source differs from it; empty outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "..", ":!../results") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises `RunError` where there is none."""
    try:
        values = parse_json(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} cannot be read: expected an object, found {type(values).__name__}")
    return values


def _environment_of(values: dict[str, Any], path: Path) -> Environment:
    try:
        return Environment.from_dict(values["latency"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path / 'environment.json'} does not describe an environment: {error}") from error
