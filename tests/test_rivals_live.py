"""A rival search for real, and the chain of a run that it is held against."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from lpsnet import Architecture
from lpsnet.errors import TrainingFailed, UserError
from lpsnet.training import Trained
from search.cli import run
from search.problem import Seen
from search.proxy import TrainJob
from search.rivals_live import Chain, against, busy_seconds, chain_of, front_of
from tests.backends import steady
from tests.test_runner import CountingExecutor, finish
from tests.tiny import tiny_config, write_camvid


@pytest.fixture(autouse=True)
def one_attempt() -> Iterator[None]:
    with steady():
        yield


class Untrained:
    """Fails each training, and counts them."""

    asked = 0

    def __call__(self, job: TrainJob) -> Trained:
        self.asked += 1
        raise TrainingFailed("the loss is nan")


def test_a_live_search_measures_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = itertools.count()  # every measurement and training takes a second of it
    monkeypatch.setattr("search.rivals_live.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    root = write_camvid(tmp_path / "camvid", {"train": 4, "val": 2}, (64, 96))
    arguments = ["rival", "--sampler", "random", "--live", f"camvid:{root}", "--hours", "0.001", "--iterations", "1"]
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "the front of" in capsys.readouterr().out
    frame = pd.read_csv(tmp_path / "out" / "live_random_0.csv")
    assert list(frame["spent_s"]) == [2.0, 4.0] and frame["front"].any() and (frame["latency_ms"] > 0).all()
    answers = tmp_path / "out" / "live_random_0_answers.csv"
    whole = answers.read_text()
    answers.write_text("".join(whole.splitlines(keepends=True)[:3]) + "miou,B1-1")  # killed after the first training, in the midst of a row
    monkeypatch.setattr("search.proxy.Proxy.train", untrained := Untrained())
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert untrained.asked == 1 and list(pd.read_csv(tmp_path / "out" / "live_random_0.csv")["spent_s"]) == [2.0, 4.0]
    assert run([*arguments, "--batch", "2", "--out", str(tmp_path / "out")]) == 2
    assert "is of another search, or was made elsewhere; name another folder with --out" in capsys.readouterr().err


def test_a_live_search_is_held_against_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_camvid(tmp_path / "camvid", {"train": 4, "val": 2}, (64, 96))
    config = tiny_config(1, data=f"camvid:{root}", height=64, width=96)
    steps = finish(tmp_path / "run", config, CountingExecutor(config))
    chain = chain_of(tmp_path / "run")
    assert {seen.architecture for seen in chain.seen} == {trial.candidate.architecture for step in steps for trial in step.trials}
    assert chain.slowest_ms == steps[1].chosen.latency_ms and 0 < chain.seen[0].spent_s <= chain.spent_s < 60
    long = dataclasses.replace(chain, spent_s=4.0, seen=tuple(dataclasses.replace(seen, spent_s=1.0) for seen in chain.seen))
    monkeypatch.setattr("search.rivals_live.chain_of", lambda path: long)
    clock = itertools.count()
    monkeypatch.setattr("search.rivals_live.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    arguments = [
        "rival",
        "--sampler",
        "tpe",
        "--live",
        f"camvid:{root}",
        "--against",
        str(tmp_path / "run"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert run(arguments) == 0, capsys.readouterr().err
    assert "held against the chain" in capsys.readouterr().out
    assert run(["rival", "--against", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "goes with --live" in capsys.readouterr().err
    for option in (["--hours", "2"], ["--set", "learning_rate=1"], ["--batch", "2"]):
        assert run([*arguments, *option]) == 2
        assert f"{option[0]} does not go with --against" in capsys.readouterr().err
    with pytest.raises(UserError, match="the run searched on camvid, so a live search on synthetic does not compare"):
        chain.config_on("synthetic", 0)
    held = pd.read_csv(tmp_path / "out" / "live_tpe_0_against.csv")
    assert list(held["sampler"]) == ["greedy"] * 3 + ["tpe"] * 3 and list(held["spent_s"]) == [1.0, 2.0, 4.0] * 2
    assert list(held["networks"])[:3] == [len(chain.seen)] * 3 and held["hypervolume"][2] > 0
    fronts = pd.read_csv(tmp_path / "out" / "live_tpe_0_fronts.csv")
    assert fronts["fresh_miou_percent"].between(0, 100).all() and (fronts["fresh_latency_ms"] > 0).all()
    assert (tmp_path / "out" / "live_tpe_0.png").stat().st_size > 5000
    assert fronts[fronts["sampler"] == "greedy"]["latency_ms"].is_monotonic_increasing
    assert held["fresh_hypervolume"].isna().tolist() == [True, True, False] * 2
    answers = pd.read_csv(tmp_path / "out" / "live_tpe_0_answers.csv")
    assert {"miou 1000", "miou 1001", "latency, round 3"} <= set(answers["kind"])


def test_fronts_are_judged_by_scores_that_no_search_had() -> None:
    names = [Architecture.parse(f"B1-1-1-{depth}-{depth}_C4-8-16-32-32_R4") for depth in (1, 2, 3, 4)]
    seen = tuple(Seen(name, float(latency), score, 1.0) for name, latency, score in zip(names, (1, 2, 4, 8), (30, 40, 39, 50), strict=True))
    chain = Chain(tiny_config(1), spent_s=1.0, slowest_ms=4.0, seen=seen)
    assert front_of(chain, seen) == list(seen[:2])  # the third is worse, the fourth too slow to count
    late = [dataclasses.replace(seen[1], spent_s=2.0)]
    assert front_of(chain, late) == []
    held = against(chain, "random", late, {names[0]: (1.0, 25.0), names[1]: (2.0, 35.0)})
    assert [row["hypervolume"] for row in held[:3]] == pytest.approx([0, 0, 15 * math.log(2) + 25 * math.log(2)])
    assert [row["fresh_hypervolume"] for row in held] == [None, None, pytest.approx(10 * math.log(2) + 20 * math.log(2)), None, None, 0.0]


def test_a_run_without_a_step_is_nothing_to_be_held_against(tmp_path: Path) -> None:
    config = tiny_config(0)
    finish(tmp_path / "run", config, CountingExecutor(config))
    with pytest.raises(UserError, match="has no step to be held against; name a run of lps-search expand"):
        chain_of(tmp_path / "run")


def at(minutes: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)


def test_a_night_between_two_halves_of_a_run_is_no_work() -> None:
    spent = busy_seconds([(at(0), at(0)), (at(1), at(3)), (at(2), at(20)), (at(620), at(621)), (at(625), at(625))])
    assert [spent(at(minutes)) for minutes in (0, 3, 20, 620, 625)] == [0, 180, 1200, 1200, 1500]  # a training of 18 minutes is work


def test_a_live_search_that_could_not_begin_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for sampler, data in (("tpe", f"camvid:{tmp_path / 'nowhere'}"), ("nope", "synthetic")):
        assert run(["rival", "--sampler", sampler, "--live", data, "--out", str(tmp_path / "out")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "out").exists()
