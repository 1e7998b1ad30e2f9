"""What a report shows beside the run: pictures from its checkpoints, networks and searches of other commands, a noise floor."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lpsnet.data import synthetic
from lpsnet.errors import UserError
from search import prediction
from search.cli import run as cli
from search.observer import Observer
from search.pages.build import ReportPlan, build_report
from search.pages.content import Facts, Gallery, Plot, Report, Table
from search.pages.facts import RunFacts, read_facts
from search.pages.front import front_section
from search.pages.others import Others, read_others
from search.pages.pictures import Pick, PicturePlan
from search.run import Run
from search.runner import Progress
from tests.long_run import HERE, make_long_run
from tests.test_report import chain, make_run

CONDITIONS = {"backend": "ort", "device": "cpu", "shape": [1, 3, 32, 64], "precision": "fp32", "threads": 1}
ENVIRONMENT = dataclasses.asdict(HERE)
ROW = {"network": "light", "paper": "Light (2021)", "input": "32x64", "latency_scores_ms": 2.0, "miou_percent": 61.5, "data": "synthetic"}


ODD = (
    st.none() | st.booleans() | st.floats() | st.text("a1<|\n", max_size=5) | st.lists(st.integers(-(2**53), 2**53), max_size=2)
)  # larger ones are no file's
"""What JSON may hold in the place of a cell."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_long_run(tmp_path_factory.mktemp("made") / "run", 2)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of a run of two steps that a test may add to."""
    shutil.copytree(made, tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


@pytest.fixture
def facts(folder: Path) -> Iterator[RunFacts]:
    with Run.read(folder) as run:
        yield read_facts(run)


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[RunFacts]:
    """A run without the latency of its last network to the labels."""
    opened = make_run(tmp_path / "odd")
    yield RunFacts(opened, Progress(steps=chain()))
    opened.close()


def report_of(facts: RunFacts, **pictures: Any) -> Report:
    plan = PicturePlan(**{"frames": 2, "folder": facts.run.path / "report", **pictures})
    return build_report(facts, ReportPlan(out=plan.folder, pictures=plan), Observer())


def gallery_of(report: Report) -> Gallery | None:
    return next((item for section in report.sections for item in section.items if isinstance(item, Gallery)), None)


def pictures_text(report: Report) -> str:
    return " ".join(next(section for section in report.sections if section.key == "pictures").text)


class TestPictures:
    def test_each_frame_has_its_input_label_and_a_prediction_a_network(self, facts: RunFacts) -> None:
        found = gallery_of(report_of(facts, picks=(Pick(name="S", step=0), Pick(name="L", step=2))))
        assert found is not None and [name for name, _ in found.rows] == ["synthetic val frame 0", "synthetic val frame 63"]
        for _, pictures in found.rows:
            titles = [picture.title.partition(":")[0] for picture in pictures]
            assert titles == ["input", "label", "S", "L"] and pictures[2].title.endswith(" %")
        assert [name for name, _ in found.legend] == [*synthetic.CLASS_NAMES, "not labelled"]

    def test_they_are_of_the_frame_the_label_and_the_checkpoint(self, facts: RunFacts, folder: Path) -> None:
        report_of(facts, picks=(Pick(name="S", step=1),))
        image, label = synthetic.Synthetic("val", (32, 64)).decode(63)
        shown = np.asarray(Image.open(folder / "report" / "pictures" / "frame-1-input.jpg")).astype(int)
        assert abs(shown - image).mean() < 20  # JPEG
        palette = np.array(synthetic.COLOURS, np.uint8)
        drawn = np.asarray(Image.open(folder / "report" / "pictures" / "frame-1-label.png").convert("RGB"))
        np.testing.assert_array_equal(drawn, palette[label])
        weights = facts.run.weights_path(facts.steps[1].chosen.architecture)
        predicted = prediction.TorchModel(str(weights), "", "cpu", (32, 64)).labels(image)
        drawn = np.asarray(Image.open(folder / "report" / "pictures" / "frame-1-0.png").convert("RGB"))
        np.testing.assert_array_equal(drawn, palette[predicted])
        found = gallery_of(report_of(facts, picks=(Pick(name="S", step=1),)))
        assert found is not None and found.rows[1][1][2].title == f"S: {100 * (predicted == label).mean():.1f} %"

    def test_they_are_predicted_again_only_where_something_changed(self, facts: RunFacts, monkeypatch: pytest.MonkeyPatch) -> None:
        first, made = report_of(facts), []
        real = prediction.TorchModel
        monkeypatch.setattr(prediction, "TorchModel", lambda *given: made.append(given) or real(*given))  # type: ignore[func-returns-value]
        again = report_of(facts)
        assert not made and again.pictures == first.pictures and len(first.pictures) == 10
        assert len(report_of(facts, frames=1).pictures) == 5 and len(made) == 3
        damaged = facts.run.path / "report" / "pictures" / "pictures.json"
        damaged.write_text(damaged.read_text()[:-9])
        assert len(report_of(facts, frames=1).pictures) == 5 and len(made) == 6

    def test_kept_ones_need_no_data_set(self, tmp_path: Path, made: Path, make_camvid: Callable[..., Path]) -> None:
        camvid = make_camvid()
        folder = make_camvid_run(tmp_path / "run", made, camvid)
        with Run.read(folder) as run:
            first = report_of(read_facts(run))
            assert len(first.pictures) == 10
            shutil.rmtree(camvid)
            assert report_of(read_facts(run)).pictures == first.pictures
            without = report_of(facts := read_facts(run), frames=1)
        assert "the data set is not at hand" in pictures_text(without) and "--data says where it lies" in pictures_text(without)
        assert any(omission.where == "pictures" and "not at hand" in omission.why for omission in facts.omissions)

    def test_a_data_set_that_moved_is_named(self, tmp_path: Path, made: Path, make_camvid: Callable[..., Path]) -> None:
        camvid = make_camvid()
        folder = make_camvid_run(tmp_path / "run", made, tmp_path / "gone")
        with Run.read(folder) as run:
            assert "not at hand" in pictures_text(report_of(read_facts(run)))
            assert len(report_of(read_facts(run), data=f"camvid:{camvid}").pictures) == 10
            with pytest.raises(UserError, match="the run is of camvid"):
                report_of(read_facts(run), data="synthetic")
            with pytest.raises(UserError, match="the data set is not at hand"):
                report_of(read_facts(run), data="camvid:/nowhere")

    def test_weights_that_are_gone_or_changed_are_not_shown(self, facts: RunFacts) -> None:
        last, start = (facts.run.weights_path(facts.steps[number].chosen.architecture) for number in (2, 0))
        last.unlink()
        start.write_bytes(start.read_bytes() + b" ")
        report = report_of(facts, picks=(Pick(name="S", step=1), Pick(name="L", step=2)))
        assert len(report.pictures) == 6
        assert [omission.what for omission in facts.omissions if omission.where == "pictures"] == ["L (step 2)"]
        facts.run.weights_path(facts.steps[1].chosen.architecture).unlink()
        assert "weights of no network of the chain lie in" in pictures_text(report_of(facts))

    def test_other_classes_are_refused(self, tmp_path: Path) -> None:
        with Run.read(make_long_run(tmp_path / "run", 1, classes=("a", "b"))) as run:
            assert "synthetic has other classes than the run" in pictures_text(report_of(read_facts(run)))

    def test_a_step_that_is_not_there_is_a_mistake(self, facts: RunFacts) -> None:
        with pytest.raises(UserError, match=r"--pick M=3: the chain has the steps 0 to 2"):
            report_of(facts, picks=(Pick(name="M", step=3),))


def make_camvid_run(folder: Path, made: Path, camvid: Path) -> Path:
    """A made-up run that says it was of CamVid."""
    shutil.copytree(made, folder)
    told = json.loads((folder / "config.json").read_text())
    told["config"]["data"] = f"camvid:{camvid}"
    from lpsnet.data.camvid import CLASS_NAMES

    told["class_names"] = list(CLASS_NAMES)
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def compared(folder: Path, rows: list[dict[str, Any]], conditions: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    told = {"conditions": conditions or CONDITIONS, "environment": ENVIRONMENT, "rows": rows}
    (folder / "compare.json").write_text(json.dumps(told))
    return folder


class TestComparison:
    def test_networks_under_the_runs_conditions_are_drawn_and_on_its_front(self, facts: RunFacts, folder: Path) -> None:
        compared(folder / "compared", [ROW, {**ROW, "network": "slow", "latency_scores_ms": 50.0, "miou_percent": 90.0}])
        report = report_of(facts, frames=0)
        plot = next(item for s in report.sections for item in s.items if isinstance(item, Plot) and item.key == "front-plot")
        (series,) = [one for one in plot.series if one.name == "Light (2021)"]
        assert plot.traces[series.traces[0]]["x"] == [2.0, 50.0] and plot.traces[series.traces[0]]["y"] == [61.5, 90.0]
        assert plot.traces[0]["x"][-1] == 50.0 and 2.0 in plot.traces[0]["x"]
        rows = next(one for one in report.tables if one.key == "networks").rows
        assert [row[0] for row in rows] == ["step 0", "step 1", "step 2", "light", "slow"] and rows[3][
            1
        ] == f"compare: {folder / 'compared'}"

    @pytest.mark.parametrize(
        ("row", "conditions", "why"),
        [
            ({}, {**CONDITIONS, "threads": 4}, "threads 4, not 1"),
            ({}, {**CONDITIONS, "backend": "torch"}, "backend 'torch', not 'ort'"),
            ({"input": "64x64"}, None, "input 64x64, not 32x64"),
            ({"data": "camvid"}, None, "mIoU on camvid, not synthetic"),
            ({"miou_percent": None, "data": ""}, None, "no mIoU"),
            ({"latency_scores_ms": None}, None, "no latency to the scores"),
            ({"failure": "it crashed"}, None, "it crashed"),
        ],
    )
    def test_others_are_rows_that_say_why_they_are_not_drawn(
        self, facts: RunFacts, tmp_path: Path, row: dict[str, Any], conditions: dict[str, Any] | None, why: str
    ) -> None:
        given = compared(tmp_path / "elsewhere" / "compared", [{**ROW, **row}], conditions)
        (network,) = read_others(facts, [given]).networks
        assert network.apart == why

    def test_another_device_is_told(self, facts: RunFacts, tmp_path: Path) -> None:
        given = compared(tmp_path / "elsewhere" / "compared", [ROW])
        told = json.loads((given / "compare.json").read_text())
        told["environment"]["device"] = "Other CPU"
        (given / "compare.json").write_text(json.dumps(told))
        (network,) = read_others(facts, [given]).networks
        assert network.apart == "device: 'Other CPU', not 'Made-up CPU'"

    def test_what_lies_beside_the_run_and_does_not_compare_is_an_omission(self, facts: RunFacts, folder: Path) -> None:
        compared(folder.parent / "compared", [{**ROW, "data": "camvid"}])
        others = read_others(facts, [])
        assert not others.networks and "mIoU on camvid" in facts.omissions[0].why and facts.omissions[0].what.endswith("compared")

    def test_what_is_damaged_is_an_omission_beside_the_run_and_a_mistake_when_named(self, facts: RunFacts, folder: Path) -> None:
        (folder / "compared").mkdir()
        (folder / "compared" / "compare.json").write_text('{"rows": 1}')
        assert not read_others(facts, []).networks and "is no comparison" in facts.omissions[0].why
        with pytest.raises(UserError, match="is no comparison"):
            read_others(facts, [folder / "compared"])

    @given(cells=st.dictionaries(st.sampled_from(sorted(ROW)), ODD))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
    def test_whatever_stands_in_a_row_it_is_drawn_or_told(self, facts: RunFacts, tmp_path: Path, cells: dict[str, Any]) -> None:
        shutil.rmtree(tmp_path / "odd", ignore_errors=True)
        folder = compared(tmp_path / "odd", [ROW, {**ROW, **cells}])
        others = read_others(facts, [folder])
        front_section(facts, others)
        network = others.networks[1]
        assert network.apart or (network.latency_ms > 0 and network.miou_percent is not None)  # type: ignore[operator]

    def test_a_named_folder_without_results_is_a_mistake(self, facts: RunFacts, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"holds no results to show beside a run; looked for compare.json"):
            read_others(facts, [tmp_path])


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_bench(folder: Path, told: dict[str, Any]) -> Path:
    names = ["B1-1-1-1-1_C4-8-16-32-32_R4", "B1-1-1-1-1_C8-8-16-32-32_R4"]
    plain = {"latency_stable": True, "parameters": 100, "macs_giga": 0.5}
    write_csv(folder / "networks.csv", [{"architecture": name, "latency_ms": 1.5, **plain} for name in names])
    trainings = [(names[0], 0, 40.0), (names[0], 1, 44.0), (names[1], 0, "")]
    write_csv(
        folder / "trainings.csv",
        [{"architecture": a, "setting": "scratch-400", "seed": s, "parent": "", "miou_percent": m} for a, s, m in trainings],
    )
    (folder / "summary.json").write_text(json.dumps(told))
    return folder


class TestStudies:
    def test_networks_of_the_tabular_benchmark_have_their_mean_over_the_seeds(self, facts: RunFacts, folder: Path) -> None:
        write_bench(folder / "bench", {"config": facts.run.config.to_dict(), "environment": ENVIRONMENT})
        one, other = read_others(facts, []).networks
        assert (one.miou_percent, one.latency_ms, one.apart, one.scored) == (42.0, 1.5, "", "scratch-400, mean of 2")
        assert other.miou_percent is None and other.apart == "no mIoU"

    @pytest.mark.parametrize(("told", "why"), [({}, "its conditions are not told"), ({"config": {}}, "its environment is not told")])
    def test_one_that_does_not_tell_its_conditions_is_not_drawn(
        self, facts: RunFacts, tmp_path: Path, told: dict[str, Any], why: str
    ) -> None:
        given = write_bench(tmp_path / "elsewhere" / "bench", told)
        assert all(why in network.apart for network in read_others(facts, [given]).networks)

    def test_a_live_rival_is_drawn_by_its_name(self, facts: RunFacts, folder: Path) -> None:
        row = {"sampler": "tpe", "seed": 0, "architecture": "B1-1-1-1-1_C4-8-16-32-32_R4", "latency_ms": 1.0, "miou_percent": 50.0}
        write_csv(folder / "rivals" / "live_tpe_0.csv", [row])
        told = {"config": facts.run.config.to_dict(), "environment": ENVIRONMENT}
        (folder / "rivals" / "live_tpe_0.json").write_text(json.dumps(told))
        for more in ("answers", "against", "fronts"):  # of the same search, with other columns
            write_csv(folder / "rivals" / f"live_tpe_0_{more}.csv", [{"sampler": "tpe", "spent_s": 1.0}])
        (network,) = read_others(facts, []).networks
        assert (network.group, network.latency_ms, network.miou_percent, network.apart) == ("tpe (rival)", 1.0, 50.0, "")

    def test_replayed_rivals_are_a_table_and_their_way_a_plot(self, facts: RunFacts, folder: Path) -> None:
        greedy = {"spent_s": 20.0, "sampler": "greedy", "seeds": 2, "hypervolume": 3.0, "low": 0.0, "high": 3.5}
        earlier = {**greedy, "spent_s": 10.0, "hypervolume": 2.0}
        write_csv(folder / "rivals" / "summary.csv", [greedy, {**greedy, "sampler": "random", "low": "", "high": ""}, earlier])
        curves = [("greedy", 10.0, 1.0), ("greedy", 10.0, 3.0), ("greedy", 20.0, 4.0), ("random", 10.0, 1.0)]
        write_csv(folder / "rivals" / "curves.csv", [{"sampler": n, "spent_s": t, "hypervolume": v} for n, t, v in curves])
        report = report_of(facts, frames=0)
        found = next(one for one in report.tables if one.key == "searches")
        assert "its conditions are not told" in found.note
        assert [row[0] for row in found.rows] == ["greedy", "random"] and found.rows[0][1:] == (2, 3.0, 0.0, 3.5)
        plot = next(item for s in report.sections for item in s.items if isinstance(item, Plot) and item.key == "searches-plot")
        assert plot.traces[0]["x"] == [10.0, 20.0] and plot.traces[0]["y"] == [2.0, 4.0]

    def test_a_table_without_the_columns_is_a_mistake(self, facts: RunFacts, tmp_path: Path) -> None:
        write_csv(tmp_path / "rivals" / "live_x_0.csv", [{"sampler": "x"}])
        with pytest.raises(UserError, match="lacks the columns architecture, latency_ms, miou_percent"):
            read_others(facts, [tmp_path / "rivals"])


class TestNoise:
    def told(self, report: Report) -> dict[str, str]:
        facts = next(item for section in report.sections for item in section.items if isinstance(item, Facts) and item.key == "noise")
        return dict(facts.rows)

    def test_a_noise_floor_beside_the_run_is_told(self, facts: RunFacts, folder: Path) -> None:
        assert self.told(report_of(facts, frames=0))["noise floor"].startswith("not measured")
        told = {"architecture": "N0", "size": [32, 64], "boundary": "scores", "backend": "ort", "device": "cpu", "floor": 0.021}
        (folder / "noise_floor.json").write_text(json.dumps({**told, "environment": ENVIRONMENT}))
        text = self.told(report_of(facts, frames=0))["noise floor"]
        assert text.startswith("2.1%, measured with N0 at 32x64 to the scores, ort on Made-up CPU")

    def test_a_latency_of_the_chain_that_failed_is_an_omission(self, odd: RunFacts) -> None:
        report_of(odd, frames=0)
        assert [(omission.where, omission.what, omission.why) for omission in odd.omissions] == [
            ("step 2", "latency to the labels", "not measured")
        ]

    def test_something_else_is_an_omission(self, facts: RunFacts, folder: Path) -> None:
        (folder / "noise_floor.json").write_text("[]")
        assert read_others(facts, []) == Others() and "is no noise floor" in facts.omissions[0].why

    def test_halves_of_measurements_and_ties_are_counted(self, facts: RunFacts) -> None:
        told = self.told(report_of(facts, frames=0))
        kept = [m for m in facts.run.store.all() if m.conditions.boundary == "scores" and "second_ms" not in m.found]
        assert told["latencies of the search"].startswith(f"{len(kept)} networks")
        gaps = sorted(abs(np.median(m.samples_ms[30:]) / np.median(m.samples_ms[:30]) - 1) for m in kept)
        assert told["first against second half of a measurement"].startswith(f"{np.median(gaps):.1%} in the middle")
        ties = sum(len(step.ties) for step in facts.steps)
        assert told["gap below which networks are run in turns"].startswith(f"1.0%: {ties} pairs")


class TestVerb:
    def test_it_writes_the_report_and_says_where(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli(["report", str(folder), "--frames", "1", "--pick", "S=1"]) == 0
        assert f"{folder}/report/report.html: " in capsys.readouterr().out
        assert cli(["report", str(folder), "--out", str(folder / "other"), "--frames", "1", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["page"] == str(folder / "other" / "report.html") and told["pictures"] == 5 and told["bytes"] < 8e6
        assert {path.name for path in (folder / "other").iterdir()} == {"report.html", "report.md", "tables", "pictures"}

    def test_it_shows_what_the_run_remembers_as_picked(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli(["family", str(folder), "--pick", "L=2", "S=0"]) == 0
        assert cli(["report", str(folder), "--frames", "1"]) == 0
        page = (folder / "report" / "report.html").read_text()
        assert page.index("Prediction of S for frame") < page.index("Prediction of L for frame")
        assert "Prediction of step" not in page
        (folder / "picks.json").unlink()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--pick", "7"], "--pick takes NAME=STEP, such as S=7, got '7'"),
            (["--pick", "S=x"], "--pick takes NAME=STEP, such as S=7, got 'S=x'"),
            (["--pick", "S=99"], "the chain has the steps 0 to 2"),
            (["--with", "/dev/null"], "/dev/null holds no results to show beside a run"),
        ],
    )
    def test_a_mistake_is_one_line(self, folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
        assert cli(["report", str(folder), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and told in line
        assert not (folder / "report").exists()

    def test_a_folder_without_a_run_is_a_mistake(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli(["report", str(tmp_path / "none")]) == 2
        assert "holds no run" in capsys.readouterr().err


def test_tables_of_an_earlier_report_go_with_what_they_showed(facts: RunFacts, folder: Path) -> None:
    compared(folder / "compared", [ROW])
    assert cli(["report", str(folder), "--frames", "0"]) == 0
    assert (folder / "report" / "tables" / "networks.csv").exists()
    shutil.rmtree(folder / "compared")
    assert cli(["report", str(folder), "--frames", "0"]) == 0
    assert not (folder / "report" / "tables" / "networks.csv").exists() and (folder / "report" / "tables" / "family.csv").exists()


def test_tables_that_are_empty_are_left_out(facts: RunFacts) -> None:
    keys = [item.key for section in report_of(facts, frames=0).sections for item in section.items if isinstance(item, Table)]
    assert "networks" not in keys and "searches" not in keys and len(keys) == len(set(keys))
