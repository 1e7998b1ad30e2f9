"""A folder for results that takes no file is found before anything is measured or trained for it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

from search.cli import run
from tests.test_runner import CountingExecutor, finish
from tests.tiny import few_frames, tiny_config

SMALL = ["--input", "64x96"]
QUICK = ["--threads", "1", "--seconds", "0"]

VERBS = {
    "train": ["train", "N0", "--device", "cpu"],
    "expand": ["expand", *SMALL, "--latency-seconds", "0"],
    "bench-table": ["bench-table", *SMALL, "--networks", "1", *QUICK],
    "validate-proxy": ["validate-proxy", "RUN", "--settings", "scratch-4"],
    "rival": ["rival", "--live", "synthetic", "--sampler", "random"],
    "compare": ["compare", "N0", *SMALL, *QUICK],
    "ablate": ["ablate", "blocks", *SMALL, *QUICK],
    "data study": ["data", "study", *SMALL],
    "latency-table": ["latency-table", *SMALL, *QUICK],
    "latency-predictor": ["latency-predictor", *SMALL, *QUICK],
}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A folder that is there and takes no file."""
    if os.geteuid() == 0:  # whom permissions do not bind
        if not Path("/proc/self").is_dir():
            pytest.skip("no folder here takes no file from root")
        return Path("/proc/self")
    (tmp_path / "sealed").mkdir(mode=0o555)
    return tmp_path / "sealed"


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_refused_before_the_work(
    verb: str, sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_frames()
    if verb == "validate-proxy":
        config = tiny_config(1)
        finish(tmp_path / "run", config, CountingExecutor(config))

    def begun(*_: Any, **__: Any) -> None:
        pytest.fail("work was begun")

    for work in ("lpsnet.training.fit", "search.training_run.fit", "lpsnet.data.frames.Frames.hold"):
        monkeypatch.setattr(work, begun)
    # `latency.measure` as an attribute is the function
    monkeypatch.setattr(importlib.import_module("latency.measure"), "_measure", begun)
    arguments = [str(tmp_path / "run") if argument == "RUN" else argument for argument in VERBS[verb]]
    assert run([*arguments, "--out", str(sealed)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert f"folder {sealed} cannot be written" in line and "--out" in line
