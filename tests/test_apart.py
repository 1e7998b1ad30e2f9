"""Long calls in processes of their own, several at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latency.worker import WorkerEnded
from search import apart
from search.apart import Call, run_apart, run_here
from tests.processes import quick_workers


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(apart, "HEARTBEAT_S", 0.02)
    with quick_workers():
        yield


def fails(text: str) -> None:
    raise ValueError(text)


def ends() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def waits_for(path: Path) -> int:
    """Its process, once a file is there."""
    while not path.exists():
        time.sleep(0.01)
    return os.getpid()


def leaves(path: Path) -> int:
    path.touch()
    return os.getpid()


def notes_itself(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def test_two_at_a_time_are_given_as_they_end_each_by_a_process_of_its_own(tmp_path: Path) -> None:
    calls = [Call(waits_for, (tmp_path / "there",)), Call(leaves, (tmp_path / "there",)), Call(os.getpid, ())]
    given = dict(run_apart(calls, 2, lambda: None))  # one at a time would wait for ever
    assert set(given) == {0, 1, 2} and len({os.getpid(), *given.values()}) == 4


@pytest.mark.parametrize("parallel", [0, 1, 2])
def test_what_a_call_raises_is_given_and_the_others_go_on(parallel: int) -> None:
    calls = [Call(fails, ("no",)), Call(len, ("four",))]
    given = dict(run_apart(calls, parallel, lambda: None) if parallel else run_here(calls))
    assert isinstance(given[0], ValueError) and str(given[0]) == "no" and given[1] == 4


def test_a_lost_process_is_told_and_no_call_none() -> None:
    given = dict(run_apart([Call(ends, ()), Call(len, ("a",))], 1, lambda: None))
    lost, there = given[0], given[1]
    assert isinstance(lost, WorkerEnded) and "SIGKILL" in str(lost) and there == 1
    assert list(run_apart([], 2, lambda: None)) == []


def test_whoever_stops_listening_ends_the_processes_and_begins_no_more(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("first", "second", "third")]

    def tick() -> None:
        if all(file.exists() and file.read_text() for file in files[:2]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_apart([Call(notes_itself, (file,)) for file in files], 2, tick))
    assert not files[2].exists()
    for file in files[:2]:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
