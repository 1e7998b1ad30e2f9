"""`lps-search ablate`: widths fitted to a latency, paired seeds, rows that accrue, and every failure a row."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency import Measurement, Store
from latency.backends import usable_backend
from latency.environment import environment
from latency.measurement import Environment
from latency.protocols import MeasurementFailed
from lpsnet.architecture import Architecture
from lpsnet.complexity import network_cost
from lpsnet.errors import TrainingFailed, UserError
from lpsnet.recipe import TrainRecipe
from search import ablation_run
from search.ablation import TABLES, AblationPlan, Placed, network_of, rows_of_plan
from search.ablation_report import reading, rows_of, table
from search.ablation_run import Ablation
from search.cli import run
from search.cli.options import make_conditions
from search.executor import subject
from search.published import TABLE_2, TABLE_3
from search.widths import NOISE, nearest_width
from tests.kill_driver import killed
from tests.processes import Process
from tests.tiny import few_frames

QUICK = ["--input", "48x64", "--iterations", "1", "--set", "batch_size=2", "--backend", "torch", "--seconds", "0"]
QUICK += ["--limit", "0", "--threads", "1", "--training-device", "cpu"]
CONDITIONS = make_conditions((48, 64), "scores", "torch", "cpu", "fp32", 1, 0.0)
CLASSES, WIDEST = 11, 16
PER_WIDTH = {"conv3x3": 1.0, "ghost": 0.4, "residual": 2.5, "none": 1.0, "direct-a": 1.5, "bilateral-b": 1.1}
"""Made latencies are so many milliseconds for each unit of c."""

Ablate = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ablate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ablate:
    """Runs the verb with made latencies into a folder and returns its rows."""
    fill_store(tmp_path / "machine-store.sqlite")
    few_frames()

    def ablated(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        quick = [] if "--report-only" in arguments else QUICK
        assert run(["ablate", *arguments, *quick, "--out", str(tmp_path / "out"), "--json"]) == code
        return list(json.loads(capsys.readouterr().out))

    return ablated


@pytest.fixture
def formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are answered by a formula, where a test is of what becomes of them."""

    def trained(training: Any, *rest: Any) -> Any:
        return SimpleNamespace(scores=SimpleNamespace(miou_percent=10.0 + len(training.architecture) * (1 + training.seed)))

    monkeypatch.setattr(ablation_run, "run_training", trained)


def fill_store(path: Path) -> None:
    store, here = Store(path), environment(usable_backend("torch", "cpu"), "cpu")
    store._connection.execute("BEGIN")
    for name, of in (("blocks", ("conv3x3", "ghost", "residual")), ("interactions", ("none", "direct-a", "bilateral-b"))):
        for kind in of:
            for width in range(1, WIDEST + 1):
                made = {"samples_ms": (PER_WIDTH[kind] * width,) * 5, "clock": "perf_counter", "warmup_runs": 3, "load_s": 0.1}
                name_in_store = subject(network_of(name, kind, width), CLASSES)
                same: dict[str, Any] = {"conditions": CONDITIONS, "environment": here, "created": "2026-01-01T00:00:00+00:00"}
                store.add(Measurement(subject=name_in_store, **same, **made))
    store._connection.execute("COMMIT")
    store.close()


def plan(name: str = "blocks", **changes: Any) -> AblationPlan:
    values: dict[str, Any] = {"table": name, "conditions": CONDITIONS, "classes": CLASSES, "data": "synthetic", "seeds": 3}
    values |= {"recipe": TrainRecipe(iterations=1), "width": TABLES[name].width, "kinds": TABLES[name].kinds}
    return AblationPlan(**{**values, **changes})


def made(network: Architecture) -> dict[str, Any]:
    kind = network.block if network.block != "conv3x3" else ("conv3x3" if network.interaction == "none" else network.interaction)
    return {"latency_ms": network.widths[0] * PER_WIDTH.get(kind, 1.0), "stable": True}


