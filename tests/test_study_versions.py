"""Records of trainings that earlier versions wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lpsnet.recipe import TrainRecipe
from search.study import METRIC, ORPHANED, TrainingKey, TrainingRecord, TrainingStudy, open_storage
from tests.test_study import train

DATA = Path(__file__).parent / "data"


def _studies(journal: Path) -> list[optuna.Study]:
    storage = open_storage(str(journal))
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


class TestFirstVersion:
    """`study_v1.journal` was written by the first version and is never changed: whoever has such a run can go on with it."""

    START, DEEP, WIDE, BIG = (
        "B1-1-1-1-1_C4-8-16-32-32_R4",
        "B1-1-1-2-2_C4-8-16-32-32_R4",
        "B1-1-1-1-1_C8-16-32-64-64_R4",
        "B1-1-1-1-1_C4-8-16-32-32_R5",
    )

    @pytest.fixture
    def first_version(self, tmp_path: Path) -> Path:
        return Path(shutil.copyfile(DATA / "study_v1.journal", tmp_path / "study.journal"))

    def key(self, architecture: str, parent: str = "step-00/0") -> TrainingKey:
        recipe = TrainRecipe(iterations=10, warmup_iterations=1, scale_min=0.75, scale_max=1.5, jitter=0.0)
        return TrainingKey(architecture=architecture, recipe=recipe, parent_trial=parent, seed=3)

    @pytest.mark.parametrize("heal", [True, False], ids=["driver", "reader"])
    def test_its_trainings_are_found(self, first_version: Path, heal: bool) -> None:
        study = TrainingStudy("camvid-run", str(first_version), heal=heal)
        assert study.find(self.key(self.START, "")) == TrainingRecord(
            trial="step-00/0",
            miou_percent=21.5,
            class_iou_percent=(40.25, None, 2.75),
            curve=((5, 2.5), (10, 1.125)),
            seconds=12.5,
            weights=f"checkpoints/{self.START}.safetensors",
            weights_sha256="ab" * 32,
        )
        assert study.find(self.key(self.DEEP)) == TrainingRecord(trial="step-01/0", failure="the loss is nan at iteration 7")
        assert study.find(self.key(self.WIDE)) is None
        assert study.find(self.key(self.BIG)) is None
        states = [trial.state for trial in study.trials(1)]
        assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.FAIL if heal else TrialState.RUNNING]
        assert [trial.user_attrs.get("orphaned") for trial in study.trials(1)] == [None, ORPHANED, ORPHANED if heal else None]

    def test_it_can_be_gone_on_with(self, first_version: Path) -> None:
        study = TrainingStudy("camvid-run", str(first_version), heal=True)
        stored = train(study, self.key(self.WIDE))
        assert stored.trial == "step-01/3"
        assert TrainingStudy("camvid-run", str(first_version), heal=True).find(self.key(self.WIDE)) == stored

    def test_it_gets_its_name_from_the_next_driver(self, first_version: Path) -> None:
        names = {study.study_name.rpartition("/")[0] for study in _studies(first_version)}
        for name in names:
            TrainingStudy(name, str(first_version), heal=False)
        assert [study.metric_names for study in _studies(first_version)] == [None] * len(_studies(first_version))
        for name in names:
            TrainingStudy(name, str(first_version), heal=True)
        assert [study.metric_names for study in _studies(first_version)] == [[METRIC]] * len(_studies(first_version))
