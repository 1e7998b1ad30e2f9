"""The simulated search and the cost model: that they simulate and reckon what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from lpsnet.architecture import TABLE_4
from search.run import Run
from search.runner import replay

RESULTS = Path(__file__).resolve().parents[1] / "results"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_simulated_search_is_a_run_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = script("scale_simulation")
    monkeypatch.setattr(simulation, "EVERY", 10)
    rows = simulation.simulate(tmp_path / "run", 25)
    assert [row["candidates"] >= least for row, least in zip(rows, (10, 20, 25), strict=False)] == [True] * len(rows)
    assert rows[-1]["candidates"] >= 25 and all(row["driver_ms"] > 0 and row["replay_s"] > 0 for row in rows)
    with Run.read(tmp_path / "run") as run:
        steps = replay(run).steps
    assert sum(len(step.trials) for step in steps) == rows[-1]["candidates"] and len(steps) == rows[-1]["steps"]


def test_more_workers_than_trainings_of_a_step_do_not_help() -> None:
    model = script("scale_model")
    one, ten, many = (model.row(workers, 1.0, 10.0, 0.01, 50.0, 1.0) for workers in (1, 10, 64))
    assert float(one["speedup"]) == pytest.approx(1.0) and float(ten["training_h"]) == pytest.approx(
        float(one["training_h"]) / 10, rel=1e-3
    )
    assert many["total_h"] == ten["total_h"] and float(many["busy"]) == pytest.approx(10 / 64, abs=0.01)
    assert float(one["latency_h"]) == pytest.approx(14 * 50 / 3600, rel=1e-3)
    assert float(model.row(1, 100.0, 10.0, 0.01, 50.0, 1.0)["training_h"]) == pytest.approx(float(one["training_h"]) / 100, rel=1e-3)


def test_the_fit_finds_what_a_training_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = script("scale_model")
    networks = TABLE_4[:4]
    rows = [f"{network},{model.SETTING},0,,40,{7 + 0.02 * model.work(network, 11, model.CAMVID, 101)}," for network in networks]
    (tmp_path / "proxy").mkdir()
    header = "architecture,setting,seed,parent,miou_percent,seconds,failure"
    (tmp_path / "proxy" / "trainings.csv").write_text("\n".join([header, *rows]) + "\n")
    monkeypatch.setattr(model, "RESULTS", tmp_path)
    assert model.trained() == pytest.approx((7.0, 0.02))
