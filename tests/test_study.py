"""The record of trainings: what it answers, what a killed driver leaves behind, and runs that share a database."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lpsnet.errors import UserError
from lpsnet.recipe import TrainRecipe, proxy_recipe
from search.journal import StudyError
from search.study import METRIC, ORPHANED, OpenTrial, TrainingKey, TrainingRecord, TrainingStudy

KEY = TrainingKey(architecture="B1-1-1-1-1_C4-8-16-32-32_R4", recipe=proxy_recipe(10), parent_trial="step-00/0", seed=0)
RECORD = TrainingRecord(
    miou_percent=100 / 3,
    class_iou_percent=(50.5, None, 0.0),
    curve=((5, 2.25), (10, 1 / 3)),
    seconds=12.5,
    weights="checkpoints/net.safetensors",
    weights_sha256="ab" * 32,
)
FAILED = TrainingRecord(failure="the loss is nan at iteration 7")

Open = Callable[..., TrainingStudy]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


@pytest.fixture(params=["journal", "database"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same record again, as the driver does; a journal and a database in turn."""
    storage = str(tmp_path / "study.journal") if request.param == "journal" else f"sqlite:///{tmp_path}/studies.db"

    def open_it(name: str = "run", *, heal: bool = True) -> TrainingStudy:
        return TrainingStudy(name, storage, heal=heal)

    return open_it


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the journal's lock, which goes on for 30 s, is a failure."""

    def refuse(seconds: float) -> None:
        raise AssertionError("waits for the journal's lock")

    monkeypatch.setattr("optuna.storages.journal._file.time.sleep", refuse)


def train(study: TrainingStudy, key: TrainingKey = KEY, record: TrainingRecord = RECORD, step: int = 1) -> TrainingRecord:
    return study.finish(study.begin(step, key, {}), key, record)


def keyed(**change: Any) -> TrainingKey:
    return dataclasses.replace(KEY, **change)


