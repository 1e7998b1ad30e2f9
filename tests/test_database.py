"""Studies in a real PostgreSQL server: opened by several at once, one driver a study, and a server that goes and comes back."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from latency.store import default_store_path
from lpsnet.recipe import TrainRecipe
from search import database
from search.cli import run
from search.database import Database
from search.executor import current_environment
from search.journal import StudyError
from search.run import Run
from search.study import TrainingKey, TrainingRecord, TrainingStudy
from tests.kill_driver import killed
from tests.postgres import Server, postgres
from tests.processes import Process
from tests.tiny import TINY_OPTIONS, few_frames, fill_store, tiny_config

pytestmark = pytest.mark.alone

KEY = TrainingKey(architecture="B1-1-1-1-1_C4-8-16-32-32_R4", recipe=TrainRecipe(iterations=10), parent_trial="", seed=0)
RECORD = TrainingRecord(miou_percent=41.5, class_iou_percent=(None, 41.5), curve=((5, 2.0), (10, 1.5)), seconds=3.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@contextmanager
def opened(server: Server, name: str, *, heal: bool = True) -> Iterator[TrainingStudy]:
    with closing(TrainingStudy(name, server.url, heal=heal)) as study:
        yield study


def found(server: Server, name: str) -> TrainingRecord | None:
    """What a reader finds."""
    with opened(server, name, heal=False) as study:
        return study.find(KEY)


def trained(study: TrainingStudy, key: TrainingKey = KEY) -> TrainingRecord:
    return study.finish(study.begin(0, key, {}), key, RECORD)


def test_drivers_that_begin_at_once_on_an_empty_database_all_open_it(server: Server) -> None:
    together = threading.Barrier(4)

    def begin(name: str) -> TrainingRecord:
        together.wait()
        with opened(server, name) as study:
            return trained(study)

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(begin, "abcd"))) == 4
    for name in "abcd":
        assert found(server, name) == dataclasses.replace(RECORD, trial="step-00/0")


def test_a_study_has_one_driver_and_any_number_of_readers(server: Server) -> None:
    refusal = rf"study one in postgresql://.* is being driven by lps-search \S+ process {os.getpid()}; one driver"
    with opened(server, "one") as first:
        handle = first.begin(0, KEY, {})
        with pytest.raises(StudyError, match=refusal), opened(server, "one"):
            pytest.fail("two drive")
        assert found(server, "one") is None
        stored = first.finish(handle, KEY, RECORD)  # the other left it alone
    with opened(server, "one") as second:
        assert second.find(KEY) == stored and len(second.trials(0)) == 1


def begin_and_hang(url: str, begun: Path) -> None:
    TrainingStudy("killed", url, heal=True).begin(0, KEY, {})
    begun.touch()
    time.sleep(600)


def test_a_killed_driver_gives_way_at_once_and_its_trial_is_an_orphan(server: Server, tmp_path: Path) -> None:
    process = Process(begin_and_hang, server.url, tmp_path / "begun", output=tmp_path / "printed")
    try:
        process.until((tmp_path / "begun").exists)
        with pytest.raises(StudyError, match=r"being driven by lps-search \S+ process \d+; one"), opened(server, "killed"):
            pytest.fail("two drive")
    finally:
        process.send(signal.SIGKILL)
    process.ends()
    with opened(server, "killed") as study:
        assert [trial.state.name for trial in study.trials(0)] == ["FAIL"] and study.find(KEY) is None
        assert trained(study).trial == "step-00/1"


def test_a_server_that_is_restarted_costs_a_driver_nothing(server: Server) -> None:
    with opened(server, "restarted") as study, ThreadPoolExecutor(1) as pool:
        handle = study.begin(0, KEY, {})
        server.stop()
        writing = pool.submit(study.finish, handle, KEY, RECORD)
        server.start()  # here, since it ends with the thread that starts it
        stored = writing.result()
        with pytest.raises(StudyError, match="one driver"), opened(server, "restarted"):  # its right came back, too
            pytest.fail("two drive")
    assert found(server, "restarted") == stored


def test_a_driver_whose_study_was_taken_over_meanwhile_writes_nothing_more(server: Server) -> None:
    with opened(server, "taken") as first:
        handle = first.begin(0, KEY, {})
        server.stop()
        server.start()
        with opened(server, "taken") as second:  # the first did not notice that its connection is gone
            with pytest.raises(StudyError, match="being driven by"):
                first.finish(handle, KEY, RECORD)
            stored = trained(second)
            assert second.find(KEY) == stored and [trial.state.name for trial in second.trials(0)] == ["FAIL", "COMPLETE"]


def test_a_server_that_stays_away_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ANSWER_WITHIN_S", 0.5)
    with opened(server, "away") as study:
        server.stop()
        try:
            with pytest.raises(StudyError, match=r"does not answer: .*lps-search resume goes on") as told:
                study.begin(0, KEY, {})
            assert "\n" not in str(told.value)
            with pytest.raises(StudyError, match=r"cannot be opened: .*refused"):
                Database(server.url)
        finally:
            server.start()


def test_two_copies_of_a_run_do_not_drive_one_study(server: Server, tmp_path: Path) -> None:
    config = tiny_config(storage=server.url)
    classes, here = tuple("abc"), current_environment(config)
    with Run.start(tmp_path / "run", config, classes, here):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with pytest.raises(StudyError, match="being driven by"):
            Run.start(tmp_path / "copy", config, classes, here)
        Run.read(tmp_path / "copy").close()
    Run.start(tmp_path / "copy", config, classes, here).close()


def test_a_search_killed_and_resumed_over_the_server_ends_in_the_chain_of_one_over_a_journal(server: Server, tmp_path: Path) -> None:
    fill_store(default_store_path(), tiny_config())
    few_frames()

    def search(name: str, *more: str) -> list[str]:
        return ["expand", "--steps", "1", *TINY_OPTIONS.split(), "--out", str(tmp_path / name), *more]

    over_server = search("server", "--storage", server.url)
    process = Process(killed, "work", 60, over_server, output=tmp_path / "printed")
    assert process.ends() == -signal.SIGKILL, process.printed()
    assert run(over_server) == 0 and run(search("journal")) == 0
    assert (tmp_path / "server" / "family.csv").read_text() == (tmp_path / "journal" / "family.csv").read_text()
    with Run.read(tmp_path / "server") as opened_run:
        finished = [trial.user_attrs["key"] for step in (0, 1) for trial in opened_run.study.trials(step) if trial.state.name == "COMPLETE"]
    assert len(finished) == len(set(finished)) >= 7
