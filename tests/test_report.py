"""The files derived from a run: their rows and columns against what was measured, trained and counted by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latency.measurement import Environment, Measurement
from lpsnet.architecture import NAMED, Architecture
from lpsnet.complexity import complexity
from lpsnet.recipe import proxy_recipe
from search.config import SearchConfig
from search.executor import conditions, subject
from search.report import candidates_frame, family_frame, weight_faults, write_report, write_trajectory
from search.run import Run, RunError
from search.step import Candidate, Failure, Member, Step, Trial, slope_text
from search.study import TrainingKey, TrainingRecord

CLASSES = ("sky", "road", "car")
CONFIG = SearchConfig(data="synthetic", height=32, width=64, steps=2, proxy=proxy_recipe(10), seed=3)
HERE = Environment(device="Some CPU", cores=2, driver="", versions={"onnxruntime": "1.31.1"})

START = NAMED["N0"]
DEEP = Architecture((1, 1, 1, 3, 3), START.widths, START.scales)
WIDE = Architecture(START.depths, (8, 16, 32, 64, 64), START.scales)
BIG = Architecture(START.depths, START.widths, (4, 1))
DEEPER = Architecture((1, 1, 1, 4, 4), START.widths, START.scales)


def trial(
    architecture: Architecture, expansions: tuple[tuple[str, int], ...], latency_ms: float, outcome: float | Failure, slope: float
) -> Trial:
    return Trial(Candidate(architecture, expansions, latency_ms), outcome, slope)


def chain() -> list[Step]:
    """The start, a step with a failed candidate, and a step that is a free gain with a warning."""
    start = Member(START, 0.5, 20.0)
    deep = Member(DEEP, 0.75, 30.0)
    tried = (
        trial(DEEP, (("depth-4", 2),), 0.75, 30.0, 40.0),
        trial(WIDE, (("width-1", 1),), 0.8, 26.0, 20.0),
        trial(BIG, (("scale-2", 1), ("scale-3", 1)), 0.7, Failure('the loss is nan, "at" iteration 7'), math.nan),
    )
    last = trial(DEEPER, (("depth-4", 1),), 0.7, 33.5, math.inf)
    return [
        Step(0, None, None, (trial(START, (), 0.5, 20.0, math.nan),), start, {}, ()),
        Step(1, start, 0.8, tried, deep, {"scale-1": "beyond the bounds at k = 1"}, ()),
        Step(2, deep, 0.72, (last,), Member(DEEPER, 0.7, 33.5), {}, ("the chosen candidate is not slower than its parent",)),
    ]


def measurement(architecture: Architecture, boundary: str, samples_ms: tuple[float, ...]) -> Measurement:
    return Measurement(
        subject=subject(architecture, len(CLASSES)),
        conditions=conditions(CONFIG, boundary),
        environment=HERE,
        samples_ms=samples_ms,
        clock="perf_counter",
        warmup_runs=3,
        load_s=0.1,
        created="2026-01-01T00:00:00+00:00",
    )


def train(run: Run, step: int, architecture: Architecture, parent: str, record: TrainingRecord) -> str:
    key = TrainingKey(architecture=str(architecture), recipe=CONFIG.proxy, parent_trial=parent, seed=CONFIG.seed)
    return run.study.finish(run.study.begin(step, key, {}), key, record).trial


def make_run(path: Path) -> Run:
    """A run whose stores hold what `chain` says, but no latency of DEEPER to the labels."""
    opened = Run.start(path, CONFIG, CLASSES, HERE)
    scored = TrainingRecord(miou_percent=20.0, class_iou_percent=(30.0, None, 10.0), curve=((5, 2.5), (10, 1.25)), seconds=12.5)
    start = train(opened, 0, START, "", scored)
    deep = train(opened, 1, DEEP, start, dataclasses.replace(scored, miou_percent=30.0, class_iou_percent=(40.0, 50.0, 0.0), seconds=20.0))
    train(opened, 1, WIDE, start, dataclasses.replace(scored, miou_percent=26.0, class_iou_percent=(26.0, None, 26.0)))
    train(opened, 1, BIG, start, TrainingRecord(failure='the loss is nan, "at" iteration 7'))
    train(opened, 2, DEEPER, deep, dataclasses.replace(scored, miou_percent=33.5))
    for architecture, latency_ms in ((START, 0.5), (DEEP, 0.75), (WIDE, 0.8), (BIG, 0.7), (DEEPER, 0.7)):
        wide = architecture == WIDE
        opened.store.add(measurement(architecture, "scores", tuple(latency_ms * f for f in ((1, 1.5, 0.5) * 5 if wide else (1,) * 15))))
    opened.store.add(measurement(START, "labels", (0.6,) * 9))
    opened.store.add(measurement(DEEP, "labels", (0.9,) * 9))
    weights = opened.weights_path(DEEP)
    weights.parent.mkdir()
    weights.touch()
    return opened


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    opened = make_run(tmp_path / "run")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a closed run with its report."""
    opened = make_run(tmp_path_factory.mktemp("report") / "run")
    write_report(opened, chain())
    opened.close()
    return opened.path