def record(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


class TestFittingAWidth:
    @given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(0.001, 200), st.data())
    def test_it_comes_as_near_as_any_other_up_to_the_noise_where_latency_grows(
        self, gains: list[float], target: float, data: st.DataObject
    ) -> None:
        latencies = [sum(gains[: width + 1]) for width in range(len(gains))]
        asked: list[int] = []

        def latency_ms(width: int) -> float:
            asked.append(width)
            return latencies[width - 1]

        first = data.draw(st.integers(1, len(gains)))
        width = nearest_width(latency_ms, target, first, len(gains))
        nearest = min(latencies, key=lambda one: (abs(one - target), -one))
        assert nearest <= latencies[width - 1] <= (1 + NOISE) * nearest
        assert len(asked) == len(set(asked)) <= 2 * len(gains).bit_length() + 2

    def test_of_two_as_near_the_wider_is_taken_and_none_is_asked_for_far_beyond(self) -> None:
        asked: list[int] = []
        assert nearest_width(lambda width: asked.append(width) or float(width), 5.5, 1) == 6  # type: ignore[func-returns-value]
        assert max(asked) <= 2 * 6
        assert nearest_width(lambda width: 9.0 + width, 1.0, 14) == 1
        assert nearest_width(float, 1e6, 3, 40) == 40

    def test_a_width_is_not_taken_where_a_wider_one_is_as_fast(self) -> None:
        steps = {width: float(width + (0 if width % 8 == 0 else 10)) for width in range(1, 100)}  # multiples of 8 are fast
        assert nearest_width(steps.__getitem__, 31.0, 14) == 32  # 21 takes 31 ms, too
        assert nearest_width(steps.__getitem__, 36.0, 14) == 40  # 26 takes 36
        alike = {14: 30.0, 7: 18.7, 3: 10.0, 5: 18.2, 4: 9.7, 8: 18.3}  # 8 is as fast as 5, up to the noise
        assert nearest_width(alike.__getitem__, 17.0, 14) == 8
        falling = {14: 9.0, 7: 5.0, 10: 12.0, 8: 6.0, 9: 8.4, 16: 11.0}
        assert nearest_width(falling.__getitem__, 8.8, 14) == 14

    def test_what_fails_above_or_is_too_slow_at_the_narrowest_is_left_alone(self) -> None:
        def latency_ms(width: int) -> float:
            if width % 8 == 0:
                raise MeasurementFailed("too wide")
            return float(width)

        assert nearest_width(latency_ms, 5.4, 5) == 5
        asked: list[int] = []
        assert nearest_width(lambda width: asked.append(width) or 9.0 + width, 1.0, 3) == 1  # type: ignore[func-returns-value]
        assert max(asked) == 3

    def test_a_spike_does_not_hide_the_wider_ones_behind_it(self) -> None:
        steps = {width: float(width) for width in range(1, 100)} | {14: 90.0}
        asked: list[int] = []
        assert nearest_width(lambda width: asked.append(width) or steps[width], 41.0, 14) == 40  # type: ignore[func-returns-value]
        assert len(asked) == len(set(asked))


class TestThePlan:
    def test_the_networks_are_those_of_the_tables(self) -> None:
        conv = network_cost(network_of("blocks", "conv3x3", 14), 19, (1024, 2048))
        assert round((conv.macs + conv.bias_adds) / 1e9, 1) == TABLE_2["conv3x3"].gflops == 18.5
        assert str(network_of("interactions", "direct-a", 16)) == "B1-2-4-7-7_C16-32-64-128-128_R8-2_direct-a"
        assert set(TABLE_2) == set(TABLES["blocks"].kinds) and set(TABLE_3) == set(TABLES["interactions"].kinds)

    def test_blocks_are_fitted_to_the_baseline_or_to_a_target(self) -> None:
        rows = {row.kind: row for row in rows_of_plan(plan(), made)}
        assert {kind: rows[kind].width for kind in ("conv3x3", "ghost", "residual")} == {"conv3x3": 14, "ghost": 35, "residual": 6}
        assert all(row.fitted and row.target_ms == 14 for row in rows.values()) and rows["residual"].latency_ms == 15
        told = {row.kind: row.width for row in rows_of_plan(plan(target_ms=5.2), made)}
        assert (told["conv3x3"], told["ghost"], told["residual"]) == (5, 13, 2)

    def test_interactions_share_a_width_and_are_fitted_besides_on_request(self) -> None:
        assert {row.width for row in rows_of_plan(plan("interactions"), made)} == {16}
        rows = [row for row in rows_of_plan(plan("interactions", fit=True, kinds=("direct-a",)), made) if row.kind == "direct-a"]
        assert [(row.fitted, row.width, row.latency_ms) for row in rows] == [(False, 16, 24), (True, 11, 16.5)]

    def test_a_baseline_that_fails_leaves_no_target(self) -> None:
        rows = rows_of_plan(plan(), lambda network: {"failure": "no memory"})
        assert all(row.network is None and row.failure == "no target: conv3x3 at c = 14: no memory" for row in rows)

    def test_it_is_read_back(self) -> None:
        one = plan("interactions", fit=True, target_ms=3.0, kinds=("direct-a",))
        assert one.kinds == ("none", "direct-a")
        assert AblationPlan.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def known(scores: dict[str, list[float | None]], **changes: Any) -> Ablation:
    """An ablation of blocks as if it had been trained; None is a training that failed."""
    one = plan(kinds=tuple(scores), seeds=max(map(len, scores.values())), **changes)
    placed = tuple(rows_of_plan(one, made))
    networks = {row.kind: str(row.network) for row in placed}
    facts: dict[tuple[str, int], dict[str, Any]] = {
        (networks[kind], seed): {"failure": "lost"} if score is None else {"miou_percent": score, "seconds": 1.0}
        for kind, values in scores.items()
        for seed, score in enumerate(values)
    }
    return Ablation(plan=one, environment=Environment(device="a CPU", cores=2, driver="", versions={}), placed=placed, trainings=facts)


