"""The device lock: measuring alone, trainings together, and a word to whoever waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latency.lock import device_lock

HOLD = """
import sys
from latency.lock import device_lock
with device_lock("cpu", alone=sys.argv[1] == "alone", tell=print):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)
    assert process.returncode == 0


CASES = [("alone", True, True), ("alone", False, True), ("shared", True, True), ("shared", False, False)]


@pytest.mark.parametrize(("theirs", "alone", "waits"), CASES)
def test_only_trainings_share_a_device(theirs: str, alone: bool, waits: bool) -> None:
    other = holder(theirs)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        end(other)  # only now does it let go

    with device_lock("cpu", alone=alone, tell=tell):
        pass
    assert bool(told) == waits
    if waits:
        assert told[0].startswith("waiting: another process") and "cpu" in told[0]
    else:
        end(other)


def test_another_device_is_not_waited_for() -> None:
    other = holder("alone")
    told: list[str] = []
    with device_lock("cuda", alone=True, tell=told.append):
        assert not told
    end(other)


def test_a_killed_holder_holds_no_more() -> None:
    other = holder("alone")
    other.kill()
    other.wait()
    told: list[str] = []
    with device_lock("cpu", alone=True, tell=told.append):
        assert not told
    other.communicate()


def test_where_no_lock_can_be_written_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LPS_SEARCH_LOCKS", str(tmp_path / "file"))
    with device_lock("cpu", alone=True):
        pass
