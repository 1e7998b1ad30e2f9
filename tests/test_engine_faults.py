"""Building engines while the disk fills up and while the process is killed: whole files or none."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latency.engine import runtime_module
from latency.protocols import BackendError

EXPORT = ["export", "N0", "--input", "64x128", "--engine", "--compute-capability", "8.6", "--out", "n0.onnx"]
LIMITED = """
import resource, sys
from search.cli import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main(sys.argv[2:])
"""


@pytest.fixture(autouse=True)
def rtx() -> None:
    try:
        runtime_module("tensorrt-rtx")
    except BackendError as missing:
        pytest.skip(str(missing))


def start(folder: Path, limit: int) -> subprocess.Popen[str]:
    """The export in a process that may write no file larger than `limit` bytes."""
    code = [sys.executable, "-c", LIMITED, str(limit), *EXPORT]
    return subprocess.Popen(code, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def assert_whole(folder: Path) -> None:
    """Whatever lies there is described and complete, but for files that say by their name that they are not."""
    for path in folder.glob("n0.*"):
        if path.suffix in (".onnx", ".engine") and path.with_name(path.name + ".json").exists():
            described = json.loads(path.with_name(path.name + ".json").read_text())
            assert hashlib.sha256(path.read_bytes()).hexdigest() == described["sha256"]


def test_a_disk_without_room_for_the_engine_is_one_line_and_the_graph_stays(tmp_path: Path) -> None:
    whole = start(tmp_path, 2**30)
    assert whole.wait() == 0
    whole.communicate()
    full = sizes(tmp_path)
    assert full["n0.engine"] > full["n0.onnx"]  # else the limit below would catch the graph
    for path in tmp_path.iterdir():
        path.unlink()
    process = start(tmp_path, full["n0.onnx"] + 1)
    _, error = process.communicate()
    assert process.returncode == 2
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert "cannot write n0.engine" in line
    assert sorted(sizes(tmp_path)) == ["n0.onnx", "n0.onnx.json"]
    assert_whole(tmp_path)


def test_a_build_that_is_killed_leaves_whole_files_or_none_and_the_next_one_works(tmp_path: Path) -> None:
    for delay in (0.0, 0.05, 0.2):
        process = start(tmp_path, 2**30)
        deadline = time.monotonic() + 100
        while not (tmp_path / "n0.onnx.json").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay)  # the graph is written; the engine is being built
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert_whole(tmp_path)
    again = start(tmp_path, 2**30)
    again.communicate()
    assert again.returncode == 0 and {"n0.engine", "n0.engine.json"} <= set(sizes(tmp_path))
    assert_whole(tmp_path)
