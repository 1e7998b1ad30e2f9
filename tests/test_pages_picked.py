"""What a report tells of a run's picks, and of their full trainings."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lpsnet import LPSNet, save
from lpsnet.data.synthetic import CLASS_NAMES
from search.cli.report_verbs import remembered
from search.observer import Observer
from search.pages.build import ReportPlan, build_report
from search.pages.content import Gallery, Report, Table
from search.pages.facts import RunFacts, read_facts
from search.pages.pictures import FOLDER, INDEX, PicturePlan
from search.picks import Picked, Picks, write_picks
from search.run import Run
from tests.long_run import make_long_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_long_run(tmp_path_factory.mktemp("made") / "run", 2)


@pytest.fixture
def facts(made: Path, tmp_path: Path) -> Iterator[RunFacts]:
    shutil.copytree(made, tmp_path / "run")
    with Run.read(tmp_path / "run") as run:
        yield read_facts(run)


def pick(facts: RunFacts, step: int, architecture: str = "") -> Picked:
    member = facts.steps[step].chosen if step < len(facts.steps) else facts.steps[0].chosen
    told: dict[str, Any] = {"boundary": "scores", "latency_ms": member.latency_ms, "miou_percent": member.miou_percent}
    return Picked(step=step, architecture=architecture or str(member.architecture), why=f"the network of step {step}", **told)


def train_fully(facts: RunFacts, step: int, data: str = "synthetic", **scores: Any) -> Path:
    """A finished full training, as `train --from` leaves it."""
    architecture = str(facts.steps[step].chosen.architecture)
    folder = facts.run.path / "trainings" / architecture
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    save(folder / f"{architecture}.safetensors", LPSNet(architecture, 11).eval().deploy(), class_names=CLASS_NAMES, input_size=(32, 64))
    told = {"miou_percent": 71.5, "class_iou_percent": [None, *range(60, 70)], "trained_on_val": False, **scores}
    (folder / "scores.json").write_text(json.dumps(told))
    (folder / "config.json").write_text(json.dumps({"data": data, "recipe": {"iterations": 2000}}))
    return folder


def report_of(facts: RunFacts, frames: int = 0) -> Report:
    pictures = PicturePlan(picks=tuple(remembered(facts.run.path)), frames=frames, data="", folder=facts.run.path / "report")
    return build_report(facts, ReportPlan(out=pictures.folder, pictures=pictures), Observer())


def table(report: Report, key: str) -> Table | None:
    return next((one for one in report.tables if one.key == key), None)


def test_a_run_without_picks_has_no_section_of_them(facts: RunFacts) -> None:
    report = report_of(facts)
    assert table(report, "picks") is None and "picks" not in [section.key for section in report.sections]


def test_picks_stand_beside_what_their_full_trainings_reach(facts: RunFacts) -> None:
    write_picks(facts.run.path, Picks(picked={"L": pick(facts, 2), "S": pick(facts, 0)}))
    train_fully(facts, 2)
    report = report_of(facts)
    found, small, large = table(report, "picks"), facts.steps[0].chosen, facts.steps[2].chosen
    assert found is not None and [row[0] for row in found.rows] == ["S", "L"]
    assert found.rows[0][3:] == (str(small.architecture), small.latency_ms, small.miou_percent, None, None, "not trained fully")
    assert found.rows[1][3:] == (str(large.architecture), large.latency_ms, large.miou_percent, 71.5, 2000, "")
    classes = table(report, "picked-classes")
    assert classes is not None and [column.name for column in classes.columns] == ["class", "L"]
    assert list(classes.rows)[:2] == [(CLASS_NAMES[0], None), (CLASS_NAMES[1], 60.0)]


def test_pictures_are_of_the_full_training_where_there_is_one(facts: RunFacts) -> None:
    write_picks(facts.run.path, Picks(picked={"L": pick(facts, 2), "S": pick(facts, 0)}))
    before = report_of(facts, frames=1)
    folder = train_fully(facts, 2)
    after = report_of(facts, frames=1)
    galleries = [next(i for s in one.sections for i in s.items if isinstance(i, Gallery)) for one in (before, after)]
    titles = [[picture.title.partition(":")[0] for picture in gallery.rows[0][1]] for gallery in galleries]
    assert titles == [["input", "label", "S", "L"], ["input", "label", "S", "L, trained fully"]]
    told = json.loads((facts.run.path / "report" / FOLDER / INDEX).read_text())
    weights = [facts.run.weights_path(facts.steps[0].chosen.architecture), next(folder.glob("*.safetensors"))]
    assert told["key"]["weights"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights]


def test_what_a_score_of_a_full_training_hides_is_told(facts: RunFacts) -> None:
    write_picks(facts.run.path, Picks(picked={"S": pick(facts, 0), "L": pick(facts, 2)}))
    train_fully(facts, 0, trained_on_val=True)
    train_fully(facts, 2, data="camvid:data/camvid")
    report = report_of(facts)
    found, classes = table(report, "picks"), table(report, "picked-classes")
    assert found is not None and [row[-1] for row in found.rows] == ["trained on the validation split, too", "on camvid"]
    assert classes is not None and [column.name for column in classes.columns] == ["class", "S"]


def test_stale_picks_and_damaged_trainings_are_omissions(facts: RunFacts) -> None:
    stale = {"old": pick(facts, 1, str(facts.steps[0].chosen.architecture)), "far": pick(facts, 9), "S": pick(facts, 0)}
    write_picks(facts.run.path, Picks(picked=stale))
    train_fully(facts, 0, miou_percent="nan")
    report = report_of(facts, frames=1)
    found, told = table(report, "picks"), {(one.where, one.what): one.why for one in facts.omissions}
    assert found is not None and [row[0] for row in found.rows] == ["S"] and found.rows[0][6] is None
    for name in ("old", "far"):
        assert "which is now" in told["picks", name] and "pick it again" in told["pictures", name]
    assert "holds no training" in told["picks", "S"]
