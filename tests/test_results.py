"""The results in the repository: every committed run can be read on this machine and gives the tables beside it again."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lpsnet import load
from search.report import candidates_frame, family_frame
from search.run import Run
from search.runner import replay

RUNS = sorted(path.parent for path in (Path(__file__).resolve().parents[1] / "results" / "runs").glob("*/config.json"))


def test_there_is_a_committed_run() -> None:
    assert RUNS


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_committed_run_gives_its_tables_again(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    with Run.read(copy) as run:
        steps = replay(run).steps
        assert len(steps) == run.config.steps + 1
        for name, frame in (("family.csv", family_frame(run, steps)), ("candidates.csv", candidates_frame(run, steps))):
            frame.to_csv(tmp_path / name, index=False, float_format="%.6g")
            pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), pd.read_csv(folder / name))


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_the_weights_of_a_committed_run_are_those_it_names_and_load(folder: Path) -> None:
    rows = pd.read_csv(folder / "family.csv", keep_default_na=False)
    for row in rows.itertuples():
        if row.weights:
            path = folder / str(row.weights)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == row.weights_sha256
            assert str(load(path).architecture) == row.architecture
            assert path.stat().st_size <= 5_000_000
