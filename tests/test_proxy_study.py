"""The study of the proxy: what it trains, how it accrues, what it reports, and the verb over all of it."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from lpsnet.errors import UserError
from lpsnet.recipe import GAINED, proxy_recipe
from search.cli import run
from search.observer import Observer
from search.pool import Pool
from search.proxy_study import FULL_SEED, ProxyStudy, base_config, default_setting, raced_rows, report_rows, run_study, study_of
from search.step import Step
from search.training_table import Row, Setting, Task, TrainingTable, alone_in, config_for, open_table, parent_setting, train_tasks
from tests.processes import quick_workers
from tests.test_runner import CountingExecutor, finish
from tests.tiny import tiny_config, write_camvid


@pytest.fixture(autouse=True)
def forked() -> Iterator[None]:
    with quick_workers():
        yield


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    config = tiny_config(2)
    return finish(tmp_path_factory.mktemp("run") / "run", config, CountingExecutor(config))


class TestSettings:
    @pytest.mark.parametrize(
        "name", ["scratch-400", "plain-50", "inherit-200", "scratch-small2-400", "identity-rate4-300@100", "plain-small2-rate2-frames9-50"]
    )
    def test_names_are_read_back(self, name: str) -> None:
        assert Setting.parse(name).name == name

    @pytest.mark.parametrize(
        "name",
        ["scratch", "scratch-0", "fast-400", "scratch-400@x", "scratch-big-400", "plain-rate0-4", "plain-rate-4", "plain-frames0-4", ""],
    )
    def test_other_names_are_refused(self, name: str) -> None:
        with pytest.raises(UserError, match="a setting is scratch-N"):
            Setting.parse(name)

    def test_a_setting_decides_how_its_trainings_begin(self) -> None:
        base = tiny_config(1)
        found = {name: config_for(Setting.parse(name), base).proxy for name in ("scratch-4", "identity-4", "plain-4")}
        assert {name: (proxy.branches, proxy.identity_start) for name, proxy in found.items()} == {
            "scratch-4": (True, False),
            "identity-4": (True, True),
            "plain-4": (False, False),
        }
        assert config_for(Setting.parse("identity-rate4-4"), base).proxy.learning_rate == 4 * base.proxy.learning_rate


class TestTheTable:
    ROW = Row(architecture="B1-1-1-1-1_C4-8-16-32-32_R4", setting="scratch-4", seed=1, miou_percent=31.25, seconds=2.0)

    def test_rows_accrue_and_a_torn_line_is_none(self, tmp_path: Path) -> None:
        table = TrainingTable(tmp_path / "trainings.csv")
        table.add(self.ROW)
        with table.path.open("a") as file:
            file.write("B1-1-1-1-1_C4-8-16")
        again = TrainingTable(table.path)
        assert list(again.rows.values()) == [self.ROW]
        failed = Row(
            architecture="B1-2-1-1-1_C4-8-16-32-32_R4", setting="scratch-4", seed=1, miou_percent=None, seconds=1.0, failure="nan, lost"
        )
        again.add(failed)
        assert list(TrainingTable(table.path).rows.values()) == [self.ROW, failed]
        assert again.score(failed.architecture, "scratch-4", 1) is None and again.score(self.ROW.architecture, "scratch-4", 1) == 31.25

    def test_trainings_of_another_recipe_are_refused(self, tmp_path: Path) -> None:
        config = tiny_config(1)
        open_table(tmp_path / "out", config).add(self.ROW)
        longer = dataclasses.replace(config, proxy=dataclasses.replace(config.proxy, iterations=99, branches=False), threads=7)
        assert list(open_table(tmp_path / "out", longer).rows.values()) == [self.ROW], "iterations and branches are the settings' own"
        other = dataclasses.replace(config, proxy=dataclasses.replace(config.proxy, optimizer="adamw"))
        with pytest.raises(UserError, match=r"of another kind \(optimizer: 'sgd', not 'adamw'\)"):
            open_table(tmp_path / "out", other)
        (tmp_path / "out" / "recipe.json").write_text("{")
        with pytest.raises(UserError, match="is damaged"):
            open_table(tmp_path / "out", config)

    def test_a_folder_without_a_row_takes_another_recipe(self, tmp_path: Path) -> None:
        config = tiny_config(1)
        open_table(tmp_path / "out", config)
        other = dataclasses.replace(config, proxy=dataclasses.replace(config.proxy, optimizer="adamw"))
        open_table(tmp_path / "out", other).add(self.ROW)
        with pytest.raises(UserError, match=r"of another kind \(optimizer: 'adamw', not 'sgd'\)"):
            open_table(tmp_path / "out", config)

    @pytest.mark.parametrize("score", ["200", "-1", "nan", "inf"])
    def test_a_score_that_cannot_be_is_refused(self, score: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(f"architecture,setting,seed,parent,miou_percent,seconds,failure\nB1,scratch-4,0,,{score},1,\n")
        with pytest.raises(UserError, match=f"an mIoU of {score} percent"):
            TrainingTable(tmp_path / "t.csv")

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "trainings.csv").write_text("a,b\n1,2\n")
        with pytest.raises(UserError, match="is no table of trainings"):
            TrainingTable(tmp_path / "trainings.csv")


def filled(path: Path, study: ProxyStudy, score: Callable[[Task], float | None]) -> TrainingTable:
    """A table as if a study had trained all it wants, with scores from a formula."""
    table = TrainingTable(path)
    for task in study.tasks():
        if task not in table.rows:
            table.add(
                Row(
                    architecture=task.architecture,
                    setting=task.setting,
                    seed=task.seed,
                    parent=task.parent,
                    miou_percent=score(task),
                    seconds=1.0,
                )
            )
    return table


def true_score(task: Task) -> float:
    """Grows with the network; every seed has its own luck, the same for all networks."""
    numbers = [int(number) for number in task.architecture.replace("_", "-").replace("C", "").replace("B", "").replace("R", "").split("-")]
    return sum(numbers) / 10 + 0.5 * (task.seed % 3)


class TestTheReport:
    def test_a_cheap_training_that_agrees_has_no_regret_and_is_chosen_if_it_is_cheapest(self, steps: list[Step], tmp_path: Path) -> None:
        study = study_of(steps, (), 50, 2, ["scratch-4", "plain-4"], 2)
        table = filled(tmp_path / "t.csv", study, lambda task: -true_score(task) if "plain" in task.setting else true_score(task))
        rows = {(row["setting"], row["step"]): row for row in report_rows(study, table)}
        assert {step for _, step in rows} == {"1", "2", "all"}
        good, bad = rows["scratch-4", "1"], rows["plain-4", "1"]
        assert good["kendall"] == pytest.approx(1) and good["regret"] == 0
        assert bad["kendall"] == pytest.approx(-1) and bad["regret"] > 0
        alike = rows["scratch-50", "1"]  # one full seed against the other
        assert alike["kendall"] == pytest.approx(1) and alike["regret"] == 0 and (alike["full_seeds"], alike["seeds"]) == (1, 1)
        assert rows["scratch-4", "all"]["spearman"] > 0.99 and rows["plain-4", "all"]["spearman"] < -0.99

    def test_what_has_not_accrued_is_not_reported(self, steps: list[Step], tmp_path: Path) -> None:
        study = study_of(steps, (1,), 50, 1, ["scratch-4"], 1)
        assert report_rows(study, TrainingTable(tmp_path / "t.csv")) == []
        one_lost = str(steps[1].trials[0].candidate.architecture)
        table = filled(tmp_path / "t.csv", study, lambda task: None if task.architecture == one_lost else true_score(task))
        assert report_rows(study, table) == []

    def test_the_default_is_the_cheapest_that_ranks_and_is_within_a_seed_deviation_on_every_step(self) -> None:
        def row(setting: str, step: str, sd: float, iterations: float, tau: float = 0.2) -> dict[str, object]:
            return {"setting": setting, "step": step, "regret": sd, "regret_sd": sd, "kendall_low": tau, "iterations": iterations}

        rows = [row("a", "1", 0.5, 10), row("a", "2", 5.0, 10), row("b", "1", 1.0, 4), row("c", "1", 1.1, 1), row("b", "all", 9.0, 4)]
        rows += [row("lucky", "1", 0.0, 1, tau=-0.1), row("alike", "1", 0.0, 1, tau=math.nan)]
        assert default_setting(rows, [], (1,)) == "b"
        assert default_setting(rows, [], (1, 2)) == "b"  # judged where it has been trained
        assert default_setting(rows, [], (2,)) is None
        raced = {"a": 3, "lucky": 1}
        races = [{**row(f"race-{of}", "", 0.0, iterations), "trainings": of, "step": 1} for of, iterations in raced.items()]
        assert default_setting(rows, races, (1,)) == "race-a"

    def test_a_race_is_played_with_the_scores_that_are_there(self, steps: list[Step], tmp_path: Path) -> None:
        study = study_of(steps, (1,), 50, 1, ["scratch-40", "scratch-40@10"], 1)
        table = filled(tmp_path / "t.csv", study, lambda task: 20 * true_score(task))
        (row,) = raced_rows(study, table)
        assert row["setting"] == "race-scratch-40@10" and row["regret"] == 0
        assert 0.25 * 40 / 50 < row["share_of_full"] < 40 / 50
        again = study_of(steps, (1,), 50, 1, ["scratch-40"], 2)
        (row,) = raced_rows(again, filled(tmp_path / "u.csv", again, lambda task: 20 * true_score(task)))
        assert row["setting"] == "race-scratch-40x2" and row["plays"] == 2 and row["regret"] == 0
        assert row["share_of_full"] > 40 / 50  # a second seed for the close calls

    def test_a_step_that_is_not_there(self, steps: list[Step]) -> None:
        with pytest.raises(UserError, match="the run has no step 7; there are: 1, 2"):
            study_of(steps, (7,), 50, 1, ["scratch-4"], 1)


def test_it_trains_what_is_missing_and_inherits_from_kept_weights(steps: list[Step], tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid", {"train": 4, "val": 2}, (64, 96))
    config = base_config(tiny_config(data=f"camvid:{root}", height=64, width=96), parallel=1)
    one = steps[1].trials[3].candidate.architecture
    parent = str(config.start_architecture)
    tasks = [Task(architecture=parent, setting="scratch-2", seed=0)]
    tasks += [
        Task(architecture=str(one), setting=name, seed=0) for name in ("scratch-2@1", "scratch-2", "scratch-small2-2", "scratch-frames1-2")
    ]
    tasks += [Task(architecture=str(one), setting="inherit-2", seed=0, parent=parent)]
    pool = Pool(1)
    try:
        table = TrainingTable(tmp_path / "out" / "trainings.csv")
        train_tasks(table, tasks, config, pool, Observer(), keep=tmp_path / "out" / "weights")
        seen = dict(table.rows)
        train_tasks(table, tasks, config, pool, Observer(), keep=tmp_path / "out" / "weights")
        assert set(seen) == set(tasks) and table.rows == seen
        shutil.rmtree(tmp_path / "out" / "weights")  # they are not committed with the table
        again = Task(architecture=str(one), setting="inherit-2", seed=1, parent=parent)
        train_tasks(table, [*tasks, again], config, pool, Observer(), keep=tmp_path / "out" / "weights")
    finally:
        pool.close()
    assert {task: row for task, row in table.rows.items() if task != again} == seen and table.rows[again].miou_percent is not None
    assert all(row.miou_percent is not None for row in seen.values())
    assert len({row.miou_percent for row in seen.values()}) == len(tasks)
    assert not list((tmp_path / "out" / "weights").glob("*.pt"))


def test_the_verb_reports_what_has_accrued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(2)
    steps = finish(tmp_path / "run", config, CountingExecutor(config))
    study = study_of(steps, (), 50, 2, ["scratch-4", "inherit-4"], 1)
    assert {task.seed for task in study.tasks()} == {0, FULL_SEED, FULL_SEED + 1}
    filled(tmp_path / "out" / "trainings.csv", study, lambda task: 50 - true_score(task) if task.parent else true_score(task))
    open_table(tmp_path / "out", base_config(config))
    arguments = ["validate-proxy", str(tmp_path / "run"), "--full", "50", "--settings", "scratch-4,inherit-4", "--seeds", "1"]
    assert run([*arguments, "--out", str(tmp_path / "out"), "--report-only", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["chosen"] == "scratch-4" and told["chosen_on"] == [1] and told["judged_on"] == [2]
    assert set(pd.read_csv(tmp_path / "out" / "ranking.csv")["step"]) == {"1", "2", "all"}
    assert (tmp_path / "out" / "ranking.png").stat().st_size > 5000
    assert run([*arguments, "--out", str(tmp_path / "out"), "--report-only"]) == 0
    assert "chosen on steps 1" in capsys.readouterr().out
    assert run([*arguments, "--out", str(tmp_path / "out"), "--report-only", "--choose-on", "none"]) == 0
    assert "nothing is chosen here, only judged" in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "summary.json").read_text(), parse_constant=pytest.fail)
    assert told["chosen"] is None and told["judged_on"] == [1, 2]
    assert all(row["seed_noise"] is None for row in told["rows"])  # one seed does not tell
    for options, why in (
        (["--choose-on", "3"], "--choose-on names step 3, which is not studied"),
        (["--set", "optimizer=adamw"], "holds trainings of another kind (optimizer: 'sgd', not 'adamw')"),
        (["--settings", "scratch-9"], "has nothing to report: no step has all its candidates trained fully and by one of the settings"),
        (["--settings", "scratch-9@9"], "a rung lies before the end"),
        (["--out", str(tmp_path / "empty")], "holds no trainings to report"),
    ):
        assert run([*arguments, "--out", str(tmp_path / "out"), "--report-only", *options]) == 2
        assert why in capsys.readouterr().err
    with alone_in(tmp_path / "out"):
        assert run([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "is in use by another process" in capsys.readouterr().err


def test_a_whole_study_on_a_tiny_run(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid", {"train": 4, "val": 2}, (64, 96))
    config = tiny_config(1, data=f"camvid:{root}", height=64, width=96)
    steps = finish(tmp_path / "run", config, CountingExecutor(config))
    study = study_of(steps, (1,), 3, 1, ["inherit-2"], 1)
    table = run_study(study, base_config(config, parallel=1), tmp_path / "out", Observer())
    assert set(study.tasks()) == set(table.rows)
    assert {row["step"] for row in report_rows(study, table)} == {"1", "all"}


def test_a_study_trains_at_the_rate_of_a_full_training() -> None:
    config = tiny_config(1, proxy=proxy_recipe())
    assert base_config(config).proxy.learning_rate == GAINED["learning_rate"]
    assert base_config(config, ["learning_rate=0.5"]).proxy.learning_rate == 0.5
    assert config_for(Setting.parse("identity-rate2-200"), base_config(config)).proxy == config.proxy, (
        "the default proxy is among the settings"
    )


@pytest.mark.parametrize("kind", ["inherit-2", "inherit-rate2-2", "inherit-small2-2"])
def test_what_inherits_starts_from_its_own_parent_whatever_else_is_trained(kind: str, steps: list[Step], tmp_path: Path) -> None:
    config = base_config(tiny_config(1))
    parent = str(steps[0].chosen.architecture)
    child = Task(architecture=str(steps[1].trials[0].candidate.architecture), setting=kind, seed=0, parent=parent)
    found = []
    for others in ((), ("identity-2", "scratch-rate4-2", "scratch-small2-2")):
        origin = parent_setting(Setting.parse(kind))
        tasks = [Task(architecture=parent, setting=name, seed=0) for name in dict.fromkeys((origin, *others))]
        out, pool = tmp_path / str(len(others)), Pool(1)
        table = open_table(out, config)
        try:
            train_tasks(table, [*tasks, child], config, pool, Observer(), keep=out / "weights")
        finally:
            pool.close()
        found.append(table.rows[child].miou_percent)
        assert [path.name for path in (out / "weights").iterdir()] == [f"{parent}_{origin}_seed0.safetensors"]
    assert found[0] is not None and found[0] == found[1]