class TestAnswers:
    def test_a_training_comes_back_with_its_name_and_everything_else(self, reopen: Open) -> None:
        study = reopen()
        stored = train(study)
        assert stored == dataclasses.replace(RECORD, trial="step-01/0")
        assert study.find(KEY) == stored
        for heal in (True, False):
            assert reopen(heal=heal).find(KEY) == stored

    def test_a_failure_is_an_answer(self, reopen: Open) -> None:
        stored = train(reopen(), record=FAILED)
        found = reopen().find(KEY)
        assert found == stored == dataclasses.replace(FAILED, trial="step-01/0")
        assert found is not None
        assert found.miou_percent is None

    def test_nothing_is_found_before_a_training_has_finished(self, reopen: Open) -> None:
        study = reopen()
        assert study.find(KEY) is None
        handle = study.begin(1, KEY, {})
        assert study.find(KEY) is None
        assert reopen(heal=False).find(KEY) is None
        study.finish(handle, KEY, RECORD)
        assert study.find(KEY) is not None

    @pytest.mark.parametrize(
        "other",
        [
            keyed(architecture="B1-1-1-2-2_C4-8-16-32-32_R4"),
            keyed(recipe=dataclasses.replace(KEY.recipe, learning_rate=0.04)),
            keyed(recipe=dataclasses.replace(KEY.recipe, branches=False)),
            keyed(parent_trial="step-00/1"),
            keyed(seed=1),
            keyed(recipe=dataclasses.replace(KEY.recipe, iterations=11)),
        ],
        ids=["architecture", "rate", "branches", "parent", "seed", "iterations"],
    )
    def test_every_part_of_the_key_counts(self, other: TrainingKey, journal: Path) -> None:
        study = TrainingStudy("run", str(journal), heal=True)
        train(study)
        assert other.text() != KEY.text()
        assert study.find(other) is None
        mine = train(study, other, FAILED)
        again = TrainingStudy("run", str(journal), heal=True)
        assert again.find(other) == mine
        assert again.find(KEY) == dataclasses.replace(RECORD, trial="step-01/0")

    def test_equal_keys_are_one_training_however_their_numbers_are_written(self) -> None:
        whole, decimal = (keyed(recipe=TrainRecipe(iterations=10, weight_decay=zero, jitter=zero)) for zero in (0, 0.0))
        assert whole == decimal
        assert whole.text() == decimal.text()

    def test_iterations_stand_in_the_key_for_a_reader(self) -> None:
        assert KEY.text().startswith("B1-1-1-1-1_C4-8-16-32-32_R4 ")
        assert KEY.text().endswith(" parent=step-00/0 seed=0 iterations=10")

    def test_steps_are_studies_of_their_own_and_trials_are_numbered_in_each(self, reopen: Open) -> None:
        study = reopen("camvid")
        names = [train(study, keyed(seed=seed), step=step).trial for seed, step in enumerate([0, 1, 1, 12])]
        assert names == ["step-00/0", "step-01/0", "step-01/1", "step-12/0"]
        again = reopen("camvid")
        assert sorted(optuna.get_all_study_names(again._storage)) == ["camvid/step-00", "camvid/step-01", "camvid/step-12"]
        assert [len(again.trials(step)) for step in (0, 1, 2, 12)] == [1, 2, 0, 1]
        assert [trial.number for trial in again.trials(1)] == [0, 1]

    def test_a_trial_carries_its_key_in_parts_and_what_else_is_known(self, reopen: Open) -> None:
        study = reopen()
        study.finish(study.begin(1, KEY, {"expansion": "depth-4 x7", "k": 7, "latency_ms": 0.5}), KEY, RECORD)
        (trial,) = reopen().trials(1)
        assert trial.state == TrialState.COMPLETE
        assert trial.value == RECORD.miou_percent
        for name, value in {
            "key": KEY.text(),
            "architecture": KEY.architecture,
            "parent_trial": "step-00/0",
            "seed": 0,
            "iterations": 10,
            "recipe": KEY.recipe.to_dict(),
            "expansion": "depth-4 x7",
            "k": 7,
            "latency_ms": 0.5,
        }.items():
            assert trial.user_attrs[name] == value

    def test_the_best_trial_of_a_step_is_the_one_with_the_largest_miou(self, journal: Path) -> None:
        study = TrainingStudy("run", str(journal), heal=True)
        for seed, miou in enumerate([20.0, 35.0, 30.0]):
            train(study, keyed(seed=seed), dataclasses.replace(RECORD, miou_percent=miou))
        train(study, keyed(seed=9), FAILED)
        assert study._studies[1].best_trial.number == 1


