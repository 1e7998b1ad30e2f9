"""Faults for a search in a process of its own: where one may strike, and what it does there.

Every place where a run commits something to disk passes a point before, often in the midst of, and after the write; so does the
work between commits. The process counts what passes, and at the drawn pass the fault strikes: by a signal, by the kernel refusing
to let any file grow, by an exception of a library, or by a clock that jumps.
"""

from __future__ import annotations

import datetime
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

JOURNAL = {0: "journal study", 2: "journal decision", 4: "journal trial", 6: "journal outcome", 8: "journal attribute"}
"""What is appended to the journal, by Optuna's code of the operation."""

AROUND, WHOLE = ("before", "after"), ("before", "middle", "after")
COMMITS: dict[str, tuple[str, ...]] = {
    "driver.lock": AROUND,
    "config.json": WHOLE,
    "environment.json": WHOLE,
    "machine's store opened": AROUND,
    "machine's latency row": AROUND,
    "run's store opened": AROUND,
    "run's latency row": AROUND,
    "journal healed": AROUND,
    "journal locked": ("after",),
    **dict.fromkeys(JOURNAL.values(), AROUND),
    "weights": WHOLE,
    "weights removed": AROUND,
    "training state": WHOLE,
    "training state removed": AROUND,
    "candidates.csv": WHOLE,
    "family.csv": WHOLE,
    "trajectory.png": WHOLE,
}
"""Every place where a run commits something, and when a fault may strike there: files that are written whole have a middle, too,
when the new one is complete but not yet in its place."""

WORK = ("frame", "training", "training in a worker", "latency", "latency in a worker")
PLACES = {place: n for n, place in enumerate([f"{name}:{when}" for name, times in COMMITS.items() for when in times] + list(WORK))}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What strikes, and where.

    Args:
        kind: one of `drill.KINDS`.
        place: one of `PLACES`, or "any moment".
        count: at which pass, from 1 on.
        share: how far into a write, or how far the clock jumps: from 0 to 1.
    """

    kind: str
    place: str
    count: int
    share: float = 0.0


class Shared:
    """What a driver, its workers and the drill see together, whoever of them is killed: passes, and what is told through pipes."""

    def __init__(self) -> None:
        self.passes = get_context("fork").Array("i", len(PLACES))
        self._read, self.told = os.pipe()
        self._read_output, self.output = os.pipe()

    def tell(self, *words: object) -> None:
        """A line for the drill; short, so that lines of two processes do not mix."""
        os.write(self.told, (" ".join(map(str, words)) + "\n").encode())

    def counts(self) -> dict[str, int]:
        """How often each place was passed."""
        return {place: count for place, count in zip(PLACES, self.passes, strict=True) if count}

    def close(self) -> tuple[list[list[str]], str]:
        """The lines told, as words, and what was printed."""
        texts = []
        for reading, writing in ((self._read, self.told), (self._read_output, self.output)):
            os.close(writing)
            os.set_blocking(reading, False)
            text = b""
            while part := _available(reading):
                text += part
            os.close(reading)
            texts.append(text.decode(errors="replace"))
        return [line.split() for line in texts[0].splitlines()], texts[1]


def _available(reading: int) -> bytes:
    try:
        return os.read(reading, 1 << 16)
    except BlockingIOError:  # an orphan still holds the other end
        return b""


class Striker:
    """In the driver and its workers: counts passes, and strikes.

    Args:
        faults: what, and where.
        unbuildable: networks, each with a boundary, that no engine can be built of.
        shared: with the drill.
    """

    def __init__(self, faults: Sequence[Fault], unbuildable: Collection[str], shared: Shared) -> None:
        self._faults, self._unbuildable, self._shared, self._driver = faults, unbuildable, shared, os.getpid()

    def passing(self, place: str, path: Path | None = None, size: int = 0) -> None:
        """A place is passed, by a write to `path`, which was of `size` bytes before."""
        with self._shared.passes.get_lock():
            self._shared.passes[PLACES[place]] += 1
            count = self._shared.passes[PLACES[place]]
        for number, fault in enumerate(self._faults):
            if (place, count) == (fault.place, fault.count):
                self._shared.tell("struck", number)
                self._strike(fault, path, size)

    def working(self, what: str) -> None:
        """Something passes that a driver does itself, or a worker for it."""
        self.passing(what if os.getpid() == self._driver else f"{what} in a worker")

    def building(self, subject: str) -> None:
        """A backend is asked for a network."""
        if subject in self._unbuildable:
            raise RuntimeError("no engine can be built, says the drill")
        self.working("latency")

    def _strike(self, fault: Fault, path: Path | None, size: int) -> None:
        kind, share = fault.kind, fault.share
        if kind == "torn journal tail":
            assert path is not None
            os.truncate(path, size + 1 + int(share * (path.stat().st_size - size - 2)))
        if kind == "full disk":
            room = path.stat().st_size + int(200 * share) if path is not None and path.exists() and share < 0.5 else 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        elif kind == "clock jump":
            jump((share - 0.5) * 2e8)
        elif kind == "out of memory":
            raise MemoryError("says the drill")
        elif kind == "build failure":
            raise RuntimeError("no engine can be built, says the drill")
        elif kind == "unreadable image" and fault.place == "frame":
            assert path is not None
            os.truncate(path, int(share * path.stat().st_size))
        else:
            os.kill(os.getpid() if kind == "worker killed" else self._driver, signal.SIGKILL)
            time.sleep(60)  # where it was the driver that a worker has killed


def jump(seconds: float) -> None:
    """Put the clock on the wall forward, or back; what counts seconds from one event to the next goes on."""
    real_time, real = time.time, datetime.datetime

    class Jumped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real.now(tz) + datetime.timedelta(seconds=seconds)

    for module in list(sys.modules.values()):
        if vars(module).get("datetime") is real:
            module.datetime = Jumped  # type: ignore[attr-defined]
    datetime.datetime = Jumped  # type: ignore[misc]
    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: int((real_time() + seconds) * 1e9)


def around(owner: Any, name: str, wrapped: Callable[..., Any]) -> None:
    """Put `wrapped(original, *arguments)` in the place of a function or method."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *arguments, **named: wrapped(original, *arguments, **named))


