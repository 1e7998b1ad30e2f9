"""Building engines while the disk fills up and while the process is killed: whole files or none."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import time
from pathlib import Path

import pytest

from latency.engine import runtime_module
from latency.protocols import BackendError
from search.cli import main
from tests.processes import Process

EXPORT = ["export", "N0", "--input", "64x128", "--engine", "--compute-capability", "8.6", "--out", "n0.onnx"]


@pytest.fixture(autouse=True)
def rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        runtime_module("tensorrt-rtx")
    except BackendError as missing:
        pytest.skip(str(missing))
    (tmp_path / "files").mkdir()
    monkeypatch.chdir(tmp_path / "files")


def export(limit: int) -> None:
    """Export into the working folder, and exit with what the command line says; no file may be larger than `limit` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    main(EXPORT)


def start(folder: Path, limit: int) -> Process:
    """The export in a process of its own."""
    return Process(export, limit, output=folder.with_name("printed"))


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def assert_whole(folder: Path) -> None:
    """Whatever lies there is described and complete, but for files that say by their name that they are not."""
    for path in folder.glob("n0.*"):
        if path.suffix in (".onnx", ".engine") and path.with_name(path.name + ".json").exists():
            described = json.loads(path.with_name(path.name + ".json").read_text())
            assert hashlib.sha256(path.read_bytes()).hexdigest() == described["sha256"]


def test_a_disk_without_room_for_the_engine_is_one_line_and_the_graph_stays(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    assert start(folder, 2**30).ends() == 0
    full = sizes(folder)
    assert full["n0.engine"] > full["n0.onnx"]  # else the limit below would catch the graph
    for path in folder.iterdir():
        path.unlink()
    process = start(folder, full["n0.onnx"] + 1)
    assert process.ends() == 2
    (line,) = [line for line in process.printed().splitlines() if line.startswith("error:")]
    assert "cannot write n0.engine" in line
    assert sorted(sizes(folder)) == ["n0.onnx", "n0.onnx.json"]
    assert_whole(folder)


def test_a_build_that_is_killed_leaves_whole_files_or_none_and_the_next_one_works(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    for delay in (0.0, 0.05, 0.2):
        process = start(folder, 2**30)
        process.until((folder / "n0.onnx.json").exists)
        time.sleep(delay)  # the graph is written; the engine is being built
        process.send(signal.SIGKILL)
        process.ends()
        assert_whole(folder)
    assert start(folder, 2**30).ends() == 0 and {"n0.engine", "n0.engine.json"} <= set(sizes(folder))
    assert_whole(folder)