class TestCandidates:
    @pytest.fixture
    def table(self, written: Path) -> pd.DataFrame:
        return pd.read_csv(written / "candidates.csv")

    def test_there_is_one_row_a_candidate_in_the_order_tried(self, table: pd.DataFrame) -> None:
        assert list(table["step"]) == [0, 1, 1, 1, 2]
        assert list(table["architecture"]) == [str(a) for a in (START, DEEP, WIDE, BIG, DEEPER)]
        assert list(table["expansion"]) == ["start", "depth-4 x2", "width-1 x1", "scale-2 x1 = scale-3 x1", "depth-4 x1"]
        assert list(table["k"]) == [0, 2, 1, 1, 1]

    def test_its_columns_are_those_of_a_trial_and_the_iou_of_each_class(self, table: pd.DataFrame) -> None:
        assert list(table) == [
            *("step", "architecture", "expansion", "k", "target_ms", "latency_ms", "latency_stable", "miou_percent", "failure"),
            *("gain", "gain_error", "iterations", "seeds"),
            *("slope", "chosen", "trial", "train_s", "last_loss", "iou_sky", "iou_road", "iou_car"),
        ]

    def test_latencies_and_targets_are_those_of_the_search(self, table: pd.DataFrame) -> None:
        np.testing.assert_array_equal(table["latency_ms"], [0.5, 0.75, 0.8, 0.7, 0.7])
        np.testing.assert_array_equal(table["target_ms"], [np.nan, 0.8, 0.8, 0.8, 0.72])
        assert list(table["latency_stable"]) == [True, True, False, True, True]

    def test_scores_slopes_and_losses_are_those_of_the_training(self, table: pd.DataFrame) -> None:
        np.testing.assert_array_equal(table["miou_percent"], [20.0, 30.0, 26.0, np.nan, 33.5])
        np.testing.assert_array_equal(table["slope"], [np.nan, 40.0, 20.0, np.nan, np.inf])
        np.testing.assert_array_equal(table["train_s"], [12.5, 20.0, 12.5, 0.0, 12.5])
        np.testing.assert_array_equal(table["last_loss"], [1.25, 1.25, 1.25, np.nan, 1.25])

    def test_a_class_that_never_occurs_has_an_empty_cell(self, table: pd.DataFrame) -> None:
        np.testing.assert_array_equal(table["iou_sky"], [30.0, 40.0, 26.0, np.nan, 30.0])
        np.testing.assert_array_equal(table["iou_road"], [np.nan, 50.0, np.nan, np.nan, np.nan])
        np.testing.assert_array_equal(table["iou_car"], [10.0, 0.0, 26.0, np.nan, 10.0])

    def test_a_failed_trial_has_its_reason_and_the_others_have_none(self, table: pd.DataFrame) -> None:
        assert list(table["failure"].fillna("")) == ["", "", "", 'the loss is nan, "at" iteration 7', ""]

    def test_the_chosen_of_each_step_is_flagged(self, table: pd.DataFrame) -> None:
        assert list(table["chosen"]) == [True, True, False, False, True]

    def test_rows_name_their_trials_in_the_study(self, table: pd.DataFrame) -> None:
        assert list(table["trial"]) == ["step-00/0", "step-01/0", "step-01/1", "step-01/2", "step-02/0"]

    def test_a_measurement_in_another_environment_does_not_count(self, run: Run) -> None:
        run.environment = dataclasses.replace(HERE, device="Other CPU")
        assert candidates_frame(run, chain())["latency_stable"].isna().all()
        assert family_frame(run, chain())["latency_labels_ms"].isna().all()