def install(striker: Striker, shared: Shared) -> None:
    """Have everything that commits or works pass its point, in this process and those it starts."""
    _whole_files(striker)
    _stores(striker)
    _journal(striker)
    _work(striker, shared)


def _point(path: Path) -> str:
    """The commit point of a file, empty for one that is none."""
    if path.name.startswith("."):
        return ""
    return {"checkpoints": "weights", "states": "training state"}.get(path.parent.name) or (path.name if path.name in COMMITS else "")


def _whole_files(striker: Striker) -> None:
    import lpsnet.checkpoint
    import lpsnet.resume
    import search.report
    import search.run

    def begun(original: Callable[..., Any], path: Path, *arguments: Any) -> None:
        striker.passing(f"{_point(path)}:before", path)
        original(path, *arguments)

    for owner, name in (
        (search.run, "write_json"), (search.report, "replace_file"), (lpsnet.checkpoint, "write_atomic"), (lpsnet.resume, "write_atomic")
    ):  # fmt: skip
        around(owner, name, begun)

    def placed(original: Callable[..., Any], source: Any, target: Any, **named: Any) -> None:
        if point := _point(Path(target)):
            striker.passing(f"{point}:middle", Path(target))
        original(source, target, **named)
        if point:
            striker.passing(f"{point}:after", Path(target))

    def removed(original: Callable[..., Any], path: Path, *arguments: Any, **named: Any) -> None:
        point = _point(path) if path.parent.name in ("checkpoints", "states") else ""
        if point:
            striker.passing(f"{point} removed:before")
        original(path, *arguments, **named)
        if point:
            striker.passing(f"{point} removed:after")

    around(os, "replace", placed)
    around(Path, "unlink", removed)