class TestTheReport:
    def test_gains_are_paired_by_seed_with_student_s_interval(self) -> None:
        """Gains 1, 2, 3 of ghost: mean 2, standard deviation 1, and 4.303 is the 97.5 % point with 2 degrees of freedom."""
        found = known({"conv3x3": [50, 60, 40], "ghost": [51, 62, 43], "residual": [30, 40.5, 20.2]})
        base, residual, ghost = rows_of(found)
        margin = 4.3027 / 3**0.5
        assert (ghost["gain_percent"], ghost["gain_low"], ghost["gain_high"]) == pytest.approx((2, 2 - margin, 2 + margin), rel=1e-4)
        assert ghost["pairs"] == 3 and ghost["verdict"] == ""  # from -0.48: 0 is not excluded
        assert residual["verdict"] == "worse" and residual["gain_high"] < 0
        assert base["gain_percent"] is None and base["verdict"] == "" and base["seeds"] == 3 and base["miou_percent"] == 50
        assert (base["rank"], residual["rank"], ghost["rank"]) == (2, 3, 1)
        assert (base["paper_rank"], residual["paper_rank"], ghost["paper_rank"]) == (1, 2, 3) and ghost["paper_gain"] == -7.9
        better = known({"conv3x3": [50, 60, 40], "ghost": [52, 62.1, 42.2]})
        assert rows_of(better)[1]["verdict"] == "better"
        assert "Each of 2 comparisons" in reading(found, rows_of(found))[0]

    def test_one_seed_is_told_as_one_seed(self) -> None:
        found = known({"conv3x3": [50.0], "ghost": [70.0]})
        rows = rows_of(found)
        assert rows[1]["gain_percent"] == 20 and rows[1]["gain_low"] is None and rows[1]["verdict"] == "" and rows[1]["miou_low"] is None
        columns, cells = table(found, rows)
        told = dict(zip(columns, cells[1], strict=True))
        assert (told["seeds"], told["verdict"], told["gain"], told["mIoU %"]) == ("one", "one seed", "+20.00", "70.00")
        assert reading(found, rows)[0].startswith("One seed: a difference may be that seed's luck")

    def test_a_failed_seed_is_told_and_leaves_its_pair(self) -> None:
        rows = rows_of(known({"conv3x3": [50, 60, 40], "ghost": [51, None, 42]}))
        assert rows[1]["pairs"] == 2 and rows[1]["seeds"] == 2 and rows[1]["failure"] == "seed 1: lost"
        assert rows[0]["seeds"] == 3 and rows[0]["rank"] == 2  # over the two seeds both have

    def test_what_it_costs_and_the_gap_that_remains(self) -> None:
        found = known({"conv3x3": [50.0], "residual": [50.0]}, target_ms=14.5)
        base, residual = rows_of(found)
        assert (base["width"], residual["width"]) == (15, 6) and base["gap_percent"] == pytest.approx(100 * 0.5 / 14.5)
        cost = network_cost(network_of("blocks", "residual", 6), CLASSES, (48, 64))
        assert residual["parameters"] == cost.deployed and residual["macs_and_biases_giga"] == (cost.macs + cost.bias_adds) / 1e9
        assert residual["macs_giga_per_ms"] == pytest.approx(cost.macs / 1e9 / 15)
        assert "fitted to 14.500 ms; the largest gap that remains is 3.4 %" in reading(found, rows_of(found))[1]

    def test_a_kind_that_could_not_be_measured_is_a_row(self) -> None:
        found = known({"conv3x3": [50.0]})
        lost = Placed(kind="ghost", fitted=True, failure="at c = 14: no such operator")
        rows = rows_of(Ablation(plan=plan(seeds=1), environment=found.environment, placed=(*found.placed, lost), trainings=found.trainings))
        assert rows[1]["failure"] == "latency: at c = 14: no such operator" and rows[1]["parameters"] is None and rows[1]["rank"] is None
        assert table(found, rows)[1][1][-1] == rows[1]["failure"]


