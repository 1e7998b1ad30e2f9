"""The study of what a data set rewards: pairing by seed, the verdict on noise, and going on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lpsnet import UserError
from lpsnet.data import DataSpec
from lpsnet.recipe import TrainRecipe
from search.cli import run
from search.data_study import CONTROL, PROBES, StudyRow, gains, probes, read_rows, run_study
from tests.tiny import few_frames

RECIPE = TrainRecipe(iterations=1, batch_size=1, warmup_iterations=0, jitter=0.0)


def rows(control: list[float], depth: list[float]) -> list[StudyRow]:
    pairs = {CONTROL: control, "depth": depth, "width": control, "scale": control}
    return [StudyRow(name, name, seed, 5, miou, 1.0) for name, values in pairs.items() for seed, miou in enumerate(values)]


def test_each_probe_grows_one_dimension_of_the_control() -> None:
    found = probes()
    control = found[CONTROL]
    assert set(found) == {CONTROL, *PROBES}
    for dimension, field in (("depth", "depths"), ("width", "widths"), ("scale", "scales")):
        changed = {name for name in ("depths", "widths", "scales") if getattr(found[dimension], name) != getattr(control, name)}
        assert changed == {field}


def test_gains_are_paired_by_seed() -> None:
    (depth, width, _) = gains(rows([10.0, 20.0, 30.0], [13.0, 22.0, 34.0]))
    assert depth.gain_mean == pytest.approx(3.0) and depth.gain_min == pytest.approx(2.0)
    margin = 4.303 * 1.0 / 3**0.5  # Student's quantile for two degrees of freedom, from a printed table
    assert (depth.gain_low, depth.gain_high) == pytest.approx((3 - margin, 3 + margin), abs=1e-3)
    assert depth.beyond_noise and not width.beyond_noise


def test_a_gain_that_one_seed_contradicts_or_that_scatters_is_not_beyond_noise() -> None:
    assert not gains(rows([10.0, 10.0, 10.0], [19.0, 18.0, 9.9]))[0].beyond_noise
    assert not gains(rows([10.0, 10.0, 10.0], [10.1, 14.0, 18.0]))[0].beyond_noise
    with pytest.raises(ValueError, match="at least 2 seeds"):
        gains(rows([10.0], [11.0]))


def test_a_study_is_not_repeated_where_it_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_frames()
    spec = DataSpec.parse("synthetic")
    first = run_study(spec, (32, 64), RECIPE, 1, tmp_path)
    assert len(first) == 4 and read_rows(tmp_path / "study.csv") == first
    kept = (tmp_path / "study.csv").read_text().splitlines()
    (tmp_path / "study.csv").write_text("\n".join(kept[:3]) + "\n")
    assert [row.miou_percent for row in run_study(spec, (32, 64), RECIPE, 1, tmp_path)] == [row.miou_percent for row in first]

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("lpsnet.training.train", refuse)
    assert len(run_study(spec, (32, 64), RECIPE, 1, tmp_path)) == 4


def test_the_verb_writes_a_summary_with_its_provenance_and_refuses_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_frames()
    options = [
        "data",
        "study",
        "synthetic",
        "--input",
        "32x64",
        "--iterations",
        "1",
        "--batch",
        "1",
        "--seeds",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert run(options) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [gain["dimension"] for gain in summary["gains"]] == ["depth", "width", "scale"]
    assert summary["packages"]["torch"] and summary["recipe"]["iterations"] == 1
    (tmp_path / "study.csv").write_text("a,b\n1,2\n")
    assert run(options) == 2
    assert "is no study" in capsys.readouterr().err
    with pytest.raises(UserError, match="is no study"):
        read_rows(tmp_path / "study.csv")