def _stores(striker: Striker) -> None:
    import search.run
    from latency.store import Store

    def passed(what: str) -> Callable[..., Any]:
        def opened(original: Callable[..., Any], store: Store, *arguments: Any) -> Any:
            point = f"{'run' if store.path.name == search.run.STORE else 'machine'}'s {what}"
            striker.passing(f"{point}:before", store.path)
            result = original(store, *arguments)
            striker.passing(f"{point}:after", store.path)
            return result

        return opened

    around(Store, "_check", passed("store opened"))
    around(Store, "_insert", passed("latency row"))

    def locked(original: Callable[..., Any], path: Path) -> Any:
        striker.passing("driver.lock:before", path / search.run.LOCK)
        lock = original(path)
        striker.passing("driver.lock:after", path / search.run.LOCK)
        return lock

    around(search.run, "_acquire", locked)


def _journal(striker: Striker) -> None:
    import optuna.storages.journal._file as journal

    import search.journal

    def appended(original: Callable[..., Any], backend: Any, logs: list[dict[str, Any]]) -> None:
        point, path = JOURNAL.get(logs[0]["op_code"], "journal study"), Path(backend._file_path)
        size = path.stat().st_size
        striker.passing(f"{point}:before", path, size)
        original(backend, logs)
        striker.passing(f"{point}:after", path, size)

    def acquired(original: Callable[..., Any], lock: Any) -> Any:
        held = original(lock)
        striker.passing("journal locked:after")
        return held

    def healed(original: Callable[..., Any], path: Path) -> None:
        striker.passing("journal healed:before", path)
        original(path)
        striker.passing("journal healed:after", path)

    around(journal.JournalFileBackend, "append_logs", appended)
    around(journal.JournalFileSymlinkLock, "acquire", acquired)
    around(search.journal, "_heal", healed)


def _work(striker: Striker, shared: Shared) -> None:
    """Points between commits; what is trained, measured and kept is told to the drill."""
    from lpsnet.data.frames import Frames
    from search.cli.console import Live
    from search.observer import Observer
    from search.proxy import Proxy, TrainJob
    from search.study import TrainingKey, TrainingStudy

    def moved(original: Callable[..., Any], observer: Observer, what: str, *rest: Any) -> None:
        original(observer, what, *rest)
        if what in ("iterations", "validation"):
            striker.working("training")

    for owner in (Observer, Live):
        around(owner, "work", moved)

    def trained(original: Callable[..., Any], proxy: Proxy, job: TrainJob) -> Any:
        shared.tell("train", job.architecture, job.seed, job.rung)
        return original(proxy, job)

    def measured(original: Callable[..., Any], backend: Any, module: Any, conditions: Any, subject: str) -> Any:
        shared.tell("measure", f"{subject.split()[0]}@{conditions.boundary}")
        return original(backend, module, conditions, subject)

    def read(original: Callable[..., Any], frames: Any, index: int) -> Any:
        striker.passing("frame", frames.source.files(index)[0])
        return original(frames, index)

    def opened(original: Callable[..., Any], study: TrainingStudy, step: int, key: TrainingKey, attributes: Any) -> Any:
        shared.tell("open", step, key.architecture, key.seed, key.rung)
        return original(study, step, key, attributes)

    def kept(original: Callable[..., Any], study: TrainingStudy, handle: Any, key: TrainingKey, *rest: Any) -> Any:
        record = original(study, handle, key, *rest)
        shared.tell("keep", handle.step, key.architecture, key.seed, key.rung)
        return record

    around(Proxy, "train", trained)
    around(import_module("latency.measure"), "_measured", measured)  # the package has a function of that name
    around(Frames, "_frame", read)
    around(TrainingStudy, "begin", opened)
    around(TrainingStudy, "finish", kept)
