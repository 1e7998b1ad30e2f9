"""Calls in a process of their own: values, errors, hanging and crashing code, interrupts, and what stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latency.protocols import MeasurementFailed, is_out_of_memory
from latency.worker import Worker, WorkerLost


def double(value: int) -> int:
    return 2 * value


def identity() -> int:
    return os.getpid()


def hang() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # native code that hangs does not listen either
    time.sleep(600)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(3)


def refuse(text: str) -> None:
    raise MeasurementFailed(text)


def run_out() -> None:
    raise MeasurementFailed("the network cannot be built") from MemoryError()


def unpicklable() -> object:
    return lambda: None


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def odd() -> None:
    raise Odd(1, 2)  # cannot be unpickled: its constructor takes what its arguments do not hold


@pytest.fixture
def worker() -> object:
    one = Worker(60)
    yield one
    one.close()


def test_calls_are_answered_by_one_process_that_is_not_this_one(worker: Worker) -> None:
    assert worker.call(double, 21) == 42
    first, second = worker.call(identity), worker.call(identity)
    assert first == second != os.getpid()


def test_errors_arrive_as_they_were_and_memory_that_ran_out_can_be_told(worker: Worker) -> None:
    with pytest.raises(MeasurementFailed, match="no kernel for it"):
        worker.call(refuse, "no kernel for it")
    with pytest.raises(MeasurementFailed) as caught:
        worker.call(run_out)
    assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError, match="Odd: odd"):
        worker.call(odd)
    with pytest.raises(MeasurementFailed, match="the answer cannot be passed on"):
        worker.call(unpicklable)
    assert worker.call(double, 1) == 2


def test_a_call_that_hangs_is_ended_and_the_next_one_answered(worker: Worker) -> None:
    before = worker.call(identity)
    worker.limit_s = 0.3  # the start of a process is no part of it
    with pytest.raises(WorkerLost, match=r"no answer within 0.3 s"):
        worker.call(hang)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    worker.limit_s = 60
    assert worker.call(double, 3) == 6


@pytest.mark.parametrize(("fault", "said"), [(crash, "was ended by SIGSEGV"), (leave, "ended with exit code 3")])
def test_a_call_that_ends_its_process_says_how_and_the_next_one_is_answered(worker: Worker, fault: object, said: str) -> None:
    with pytest.raises(WorkerLost, match=f"the process {said}"):
        worker.call(fault)  # type: ignore[arg-type]
    assert worker.call(double, 3) == 6


def test_a_killed_caller_takes_a_hanging_process_with_it(tmp_path: Path) -> None:
    code = f"""
import os, time
from latency.worker import Worker
from tests.test_worker import hang, identity
if __name__ == "__main__":
    worker = Worker(60)
    open({str(tmp_path / "pid")!r}, "w").write(str(worker.call(identity)))
    os.rename({str(tmp_path / "pid")!r}, {str(tmp_path / "ready")!r})
    worker.call(hang)
"""
    (tmp_path / "main.py").write_text(code)
    caller = subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env={**os.environ, "PYTHONPATH": os.getcwd()})
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline and caller.poll() is None
        time.sleep(0.05)
    child = int((tmp_path / "ready").read_text())
    time.sleep(0.3)
    caller.kill()
    caller.wait()
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