class TestKilledDrivers:
    def begin(self, study: TrainingStudy, record: TrainingRecord | None = None) -> OpenTrial:
        """A training whose driver is killed: in the midst, or between the outcome and the end."""
        handle = study.begin(1, KEY, {})
        if record is not None:
            handle.trial.set_user_attr("record", dataclasses.asdict(dataclasses.replace(record, trial="step-01/0")))
        return handle

    def test_an_orphan_is_marked_failed_and_can_be_trained_again(self, reopen: Open) -> None:
        self.begin(reopen())
        study = reopen()
        assert study.find(KEY) is None
        (orphan,) = study.trials(1)
        assert orphan.state == TrialState.FAIL
        assert orphan.user_attrs["orphaned"] == ORPHANED
        stored = train(study)
        assert stored.trial == "step-01/1"
        again = reopen()
        assert again.find(KEY) == stored
        assert [trial.state for trial in again.trials(1)] == [TrialState.FAIL, TrialState.COMPLETE]

    def test_a_reader_leaves_a_running_trial_alone(self, reopen: Open) -> None:
        driver = reopen()
        handle = self.begin(driver)
        reader = reopen(heal=False)
        assert [trial.state for trial in reader.trials(1)] == [TrialState.RUNNING]
        assert "orphaned" not in reader.trials(1)[0].user_attrs
        stored = driver.finish(handle, KEY, RECORD)
        assert reopen(heal=False).find(KEY) == stored

    @pytest.mark.parametrize("record", [RECORD, FAILED], ids=["scored", "failed"])
    def test_killed_between_outcome_and_end_answers_nothing_however_often_it_is_opened(self, reopen: Open, record: TrainingRecord) -> None:
        self.begin(reopen(), record)
        for heal in (False, True, True, False):
            assert reopen(heal=heal).find(KEY) is None
        stored = train(reopen())
        assert reopen().find(KEY) == stored

    @pytest.mark.parametrize("torn", [b'{"op_code":', b'{"op_code":8,"worker_id":"x","trial_id":0,"user_attr":{}}', b"\xff", b"\x00" * 40])
    def test_a_torn_last_line_is_cut_and_later_writes_are_readable(self, journal: Path, torn: bytes) -> None:
        first = train(TrainingStudy("run", str(journal), heal=True))
        with journal.open("ab") as file:
            file.write(torn)
        study = TrainingStudy("run", str(journal), heal=True)
        assert study.find(KEY) == first
        second = train(study, keyed(seed=1))
        again = TrainingStudy("run", str(journal), heal=True)
        assert (again.find(KEY), again.find(keyed(seed=1))) == (first, second)

    def test_a_journal_of_nothing_but_a_torn_line_starts_over(self, journal: Path) -> None:
        journal.write_bytes(b'{"op_code":0,"worker')
        stored = train(TrainingStudy("run", str(journal), heal=True))
        assert TrainingStudy("run", str(journal), heal=True).find(KEY) == stored

    @pytest.mark.timeout(60)  # Optuna looks at a link to nowhere for ever
    @pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
    def test_a_lock_that_was_left_is_removed(self, journal: Path, kind: str, no_waiting: None) -> None:
        first = train(TrainingStudy("run", str(journal), heal=True))
        lock = Path(f"{journal}.lock")
        if kind == "file":
            lock.touch()
        else:  # Optuna links the lock to the journal by the path it was given, which may be relative to another folder
            os.symlink(journal if kind == "link" else "elsewhere/study.journal", lock)
        study = TrainingStudy("run", str(journal), heal=True)
        assert not os.path.lexists(lock)
        assert study.find(KEY) == first
        train(study, keyed(seed=1))
        assert not os.path.lexists(lock)


class TestReaders:
    def test_reading_does_not_write(self, journal: Path) -> None:
        stored = train(TrainingStudy("run", str(journal), heal=True))
        before = journal.read_bytes()
        reader = TrainingStudy("run", str(journal), heal=False)
        assert reader.find(KEY) == stored
        assert len(reader.trials(1)) == 1
        assert journal.read_bytes() == before

    def test_reading_beside_a_torn_line_loses_nothing(self, journal: Path) -> None:
        stored = train(TrainingStudy("run", str(journal), heal=True))
        with journal.open("ab") as file:
            file.write(b'{"op_code":8,"worker_id":')
        assert TrainingStudy("run", str(journal), heal=False).find(KEY) == stored
        study = TrainingStudy("run", str(journal), heal=True)
        assert study.find(KEY) == stored
        train(study, keyed(seed=1))
        assert TrainingStudy("run", str(journal), heal=True).find(KEY) == stored

    def test_reading_does_not_wait_for_a_lock(self, journal: Path, no_waiting: None) -> None:
        stored = train(TrainingStudy("run", str(journal), heal=True))
        os.symlink(journal, f"{journal}.lock")
        assert TrainingStudy("run", str(journal), heal=False).find(KEY) == stored
        assert os.path.lexists(f"{journal}.lock"), "the lock may belong to the driver"

    def test_a_reader_takes_in_what_was_stored_since_and_no_more_than_that(self, journal: Path) -> None:
        driver = TrainingStudy("run", str(journal), heal=True)
        reader = TrainingStudy("run", str(journal), heal=False)
        assert reader.records() == ()
        first = train(driver, step=0)
        begun = driver.begin(1, keyed(seed=1), {})
        assert reader.find(KEY) is None
        reader.refresh()
        assert reader.find(KEY) == first and reader.records() == (first,) and len(reader.trials(1)) == 1
        before = journal.read_bytes()
        second = driver.finish(begun, keyed(seed=1), RECORD)
        reader.refresh()
        assert reader.records() == (first, second) and reader.trials(1)[0].state == TrialState.COMPLETE
        reader.refresh()
        assert journal.read_bytes().startswith(before) and reader.records() == driver.records()

    def test_a_reader_makes_no_tables_in_a_database(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match="no such table"):
            TrainingStudy("run", f"sqlite:///{tmp_path}/studies.db", heal=False)

    def test_reading_a_record_that_is_not_there_makes_none(self, journal: Path) -> None:
        assert TrainingStudy("run", str(journal), heal=False).find(KEY) is None


