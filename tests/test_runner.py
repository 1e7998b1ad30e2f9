"""The shell around Algorithm 1: what it asks the executor for, what it keeps, and how it goes on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from latency import Measurement, MeasurementFailed, Store, TimingPlan
from latency.compare import in_turns
from latency.measurement import Verdict
from latency.worker import WorkerLost
from lpsnet import Architecture, load
from lpsnet.metrics import Scores
from lpsnet.network import LPSNet
from lpsnet.training import Trained, TrainingFailed
from search import Step
from search.config import SearchConfig
from search.executor import LocalExecutor, conditions, current_environment, subject
from search.observer import Observer
from search.pool import Ended
from search.proxy import Proxy, TrainJob
from search.report import family_frame, write_report
from search.run import Run
from search.runner import OutOfTime, Progress, advance, replay
from tests.processes import quick_workers
from tests.tiny import few_frames, made_latency, tiny_config

CLASSES = tuple(f"class{index}" for index in range(11))


class CountingExecutor:
    """Answers from formulas and remembers what it was asked."""

    def __init__(self, config: SearchConfig, fail: Callable[[Architecture], str | None] = lambda a: None) -> None:
        self.config, self.fail = config, fail
        self.measured: list[tuple[str, str]] = []
        self.trained: list[str] = []
        self.jobs: list[TrainJob] = []
        self.turns: list[tuple[str, str]] = []

    def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
        at = conditions(self.config, boundary)
        self.measured.append((str(architecture), at.boundary))
        return Measurement(
            subject=subject(architecture, 11),
            conditions=at,
            environment=current_environment(self.config),
            samples_ms=(made_latency(architecture),) * 5,
            clock="perf_counter",
            warmup_runs=3,
            load_s=0.1,
            created="2026-01-01T00:00:00+00:00",
        )

    def holds(self, name: str, boundary: str) -> bool:
        return False

    def compare(self, first: Architecture, second: Architecture) -> Measurement:
        """Neither is faster, whatever the formula says."""
        self.turns.append((str(first), str(second)))
        row = self.measure(first)
        self.measured.pop()
        name = in_turns(subject(first, 11), subject(second, 11))
        turns = [0.9, 1.1] * 5
        return dataclasses.replace(row, subject=name, samples_ms=(1.0,) * 10, found={"second_ms": turns, "reason": "a tie"})

    def train(self, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
        for job in jobs:
            on_start(job)
            yield Ended(job, self.outcome(job), 0.5)

    def outcome(self, job: TrainJob) -> Trained | TrainingFailed:
        architecture = job.architecture
        self.trained.append(str(architecture))
        self.jobs.append(job)
        if reason := self.fail(architecture):
            return TrainingFailed(reason)
        miou = 20.0 + sum(architecture.widths) / 10 + sum(architecture.depths) + job.rung / 100 + 0.3 * (job.seed % 2)
        torch.manual_seed(0)
        result = Scores(miou_percent=miou, class_iou_percent=(None,) + (miou,) * 10, pixel_accuracy_percent=50.0)
        return Trained(network=LPSNet(architecture, 11), scores=result, curve=((1, 2.0), (2, 1.0)))


def start(path: Path, config: SearchConfig) -> Run:
    return Run.start(path, config, CLASSES, current_environment(config))


def go(run: Run, executor: CountingExecutor, **options: float) -> Progress:
    return advance(run, executor, Observer(), lambda progress: write_report(run, progress.steps), **options)  # type: ignore[arg-type]


def finish(path: Path, config: SearchConfig, executor: CountingExecutor) -> list[Step]:
    run = start(path, config)
    steps = go(run, executor).steps
    run.close()
    return steps


def chain(steps: list[Step]) -> list[Architecture]:
    return [step.chosen.architecture for step in steps]


def test_a_finished_run_asks_for_nothing_again_and_replays_without_an_executor(tmp_path: Path) -> None:
    config = tiny_config()
    first, second = CountingExecutor(config), CountingExecutor(config)
    steps = finish(tmp_path / "run", config, first)
    assert len(first.measured) == len(set(first.measured)) and len(first.trained) == len(set(first.trained))
    assert chain(finish(tmp_path / "run", config, second)) == chain(steps)
    assert not second.measured and not second.trained
    assert chain(replay(Run.read(tmp_path / "run")).steps) == chain(steps)


def test_more_steps_extend_a_run_to_the_chain_of_one_long_run(tmp_path: Path) -> None:
    short, long = tiny_config(1), tiny_config(2)
    finish(tmp_path / "run", short, CountingExecutor(short))
    extended = finish(tmp_path / "run", long, CountingExecutor(long))
    assert chain(extended) == chain(finish(tmp_path / "whole", long, CountingExecutor(long)))


def test_the_chains_weights_are_kept_and_load_and_those_of_other_candidates_are_not(tmp_path: Path) -> None:
    config = tiny_config()
    steps = finish(tmp_path / "run", config, CountingExecutor(config))
    files = {path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert files == {str(architecture) for architecture in chain(steps)}
    for architecture in chain(steps):
        assert load(tmp_path / "run" / "checkpoints" / f"{architecture}.safetensors").architecture == architecture


def test_every_network_of_the_chain_is_measured_to_the_labels_too(tmp_path: Path) -> None:
    config, executor = tiny_config(1), CountingExecutor(tiny_config(1))
    steps = finish(tmp_path / "run", config, executor)
    assert {(str(a), "labels") for a in chain(steps)} == {pair for pair in executor.measured if pair[1] == "labels"}


def test_a_failed_candidate_is_recorded_and_not_tried_again(tmp_path: Path) -> None:
    config = tiny_config(1)
    executor = CountingExecutor(config, lambda a: "the loss is nan" if a.depths[2] > 1 else None)
    step = finish(tmp_path / "run", config, executor)[1]
    failed = [trial for trial in step.trials if not isinstance(trial.outcome, float)]
    assert failed and all("nan" in trial.outcome.reason for trial in failed)  # type: ignore[union-attr]
    again = CountingExecutor(config)
    finish(tmp_path / "run", config, again)
    assert not again.trained


def test_a_network_that_cannot_be_measured_is_a_row_with_its_reason(tmp_path: Path) -> None:
    class Refusing(CountingExecutor):
        def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
            if architecture.widths[0] > 4:
                raise MeasurementFailed("no kernel")
            return super().measure(architecture, boundary)

    config = tiny_config(1)
    step = finish(tmp_path / "run", config, Refusing(config))[1]
    assert "no kernel" in step.skipped["width-1"]
    rows = Store(tmp_path / "run" / "latency.sqlite")._connection.execute("SELECT failure FROM measurements").fetchall()
    assert ("no kernel",) in rows


def test_every_candidate_failing_stops_with_the_reason_and_keeps_what_was_decided(tmp_path: Path) -> None:
    config = tiny_config(1)
    executor = CountingExecutor(config, lambda a: "out of memory" if str(a) != config.start else None)
    run = start(tmp_path / "run", config)
    progress = go(run, executor)
    run.close()
    assert "every candidate failed" in progress.stopped and "out of memory" in progress.stopped
    assert len(progress.steps) == 1 and (tmp_path / "run" / "family.csv").exists()


def test_max_hours_begins_nothing_new_and_the_run_goes_on_later(tmp_path: Path) -> None:
    config = tiny_config(1)
    run, idle = start(tmp_path / "run", config), CountingExecutor(config)
    progress = go(run, idle, max_hours=0.0)
    run.close()
    assert progress.out_of_time and not idle.trained and not idle.measured
    assert len(finish(tmp_path / "run", config, CountingExecutor(config))) == 2


def test_an_interrupted_training_is_the_only_one_repeated(tmp_path: Path) -> None:
    config = tiny_config(1)

    class Interrupted(CountingExecutor):
        def outcome(self, job: TrainJob) -> Trained | TrainingFailed:
            if len(self.trained) == 3:
                raise KeyboardInterrupt
            return super().outcome(job)

    run, first = start(tmp_path / "run", config), Interrupted(config)
    with pytest.raises(KeyboardInterrupt):
        go(run, first)
    run.close()
    second = CountingExecutor(config)
    steps = finish(tmp_path / "run", config, second)
    assert not set(first.trained) & set(second.trained)
    assert set(first.trained) | set(second.trained) == {str(t.candidate.architecture) for step in steps for t in step.trials}


def test_a_measured_row_of_the_machine_store_is_not_measured_again_in_another_run(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config(0), plan=dataclasses.replace(tiny_config().plan, min_s=0.0, warmup_s=0.0))
    few_frames()
    store = Store(tmp_path / "machine.sqlite")
    executor = LocalExecutor(config, store, Observer())
    first = executor.measure(config.start_architecture)
    assert executor.measure(config.start_architecture) == first
    assert LocalExecutor(config, Store(tmp_path / "machine.sqlite"), Observer()).measure(config.start_architecture) == first
    assert len(store.all()) == 1


def test_the_proxy_gives_the_same_number_for_the_same_seed_and_reports_iterations(tmp_path: Path) -> None:
    few_frames()
    seen: list[tuple[str, int, int]] = []

    class Watching(Observer):
        def work(self, what: str, done: int, total: int, detail: str = "") -> None:
            seen.append((what, done, total))

    config = tiny_config()
    results = [Proxy(config, Watching()).train(TrainJob(architecture=config.start_architecture, seed=0)).scores for _ in range(2)]
    assert results[0] == results[1]
    assert ("iterations", 2, 2) in seen and ("validation", 3, 3) in seen and ("frames", 6, 6) in seen


def test_out_of_memory_fails_the_candidate_and_a_bug_or_broken_data_does_not_hide_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from lpsnet.data.frames import DataError

    few_frames()
    proxy = Proxy(tiny_config(), Observer())
    cases: list[tuple[Exception, type[Exception]]] = [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), TrainingFailed),
        (torch.OutOfMemoryError("CUDA out of memory"), TrainingFailed),
        (ValueError("input 1x1 is too small"), TrainingFailed),
        (RuntimeError("shapes do not match"), RuntimeError),
        (DataError("frame 3 is broken"), DataError),
    ]
    for raised, expected in cases:

        def broken(*args: object, error: Exception = raised, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr("lpsnet.training.train", broken)
        with pytest.raises(expected) as caught:
            proxy.train(TrainJob(architecture=tiny_config().start_architecture, seed=0))
        assert type(caught.value) is expected


def test_every_training_is_a_trial_with_its_expansion_k_latency_row_curve_and_state(tmp_path: Path) -> None:
    config = tiny_config(1)
    finish(tmp_path / "run", config, CountingExecutor(config))
    with Run.read(tmp_path / "run") as run:
        start_trial, *trials = run.study.trials(0) + run.study.trials(1)
        assert start_trial.user_attrs["expansion"] == "start" and start_trial.user_attrs["k"] == 0
        for trial in trials:
            attributes = trial.user_attrs
            row = run.store._connection.execute("SELECT subject FROM measurements WHERE id = ?", (attributes["latency_row"],)).fetchone()
            assert row == (f"{attributes['architecture']} classes=11",)
            assert attributes["expansion"].split(" = ")[0].endswith(f" x{attributes['k']}") and attributes["parent_trial"] == "step-00/0"
            assert trial.state.name == "COMPLETE" and trial.value == attributes["record"]["miou_percent"]
            assert attributes["record"]["curve"] == [[1, 2.0], [2, 1.0]] and attributes["iterations"] == 2 and attributes["seed"] == 0


def test_what_is_run_in_turns_is_kept_as_rows_and_replayed(tmp_path: Path) -> None:
    config = tiny_config(2, noise=0.2)
    first, second = CountingExecutor(config), CountingExecutor(config)
    steps = finish(tmp_path / "run", config, first)
    ties = [tie for step in steps for tie in step.ties]
    assert ties and [(str(tie.first), str(tie.second)) for tie in ties] == first.turns
    assert len(first.turns) == len(set(first.turns))
    assert chain(finish(tmp_path / "run", config, second)) == chain(steps) and not second.turns
    run = Run.read(tmp_path / "run")
    assert [step.ties for step in replay(run).steps] == [step.ties for step in steps]
    rows = [row for row in run.store.all() if "in turns with" in row.subject]
    assert len(rows) == len(ties) and all(row.found["reason"] == "a tie" for row in rows)
    assert "neither is faster" in " ".join(family_frame(run, steps)["warnings"])
    run.close()
    untied = finish(tmp_path / "other", tiny_config(2), CountingExecutor(tiny_config(2)))
    assert not any(step.ties for step in untied)


def test_a_latency_that_hangs_ends_as_a_failed_candidate_and_is_not_held_against_the_network_for_good(tmp_path: Path) -> None:
    few_frames()
    config, store = tiny_config(0, plan=TimingPlan(min_s=0)), Store(tmp_path / "machine.sqlite")
    executor = LocalExecutor(config, store, Observer(), limit_s=1e-3)
    with quick_workers(), start(tmp_path / "run", config) as run:
        progress = advance(run, executor, Observer(), lambda so_far: None)
        assert "could not be measured: no answer within 0.001 s" in progress.stopped
        with pytest.raises(WorkerLost):
            executor.compare(config.start_architecture, config.start_architecture)  # in the worker, too
    executor.close()
    patient = LocalExecutor(config, store, Observer(), limit_s=120)
    with quick_workers():
        found = patient.measure(config.start_architecture)
    assert found.latency_ms > 0 and store.all() == [found]
    patient.close()
    with start(tmp_path / "run", config) as run:  # the start was not held against it in the run either
        assert len(advance(run, CountingExecutor(config), Observer(), lambda so_far: None).steps) == 1  # type: ignore[arg-type]


class Noting(Observer):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_latencies_that_stay_unstable_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Measurement, "verdict", lambda self: Verdict(stable="C8" not in self.subject, reasons=()))
    config, noting = tiny_config(1), Noting()
    with start(tmp_path / "run", config) as run:
        (_, step) = advance(run, CountingExecutor(config), noting, lambda progress: None).steps  # type: ignore[arg-type]
    wide = {t.candidate.architecture for t in step.trials if "C8" in str(t.candidate.architecture)}
    (told,) = [note for note in noting.notes if "unstable" in note]
    count = re.match(r"step 1: (\d+) latencies are unstable", told)
    assert wide and count and int(count[1]) >= len(wide)


def test_what_the_latencies_of_a_step_took_is_told(tmp_path: Path) -> None:
    config, noting = tiny_config(2), Noting()
    executor = CountingExecutor(config)
    with start(tmp_path / "run", config) as run:
        advance(run, executor, noting, lambda progress: None)  # type: ignore[arg-type]
    counts = [re.findall(r"(\d+) latencies measured in \d+ s, (\d+) known already", note) for note in noting.notes]
    told = [(int(measured), int(known)) for ((measured, known),) in counts]
    last = [pair for pair in executor.measured if pair[1] == "labels"][-1:]  # measured after the last step was told
    assert sum(measured for measured, _ in told) == len(executor.measured) - len(last)


def test_a_decided_step_is_in_the_files_even_where_time_ends_right_after_it(tmp_path: Path) -> None:
    class Ending(CountingExecutor):
        def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
            if boundary == "labels" and self.trained[1:]:
                raise OutOfTime
            return super().measure(architecture, boundary)

    config = tiny_config(1)
    with start(tmp_path / "run", config) as run:
        progress = go(run, Ending(config))
        assert progress.out_of_time and len(progress.steps) == 2
        assert len(pd.read_csv(run.path / "family.csv")) == 2