def test_the_verb_trains_pairs_and_writes_everything(
    ablate: Ablate, formula: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ablate("blocks", "--only", "residual", "--seeds", "2", "--width", "2")
    assert [(row["kind"], row["width"], row["latency_ms"], row["seeds"]) for row in rows] == [("conv3x3", 2, 2, 2), ("residual", 1, 2.5, 2)]
    assert rows[1]["gain_low"] <= rows[1]["gain_percent"] <= rows[1]["gain_high"] and rows[1]["gap_percent"] == 25
    out = tmp_path / "out"
    assert {path.name for path in out.glob("*.*")} >= {"ablation.csv", "ablation.md", "ablation.json", "ablation.png", "trainings.csv"}
    assert [row["kind"] for row in csv.DictReader((out / "ablation.csv").read_text().splitlines())] == ["conv3x3", "residual"]
    told = json.loads((out / "ablation.json").read_text())
    assert told["rows"] == rows and told["commit"] and told["plan"]["recipe"]["crop_height"] == 48 and len(told["trainings"]) == 4
    text = (out / "ablation.md").read_text()
    assert "Student's 95 % interval" in text and "| residual | 1 |" in text and (out / "ablation.png").stat().st_size > 10_000
    before = record(out)
    assert ablate("blocks", "--only", "residual", "--seeds", "2", "--width", "2") == rows and record(out) == before
    more = ablate("blocks", "--only", "residual", "--seeds", "3", "--width", "2")
    assert more[0]["seeds"] == 3 and record(out)[: len(before)] == before and len(record(out)) == len(before) + 2
    assert ablate("blocks", "--report-only") == more
    fewer = ablate("blocks", "--only", "ghost", "--seeds", "1", "--width", "2")  # what is there stays in the report
    assert [(row["kind"], row["seeds"]) for row in fewer] == [("conv3x3", 3), ("residual", 3), ("ghost", 1)]
    assert fewer[:2] == [{**row, "rank": there["rank"]} for row, there in zip(more, fewer, strict=False)]
    assert run(["ablate", "blocks", "--report-only", "--out", str(out)]) == 0
    assert "its rank" in capsys.readouterr().out


def test_interactions_at_one_width_and_fitted(ablate: Ablate, formula: None, tmp_path: Path) -> None:
    rows = ablate("interactions", "--only", "direct-a", "--seeds", "1", "--width", "3", "--fit")
    assert [(row["kind"], row["fitted"], row["width"]) for row in rows] == [
        ("none", False, 3), ("direct-a", False, 3), ("none", True, 3), ("direct-a", True, 2),
    ]  # fmt: skip
    assert len([line for line in record(tmp_path / "out") if line["key"]["what"] == "training"]) == 3  # none's serve both rows
    assert rows[3]["gain_percent"] is not None and rows[3]["target_ms"] == 3


def test_a_killed_ablation_goes_on_where_it_stopped(ablate: Ablate, tmp_path: Path) -> None:
    arguments = ["blocks", "--only", "residual", "--seeds", "1", "--width", "2"]
    out = tmp_path / "out"
    place = ("record:after", 4)  # after three latencies (the baseline's, residual's at c = 2 and 1) and a training
    process = Process(killed, *place, ["ablate", *arguments, *QUICK, "--out", str(out)], output=tmp_path / "printed")
    assert process.ends() == -signal.SIGKILL, process.printed()
    before = record(out)
    assert len(before) == 4 and not (out / "ablation.png").exists()
    with (out / "record.jsonl").open("a") as file:
        file.write('{"key": {"what": "tra')  # as a kill in the midst of a line leaves it
    assert [row["seeds"] for row in ablate("blocks", "--report-only")] == [1, 0]
    rows = ablate(*arguments, "--parallel", "2")
    assert [row["seeds"] for row in rows] == [1, 1] and record(out)[:4] == before
    assert len(record(out)) == 5
    keys = [json.dumps(line["key"]) for line in record(out)]
    assert len(keys) == len(set(keys))


def test_what_fails_is_a_row_and_only_what_may_pass_is_tried_again(
    ablate: Ablate, formula: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, tried = ablation_run.run_training, list[str]()

    def failing(training: Any, *rest: Any) -> Any:
        tried.append(training.architecture)
        if "residual" in training.architecture:
            raise TrainingFailed("the loss is nan")
        if "ghost" in training.architecture:
            raise UserError("a training is running there")
        return whole(training, *rest)

    monkeypatch.setattr(ablation_run, "run_training", failing)
    arguments = ["blocks", "--only", "residual,ghost", "--seeds", "1", "--width", "2"]
    base, residual, ghost = ablate(*arguments)
    assert base["seeds"] == 1 and residual["seeds"] == 0 and residual["latency_ms"] == 2.5 and ghost["rank"] is None
    assert residual["failure"] == "seed 0: the loss is nan" and ghost["failure"] == "seed 0: a training is running there"
    assert "the loss is nan" in (tmp_path / "out" / "ablation.md").read_text()
    tried.clear()
    monkeypatch.setattr(ablation_run, "run_training", lambda training, *rest: tried.append(training.architecture) or whole(training, *rest))
    assert ablate(*arguments)[2]["seeds"] == 1 and [name.split("_")[3] for name in tried] == ["ghost"]


def test_a_kind_that_cannot_be_measured_is_a_row_with_the_reason(ablate: Ablate, formula: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ablation_run.build

    def refusing(network: Architecture, *rest: Any, **how: Any) -> Any:
        if network.block != "conv3x3":
            raise RuntimeError("no kernel for it")
        return whole(network, *rest, **how)

    monkeypatch.setattr(ablation_run, "build", refusing)
    base, residual = ablate("blocks", "--only", "residual", "--seeds", "1", "--width", "2")
    assert base["latency_ms"] == 2 and residual["failure"] == "latency: at c = 2: no kernel for it" and residual["network"] == ""
    monkeypatch.setattr(ablation_run, "build", whole)
    assert ablate("blocks", "--only", "residual", "--seeds", "1", "--width", "2")[1]["failure"] == ""


def test_an_ablation_that_could_measure_nothing_gives_way_to_a_corrected_one(
    ablate: Ablate, formula: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> Any:
        raise MeasurementFailed("no kernel for it")

    arguments = ["blocks", "--only", "residual", "--seeds", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(ablation_run, "measure_steady", lost)
        assert all("no kernel for it" in row["failure"] for row in ablate(*arguments, "--width", "3", code=1))
    facts = record(tmp_path / "out")
    assert facts and all("failure" in line["fact"] for line in facts)
    assert [row["failure"] for row in ablate(*arguments, "--width", "2")] == ["", ""]
    assert not [line for line in record(tmp_path / "out") if "failure" in line["fact"]]


def test_mistakes_are_one_line(ablate: Ablate, formula: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ablate("blocks", "--only", "residual", "--seeds", "1", "--width", "2")
    (tmp_path / "file").write_text("")
    cases = [
        (["blocks", "--only", "conv5x5"], "unknown block 'conv5x5'; there are: conv3x3,"),
        (["interactions", "--only", "ghost"], "unknown interaction 'ghost'; there are: none,"),
        (["interactions", "--target-ms", "3"], "add --fit"),
        (["blocks", "--target-ms", "-1"], "above 0 ms"),
        (["blocks", "--width", "5000"], "a width is from 1 to 1024, got 5000"),
        (["blocks", "--seeds", "0"], "--seeds"),
        (["blocks", "--input", "big"], "--input takes a size"),
        (["blocks", "--input", "48x64", "--set", "input_width=9"], "leave out --set input_width"),
        (["blocks", "--iterations", "9", "--set", "iterations=7"], "leave out --set iterations"),
        (["blocks", "--recipe", "none"], "unknown recipe 'none'"),
        (["blocks", "--data", "cityscape:x"], "unknown data set"),
        (["blocks", "--backend", "tensorflow"], "there are: ort"),
        (["blocks", "--boundary", "pixels"], "there are: scores, logits, labels"),
        (["blocks", "--precision", "int8", *QUICK], "unknown precision 'int8' of a training"),
        (["blocks", *QUICK, "--width", "2", "--iterations", "2"], "holds another ablation (iterations: 1, not 2"),
        (["interactions", "--report-only"], "holds an ablation of blocks, not of interactions"),
        (["blocks", "--report-only", "--out", str(tmp_path / "none")], "holds no ablation"),
        (["blocks", "--report-only", "--seeds", "5"], "--seeds does not go with --report-only"),
        (["blocks", *QUICK, "--out", str(tmp_path / "file" / "x")], "cannot be made"),
    ]
    for arguments, message in cases:
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        assert run(["ablate", *arguments, *out]) == 2, arguments
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert message in line, arguments
    (tmp_path / "out" / "study.json").write_text("{}")
    assert run(["ablate", "blocks", "--report-only", "--out", str(tmp_path / "out")]) == 2
    assert "does not describe an ablation" in capsys.readouterr().err