class TestColumns:
    """What Optuna's own tools show of a trial."""

    def test_the_value_has_a_name_and_score_time_and_gain_are_attributes(self, reopen: Open) -> None:
        study = reopen()
        study.finish(study.begin(1, KEY, {}), KEY, RECORD, {"gain_percent": 1.5})
        study.finish(study.begin(1, keyed(seed=1), {}), keyed(seed=1), FAILED)
        again = reopen()
        scored, failed = (trial.user_attrs for trial in again.trials(1))
        assert scored["miou_percent"] == RECORD.miou_percent and scored["gain_percent"] == 1.5
        assert scored["train_s"] == RECORD.seconds and "failure" not in scored
        assert failed["failure"] == FAILED.failure and "miou_percent" not in failed
        assert again._studies[1].metric_names == [METRIC]


class TestDamage:
    @pytest.mark.parametrize(
        "line",
        [b"no json", b'{"op_code":8,', b"", b"\xff\xfe", b"5", b"null", b"{}"],
        ids=["text", "half", "empty", "bytes", "5", "null", "{}"],
    )
    @pytest.mark.parametrize("heal", [True, False], ids=["driver", "reader"])
    def test_damage_in_the_middle_is_named_by_file_and_line(self, journal: Path, line: bytes, heal: bool) -> None:
        train(TrainingStudy("run", str(journal), heal=True))
        lines = journal.read_bytes().split(b"\n")
        assert len(lines) > 6
        lines[3] = line
        journal.write_bytes(b"\n".join(lines))
        damaged = journal.read_bytes()
        with pytest.raises(StudyError, match=r"study\.journal is corrupt in line 4: ") as refused:
            TrainingStudy("run", str(journal), heal=heal)
        assert len(str(refused.value).splitlines()) == 1
        assert journal.read_bytes() == damaged

    def test_a_file_where_the_folder_is_due_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StudyError, match=r"file/study\.journal"):
            TrainingStudy("run", str(tmp_path / "file" / "study.journal"), heal=True)

    def test_a_folder_where_the_journal_is_due_is_named(self, journal: Path) -> None:
        journal.mkdir()
        with pytest.raises(StudyError, match=r"study\.journal"):
            TrainingStudy("run", str(journal), heal=True)

    @pytest.mark.parametrize(
        ("url", "named"),
        [
            ("sqlite:////no/such/folder/studies.db", "/no/such/folder/studies.db"),
            ("nothing://user:secret@host/studies", "host"),
            ("postgresql://user:secret@host/studies", "host"),
            ("://", "://"),
        ],
    )
    def test_a_database_that_cannot_be_opened_is_one_line_that_names_it(self, url: str, named: str) -> None:
        with pytest.raises(StudyError) as refused:
            TrainingStudy("run", url, heal=True)
        message = str(refused.value)
        assert message.startswith("study database ")
        assert len(message.splitlines()) == 1
        assert "secret" not in message
        assert named in message
        assert isinstance(refused.value, UserError)


def test_two_runs_in_one_database_do_not_see_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    one, two = (TrainingStudy(name, url, heal=True) for name in ("camvid-a", "camvid"))
    mine = train(one)
    assert two.find(KEY) is None
    assert TrainingStudy("camvid", url, heal=True).find(KEY) is None
    handle = one.begin(1, keyed(seed=1), {})
    theirs = train(TrainingStudy("camvid", url, heal=True), record=FAILED)
    assert one.finish(handle, keyed(seed=1), RECORD).trial == "step-01/1"
    assert TrainingStudy("camvid-a", url, heal=True).find(KEY) == mine
    assert TrainingStudy("camvid", url, heal=True).find(KEY) == theirs
    assert [len(TrainingStudy(name, url, heal=False).trials(1)) for name in ("camvid-a", "camvid")] == [2, 1]
