"""Faults that the drills of `tests/drill.py` found, each by itself: what the user is told, and that the work goes on."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import latency.worker
from latency.store import Store
from latency.worker import Worker, WorkerEnded
from search.cli import run
from search.executor import LocalExecutor
from search.journal import StudyError
from search.observer import Observer
from search.pool import Ended
from search.proxy import Proxy, TrainJob
from search.run import Run, RunError
from search.space import OPERATIONS, expansion
from search.study import TrainingStudy
from tests.processes import quick_workers
from tests.test_study import KEY, RECORD
from tests.tiny import TINY_OPTIONS, few_frames, fill_store, tiny_config


def ends_once(mark: Path) -> str:
    """Ends its process the first time."""
    if not mark.exists():
        mark.touch()
        os._exit(9)
    return "answered"


def crash() -> None:
    os._exit(9)


def test_a_call_whose_process_was_ended_is_made_once_more(tmp_path: Path) -> None:
    with quick_workers():
        worker = Worker(60)
        assert worker.call_twice(ends_once, tmp_path / "mark") == "answered"
        with pytest.raises(WorkerEnded, match="ended with exit code 9"):
            worker.call_twice(crash)
        worker.close()


CALLER: list[Connection] = []


def caller_goes() -> None:
    CALLER.pop().close()


def caller_goes_later() -> str:
    """The answer lies unread in the pipe when the caller goes."""
    threading.Timer(0.2, CALLER.pop().close).start()
    return "unread"


@pytest.mark.parametrize("going", [caller_goes, caller_goes_later])
def test_a_process_whose_caller_has_gone_leaves_without_an_error(monkeypatch: pytest.MonkeyPatch, going: Callable[[], object]) -> None:
    # It is served in this process, which keeps its own signals and must not die with its thread.
    monkeypatch.setattr("latency.worker.signal.signal", lambda *ignored: None)
    monkeypatch.setattr(latency.worker, "sys", SimpleNamespace(platform="tests"))
    ours, theirs = Pipe()
    CALLER.append(ours)
    ours.send_bytes(pickle.dumps((going, ())))
    latency.worker._serve(theirs)
    theirs.close()
    assert not CALLER


def test_a_worker_may_be_closed_while_a_call_finds_its_process_gone() -> None:
    worker = Worker(60)

    class Gone:
        """A process that is closed from another thread while this one waits for its end."""

        exitcode = -9

        def join(self, timeout: float = 0.0) -> None:
            worker.close()

        def kill(self) -> None:
            pass

    worker._process = Gone()
    worker.close()
    assert worker._process is None
    assert worker._ending() == "was closed"
    worker._process = Gone()
    assert worker._ending() == "was ended by SIGKILL"


def test_a_worker_may_be_closed_while_a_call_starts_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(60)
    closing = threading.Thread(target=worker.close)

    class Starting:
        """A process that is closed from another thread while it starts."""

        exitcode, started = -9, False

        def start(self) -> None:
            closing.start()
            time.sleep(0.1)
            self.started = True

        def join(self, timeout: float = 0.0) -> None:
            assert self.started

        def kill(self) -> None:
            assert self.started

    context = SimpleNamespace(Pipe=Pipe, Process=lambda **how: Starting())
    monkeypatch.setattr("latency.worker.multiprocessing.get_context", lambda method: context)
    with pytest.raises(WorkerEnded, match=r"was closed|was ended"):
        worker.call(crash)
    closing.join()
    assert worker._process is None


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_a_candidate_that_ran_out_of_memory_is_trained_once_more_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    few_frames()
    config = tiny_config()
    jobs = [TrainJob(architecture=expansion(config.start_architecture, operation, 1), seed=0) for operation in OPERATIONS[2:5]]
    short = {jobs[0].architecture: 1, jobs[1].architecture: 2}  # how often each finds no memory
    begun, tried = [], []
    train = Proxy.train

    def trained(proxy: Proxy, job: TrainJob) -> Any:
        tried.append(job)
        if short.get(job.architecture):
            short[job.architecture] -= 1

            def full(*arguments: object, **named: object) -> None:
                raise error

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("lpsnet.training.train", full)
                return train(proxy, job)
        return train(proxy, job)

    monkeypatch.setattr(Proxy, "train", trained)
    executor = LocalExecutor(config, Store(tmp_path / "store.sqlite"), Observer())
    ended: list[Ended] = list(executor.train(jobs, begun.append, lambda running: None))
    assert begun == jobs and tried == [*jobs, *jobs[:2]]
    assert [one.job for one in ended] == [jobs[2], *jobs[:2]]
    assert [hasattr(one.result, "scores") for one in ended] == [True, True, False]
    assert str(ended[-1].result).startswith("out of memory: ")


@pytest.mark.parametrize(
    "write",
    [
        lambda study: study.begin(1, KEY, {}),
        lambda study: study.finish(study.begin(1, KEY, {}), KEY, RECORD),
        lambda study: study.describe(1, {"chosen": "N0"}),
    ],
    ids=["begin", "finish", "describe"],
)
@pytest.mark.parametrize("writes", [0, 2])
def test_a_journal_on_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[TrainingStudy], object], writes: int
) -> None:
    study, left = TrainingStudy("run", str(tmp_path / "study.journal"), heal=True), [writes]

    def full(number: int) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1

    monkeypatch.setattr("optuna.storages.journal._file.os.fsync", full)
    with pytest.raises(StudyError, match=r"study .*study\.journal cannot be written: .*No space left.*resume") as told:
        for _ in range(3):
            write(study)
    assert len(str(told.value).splitlines()) == 1


def test_a_driver_lock_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "driver.lock").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"run folder .* cannot be written"):
        Run.start(tmp_path / "run", tiny_config(), ("road",), None)  # type: ignore[arg-type]


def test_a_runs_lost_store_is_filled_from_the_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_frames()
    machine, folder = tmp_path / "machine.sqlite", tmp_path / "run"
    fill_store(machine, tiny_config())
    arguments = ["--store", str(machine)]
    assert run(["expand", "--steps", "1", "--seeds", "1", *TINY_OPTIONS.split(), *arguments, "--out", str(folder)]) == 0
    before, trained = (folder / "candidates.csv").read_text(), (folder / "study.journal").read_text().count('"record"')
    (folder / "latency.sqlite").unlink()
    capsys.readouterr()
    assert run(["resume", str(folder), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has lost latency.sqlite: put it back" in line and "resume --remeasure" in line
    rows = Store(machine).last_row()
    assert run(["resume", str(folder), *arguments, "--remeasure"]) == 0
    assert (folder / "candidates.csv").read_text() == before and Store(machine).last_row() == rows
    assert (folder / "study.journal").read_text().count('"record"') == trained


def test_a_driver_removes_what_a_killed_one_had_not_written_to_the_end_and_nothing_else(tmp_path: Path) -> None:
    few_frames()
    fill_store(tmp_path / "machine.sqlite", tiny_config())
    folder = tmp_path / "run"
    unfinished = [".config.json.17", ".family.csv.17", "checkpoints/.B1-1.safetensors.ab3", "states/.0f.pt.x_1"]
    others = [".gitignore", ".picks.json.17", "checkpoints/.nfs0001"]
    for name in (*unfinished, *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert run(["expand", "--steps", "0", *TINY_OPTIONS.split(), "--store", str(tmp_path / "machine.sqlite"), "--out", str(folder)]) == 0
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob(".*")) == sorted(others)