class TestFamily:
    @pytest.fixture
    def table(self, written: Path) -> pd.DataFrame:
        return pd.read_csv(written / "family.csv")

    def test_there_is_one_row_a_network_of_the_chain(self, table: pd.DataFrame) -> None:
        assert list(table["step"]) == [0, 1, 2]
        assert list(table["architecture"]) == [str(a) for a in (START, DEEP, DEEPER)]
        assert list(table["expansion"]) == ["start", "depth-4 x2", "depth-4 x1"]

    def test_its_columns_are_those_of_table_4_and_more(self, table: pd.DataFrame) -> None:
        assert list(table) == [
            *("step", "expansion", "B", "C", "R", "latency_scores_ms", "latency_labels_ms", "miou_percent", "slope"),
            *("parameters", "macs_giga", "architecture", "weights", "weights_sha256", "sure", "warnings"),
        ]

    def test_the_architecture_is_spelled_out(self, table: pd.DataFrame, run: Run) -> None:
        assert list(table["B"]) == ["1-1-1-1-1", "1-1-1-3-3", "1-1-1-4-4"]
        assert set(table["C"]) == {"4-8-16-32-32"}
        assert set(table["R"]) == {"4/8"}
        assert family_frame(run, [chain()[0], dataclasses.replace(chain()[1], chosen=Member(BIG, 0.7, 1.0))])["R"][1] == "4/8-1/8"

    def test_parameters_and_multiply_adds_are_those_of_the_deployed_network(self, table: pd.DataFrame) -> None:
        for row, architecture in zip(table.itertuples(), (START, DEEP, DEEPER), strict=True):
            cost = complexity(architecture, len(CLASSES), CONFIG.size)
            assert row.parameters == cost.parameters
            assert row.macs_giga == pytest.approx(cost.macs / 1e9, rel=1e-5)
        assert table["parameters"].is_monotonic_increasing

    def test_latencies_scores_and_slopes_are_those_of_the_chain(self, table: pd.DataFrame) -> None:
        np.testing.assert_array_equal(table["latency_scores_ms"], [0.5, 0.75, 0.7])
        np.testing.assert_array_equal(table["miou_percent"], [20.0, 30.0, 33.5])
        np.testing.assert_array_equal(table["slope"], [np.nan, 40.0, np.inf])

    def test_the_latency_to_the_labels_comes_from_the_store(self, table: pd.DataFrame) -> None:
        np.testing.assert_array_equal(table["latency_labels_ms"], [0.6, 0.9, np.nan])

    def test_a_latency_to_the_labels_that_failed_is_empty(self, run: Run) -> None:
        at = conditions(CONFIG, "labels")
        run.store.add_failure(subject(DEEPER, len(CLASSES)), at, HERE, "", "out of memory")
        assert math.isnan(family_frame(run, chain())["latency_labels_ms"][2])

    def test_a_search_by_labels_shows_one_latency(self, tmp_path: Path) -> None:
        run = Run.start(tmp_path / "by-labels", dataclasses.replace(CONFIG, boundary="labels"), CLASSES, HERE)
        table = family_frame(run, chain())
        run.close()
        assert [name for name in table if name.startswith("latency")] == ["latency_labels_ms"]
        assert list(table["latency_labels_ms"]) == [0.5, 0.75, 0.7]

    def test_weights_are_named_where_they_lie_in_the_folder(self, table: pd.DataFrame, written: Path) -> None:
        assert list(table["weights"].fillna("")) == ["", f"checkpoints/{DEEP}.safetensors", ""]
        assert (written / table["weights"][1]).is_file()

    def test_warnings_stand_beside_their_step(self, table: pd.DataFrame) -> None:
        assert list(table["warnings"].fillna("")) == ["", "", "the chosen candidate is not slower than its parent"]


