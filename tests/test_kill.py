"""SIGKILL at random points and at every kind of write: the chain is that of an uninterrupted run, and nothing is trained twice."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kill_driver import killed
from tests.processes import Process
from tests.tiny import TINY_OPTIONS, fill_store, tiny_config

WRITES = [
    "json:before", "json:after", "journal:before", "journal:middle", "journal:after", "lock:after", "store:before", "store:after",
    "checkpoint:before", "checkpoint:middle", "checkpoint:after", "settle:before", "settle:after",
    "report:before", "report:middle", "report:after",
]  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """The end of an uninterrupted run, and what a test needs to repeat it."""

    store: Path
    family: str
    trained: list[str]
    signs_of_progress: int


def drive(folder: Path, store: Path, place: str = "work", count: int = 10**9) -> int:
    """Run or go on with the tiny search in a process of its own that dies at the given place; returns its exit code."""
    arguments = ["expand", "--steps", "2", *TINY_OPTIONS.split(), "--out", str(folder)]
    environment = {**os.environ, "LPS_SEARCH_STORE": str(store)}
    process = Process(killed, place, count, arguments, output=store.with_name("printed"), environment=environment)
    assert process.ends() in (0, -signal.SIGKILL), process.printed()
    return process.ends()


def family(folder: Path) -> str:
    return (folder / "family.csv").read_text()


def finished_trainings(folder: Path) -> list[str]:
    """The key of every training that came to an end, in order, read from the journal itself; of its parent, the step."""
    lines = [json.loads(line) for line in (folder / "study.journal").read_text().splitlines()]
    keys = {line["trial_id"]: line["user_attr"]["key"] for line in lines if "key" in line.get("user_attr", {})}
    told = {trial: re.sub(r"(parent=step-\d+)/\d+", r"\1", key) for trial, key in keys.items()}
    return [told[line["trial_id"]] for line in lines if line.get("user_attr", {}).get("record")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("whole")
    store = folder / "store.sqlite"
    fill_store(store, tiny_config())
    assert drive(folder / "run", store) == 0
    trained = finished_trainings(folder / "run")
    assert len(trained) >= 7, "the tiny search is too small to be interrupted often"
    return Finished(store, family(folder / "run"), trained, signs_of_progress=20 * len(trained))


def test_a_search_killed_at_ten_random_points_ends_in_the_same_chain_and_trains_nothing_twice(tmp_path: Path, finished: Finished) -> None:
    draw = random.Random(20261120)
    store, folder, kills = tmp_path / "store.sqlite", tmp_path / "run", 0
    shutil.copy(finished.store, store)
    while kills < 10:
        if drive(folder, store, "work", draw.randint(5, finished.signs_of_progress // 6)) == 0:
            shutil.rmtree(folder)  # it reached its end between two kills: begin anew
        else:
            kills += 1
    assert drive(folder, store) == 0
    assert family(folder) == finished.family
    assert finished_trainings(folder) == finished.trained


def test_a_search_killed_once_at_every_kind_of_write_ends_in_the_same_chain(tmp_path: Path, finished: Finished) -> None:
    store, folder, draw = tmp_path / "store.sqlite", tmp_path / "run", random.Random(7)
    shutil.copy(finished.store, store)
    ahead = {"json": 1, "journal": 12, "lock": 8, "store": 12}  # far enough to be in the midst of a step, near enough to be reached
    for place in WRITES:
        count = draw.randint(1, ahead.get(place.partition(":")[0], 1))
        code = drive(folder, store, place, count)
        if code == 0:  # nothing of this kind was left to write: strike at the first in a new run
            shutil.rmtree(folder)
            code = drive(folder, store, place, 1)
        assert code == -signal.SIGKILL, place
    assert drive(folder, store) == 0
    assert family(folder) == finished.family
    lost = len(finished_trainings(folder)) - len(set(finished_trainings(folder)))
    assert lost == 0 and sorted(finished_trainings(folder)) == sorted(finished.trained)
