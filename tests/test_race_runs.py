"""Runs whose candidates race: what is trained, kept and replayed, from scratch and with inherited weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from latency import Measurement
from lpsnet import Architecture
from lpsnet.errors import UserError
from lpsnet.training import Trained, TrainingFailed
from search.config import RacePlan
from search.observer import Observer
from search.pool import train_here
from search.proxy import Proxy, TrainJob
from search.report import write_trajectory
from search.run import Run
from tests.test_runner import CountingExecutor, finish, go, start
from tests.tiny import few_frames, tiny_config


class TestRaces:
    PLAN = RacePlan(rungs=(1,), seeds=2, seed_noise_percent=50.0)

    def test_every_training_is_asked_for_once_and_a_finished_race_is_replayed(self, tmp_path: Path) -> None:
        config = tiny_config(2, race=self.PLAN)
        first, second = CountingExecutor(config), CountingExecutor(config)
        steps = finish(tmp_path / "run", config, first)
        asked = [(str(job.architecture), job.seed, job.rung) for job in first.jobs]
        assert len(asked) == len(set(asked))
        assert {(seed, rung) for _, seed, rung in asked} == {(0, 1), (0, 0), (1, 0)}
        again = finish(tmp_path / "run", config, second)
        assert again == steps and not second.jobs
        assert all(trial.gain and trial.gain.seeds == 2 for step in steps[1:] for trial in step.trials)

    @pytest.mark.parametrize("rungs", [(), (1,)])
    def test_what_left_a_race_on_its_way_is_drawn_apart(
        self, rungs: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config, figures = tiny_config(1, race=RacePlan(rungs=rungs, seeds=1, seed_noise_percent=0.001)), []
        steps = finish(tmp_path / "run", config, CountingExecutor(config))
        left = [t for t in steps[1].trials if t.gain is not None and t.gain.iterations < config.proxy.iterations]
        monkeypatch.setattr("search.report.png", lambda figure: figures.append(figure) or b"")
        with Run.read(tmp_path / "run") as run:
            write_trajectory(tmp_path / "t.png", run, steps)
        labels = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
        assert bool(left) == bool(rungs) == ("left a race, trained less" in labels)

    def test_the_control_of_a_training_from_scratch_is_the_parents_own(self, tmp_path: Path) -> None:
        config = tiny_config(1, race=dataclasses.replace(self.PLAN, rungs=()))
        executor = CountingExecutor(config)
        finish(tmp_path / "run", config, executor)
        starts = [job for job in executor.jobs if job.architecture == config.start_architecture]
        assert [(job.seed, job.rung, job.parent) for job in starts] == [(0, 0, None), (1, 0, None)]

    def test_a_state_is_gone_on_with_and_removed_with_the_step(self, tmp_path: Path) -> None:
        config = tiny_config(1, race=self.PLAN)

        class Keeping(CountingExecutor):
            def outcome(self, job: TrainJob) -> Trained | TrainingFailed:
                if job.state is not None:
                    job.state.parent.mkdir(exist_ok=True)
                    job.state.write_bytes(b"state")
                return super().outcome(job)

        executor = Keeping(config)
        finish(tmp_path / "run", config, executor)
        states = {(str(job.architecture), job.state) for job in executor.jobs if job.seed == 0 and job.state}
        # One state a candidate, for both rungs; the start has none to go on from but its own.
        assert len(states) == len({name for name, _ in states})
        assert all(job.state is None for job in executor.jobs if job.seed == 1)
        assert not list((tmp_path / "run" / "states").iterdir())

    def test_candidates_inherit_from_the_parent_and_so_does_the_control(self, tmp_path: Path) -> None:
        config = tiny_config(2, race=RacePlan(inherit=True))
        executor = CountingExecutor(config)
        steps = finish(tmp_path / "run", config, executor)
        start, *others = executor.jobs
        assert start.parent is None and all(job.parent is not None for job in others)
        for number, step in enumerate(steps[1:]):
            weights = tmp_path / "run" / "checkpoints" / f"{steps[number].chosen.architecture}.safetensors"
            jobs = [job for job in others if job.parent == weights]
            assert {job.architecture for job in jobs} == {t.candidate.architecture for t in step.trials} | {
                steps[number].chosen.architecture
            }
            # Formulas give the control its parent's score: what is told is the gain over it.
            assert all(t.gain and t.gain.percent == pytest.approx(t.outcome - steps[number].chosen.miou_percent) for t in step.trials)  # type: ignore[operator]
        frame = pd.read_csv(tmp_path / "run" / "candidates.csv")
        assert frame["trial"].notna().all() and (frame["seeds"] == 1).all()

    def test_a_parent_without_weights_is_said(self, tmp_path: Path) -> None:
        config = tiny_config(1, race=RacePlan(inherit=True))

        class Losing(CountingExecutor):
            def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
                for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
                    path.unlink()
                return super().measure(architecture, boundary)

        with start(tmp_path / "run", config) as run, pytest.raises(UserError, match=r"\.safetensors is missing: candidates inherit"):
            go(run, Losing(config))

    def test_a_real_race_with_inherited_weights_repeats(self, tmp_path: Path) -> None:
        few_frames()
        config = tiny_config(1, race=RacePlan(rungs=(1,), seeds=2, inherit=True), validation_frames=2)

        class Real(CountingExecutor):
            def outcome(self, job: TrainJob) -> Trained | TrainingFailed:
                return train_here(proxy, job).result

        proxy = Proxy(config, Observer())
        assert len(proxy.validation) == 2
        found = [finish(tmp_path / name, config, Real(config)) for name in ("one", "two")]
        assert found[0] == found[1]
        assert all(isinstance(trial.outcome, float) for trial in found[0][1].trials)

    def test_who_leads_only_after_more_seeds_has_its_weights_still(self, tmp_path: Path) -> None:
        config = tiny_config(1, race=RacePlan(seeds=2, seed_noise_percent=0.3))

        class Turning(CountingExecutor):
            """The leader of the first seed loses with the second; a rival that was no close call then leads."""

            def outcome(self, job: TrainJob) -> Trained | TrainingFailed:
                found = super().outcome(job)
                assert isinstance(found, Trained)
                luck = -60.0 if job.seed and job.architecture != config.start_architecture else 0.0
                scores = dataclasses.replace(found.scores, miou_percent=found.scores.miou_percent + luck)
                return dataclasses.replace(found, scores=scores)

        executor = Turning(config)
        steps = finish(tmp_path / "run", config, executor)
        again = {str(job.architecture) for job in executor.jobs if job.seed}
        assert 2 < len(again) < len(steps[1].trials)  # the control, the leader and its close rivals, not all
        assert str(steps[1].chosen.architecture) not in again
        assert (tmp_path / "run" / "checkpoints" / f"{steps[1].chosen.architecture}.safetensors").is_file()