class TestFiles:
    def test_the_picture_is_a_png_with_something_on_it(self, written: Path) -> None:
        with Image.open(written / "trajectory.png") as picture:
            assert picture.format == "PNG"
            picture.load()
            assert min(picture.size) > 300
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50

    def test_the_picture_shows_the_candidates_that_were_not_taken(self, run: Run, written: Path) -> None:
        alone = [dataclasses.replace(step, trials=(step.chosen_trial,)) for step in chain()]
        write_trajectory(run.path / "trajectory.png", run, alone)
        assert (run.path / "trajectory.png").read_bytes() != (written / "trajectory.png").read_bytes()
        write_trajectory(run.path / "trajectory.png", run, chain())
        assert (run.path / "trajectory.png").read_bytes() == (written / "trajectory.png").read_bytes()

    def test_deleted_files_are_rebuilt_as_they_were(self, run: Run) -> None:
        write_report(run, chain())
        names = ("candidates.csv", "family.csv", "trajectory.png")
        before = {name: (run.path / name).read_bytes() for name in names}
        for name in names:
            (run.path / name).unlink()
        write_report(run, chain())
        assert {name: (run.path / name).read_bytes() for name in names} == before

    def test_files_of_fewer_steps_are_replaced_and_nothing_else_is_left(self, run: Run) -> None:
        others = {path.name for path in run.path.iterdir()}
        for count in (1, 2):
            write_report(run, chain()[:count])
            assert len(pd.read_csv(run.path / "family.csv")) == count
        assert {path.name for path in run.path.iterdir()} - others == {"candidates.csv", "family.csv", "trajectory.png"}

    def test_a_reader_can_rebuild_them_from_the_folder_alone(self, run: Run, written: Path) -> None:
        run.close()
        reader = Run.read(run.path)
        write_report(reader, chain())
        reader.close()
        for name in ("candidates.csv", "family.csv"):
            assert (run.path / name).read_bytes() == (written / name).read_bytes()

    @pytest.mark.parametrize("name", ["candidates.csv", "family.csv", "trajectory.png"])
    def test_a_folder_where_a_file_is_due_is_named(self, run: Run, name: str) -> None:
        (run.path / name).mkdir()
        with pytest.raises(RunError, match=rf"cannot write candidates.csv, family.csv and trajectory.png of .*run.*{name}"):
            write_report(run, chain())

    def test_a_step_whose_candidates_failed_but_for_the_chosen_can_be_reported(self, run: Run) -> None:
        step = chain()[1]
        trials = (step.trials[0], *(dataclasses.replace(t, outcome=Failure("out of memory"), slope=math.nan) for t in step.trials[1:]))
        write_report(run, [chain()[0], dataclasses.replace(step, trials=trials)])
        table = pd.read_csv(run.path / "candidates.csv")
        assert list(table["failure"].fillna("")) == ["", "", "out of memory", "out of memory"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.inf, "free gain"),
        (-math.inf, "no gain"),
        (math.nan, "-"),
        (1.234, "1.23"),
        (0.0, "0.00"),
        (0.0207, "0.021"),
        (0.0155, "0.015"),
        (-3.5, "-3.50"),
        (1234.5, "1234.50"),
    ],
)
def test_a_slope_is_told_in_words_where_it_is_no_number(value: float, text: str) -> None:
    assert slope_text(value) == text


def test_lost_and_changed_weights_of_the_chain_are_told(tmp_path: Path) -> None:
    with Run.start(tmp_path / "run", CONFIG, CLASSES, HERE) as run:
        sound = TrainingRecord(miou_percent=20.0, weights_sha256=hashlib.sha256(b"weights").hexdigest())
        start = train(run, 0, START, "", sound)
        deep = train(run, 1, DEEP, start, sound)
        train(run, 1, WIDE, start, sound)  # not of the chain: its weights are not kept
        train(run, 2, DEEPER, deep, sound)
        run.checkpoints.mkdir()
        run.weights_path(START).write_bytes(b"weights")
        run.weights_path(DEEP).write_bytes(b"others")
        changed, gone = weight_faults(run, chain())
    assert "step 1 are not those that were trained" in changed and str(DEEP) in changed
    assert "step 2 are gone" in gone and str(DEEPER) in gone


def test_an_expansion_names_every_operation_that_leads_to_the_network() -> None:
    texts = [t.candidate.text for step in chain() for t in step.trials]
    assert texts == ["start", "depth-4 x2", "width-1 x1", "scale-2 x1 = scale-3 x1", "depth-4 x1"]
