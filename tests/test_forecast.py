"""A search with a latency predictor: the run keeps a copy, resumes with it, and refuses one made for other conditions."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from latency.layers import LayerRow, write_table
from latency.predict import Predictor, fit
from lpsnet import NAMED, Architecture, UserError
from search.cli import run
from search.config import SearchConfig
from search.executor import current_environment
from search.forecast import check_predictor, forecaster, layers_of_architecture
from search.latency_space import random_architectures, relatives, table_convs
from search.run import Run
from search.runner import replay
from tests.tiny import TINY_OPTIONS, few_frames, fill_store, made_latency, tiny_config

SIZE = (32, 64)


@cache
def parts_of_a_predictor() -> tuple[list[LayerRow], Predictor]:
    """A predictor of `made_latency`, as well as sums over layers can tell it; made once, which takes seconds."""
    rows = [LayerRow(conv, 0.01 + conv.macs * 1e-7, True) for conv in table_convs(SIZE)]
    groups = relatives(random_architectures(12, 0, SIZE, max_macs=1e7, exclude=set()), 0, SIZE, max_macs=1e7)
    layers = [[layers_of_architecture(one, 19, SIZE) for one in group] for group in groups]
    return rows, fit(rows, layers, [[made_latency(one) for one in group] for group in groups])


def make_predictor(folder: Path, **conditions: object) -> Path:
    """Its files, for the conditions of the tiny search."""
    rows, predictor = parts_of_a_predictor()
    write_table(folder / "predictor_layers.csv", rows)
    here = dataclasses.asdict(current_environment(tiny_config()))
    at = {"environment": here, "input_size": SIZE, "backend": "ort", "device": "cpu", "threads": 1, "boundary": "scores"}
    predictor.save(folder / "predictor.json", folder / "predictor_layers.csv", **{**at, **conditions})
    return folder


def test_a_forecast_is_an_interval_around_the_prediction(tmp_path: Path) -> None:
    forecast = forecaster(make_predictor(tmp_path / "device"), 11, SIZE)
    for network in (NAMED["N0"], Architecture.parse("B1-1-1-4-4_C8-16-32-64-64_R6")):
        low, high = forecast({NAMED["N0"]: 2.0})(network)
        assert 0 < low <= high
        assert forecast({NAMED["N0"]: 4.0})(network) == pytest.approx((2 * low, 2 * high))


def test_a_run_keeps_its_own_predictor_measures_less_and_resumes_without_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few_frames()
    fill_store(tmp_path / "machine-store.sqlite", tiny_config())
    device = make_predictor(tmp_path / "device")
    plain, spared = tmp_path / "plain", tmp_path / "spared"
    assert run(["expand", "--steps", "1", *TINY_OPTIONS.split(), "--out", str(plain)]) == 0
    options = [*TINY_OPTIONS.split(), "--predictor", str(device), "--out", str(spared)]
    assert run(["expand", "--steps", "1", *options]) == 0
    shutil.rmtree(device)
    assert run(["resume", str(spared), "--steps", "2"]) == 0
    capsys.readouterr()
    with Run.read(plain) as one, Run.read(spared) as other:
        assert len(other.store.all()) > 0
        (step,) = [step for step in replay(other).steps if step.number == 1]
        (whole,) = [step for step in replay(one).steps if step.number == 1]
        scores = [found for found in one.store.all() if found.conditions.boundary == "scores"]
        assert set(step.excluded) or len({found.subject for found in scores}) <= len(step.trials) + 1
        assert all(trial.candidate.latency_ms == made_latency(trial.candidate.architecture) for trial in step.trials)
        assert len(whole.trials) >= len(step.trials) > 0
    assert {path.name for path in (spared / "predictor").iterdir()} == {"predictor_layers.csv", "predictor.json"}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"input_size": (64, 64)}, r"input_size: \[64, 64\], not \[32, 64\]"),
        ({"backend": "torch"}, "backend: 'torch', not 'ort'"),
        ({"threads": 2}, "threads: 2, not 1"),
        ({"boundary": "labels"}, "boundary: 'labels', not 'scores'"),
    ],
)
def test_a_predictor_for_other_conditions_is_refused(made: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = make_predictor(tmp_path / "device", **made)
    with pytest.raises(UserError, match=f"was made for other conditions .*{message}"):
        check_predictor(folder, tiny_config(), current_environment(tiny_config()))


def test_a_folder_without_a_predictor_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_frames()
    assert run(["expand", *TINY_OPTIONS.split(), "--predictor", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "layers.csv is missing; make one with lps-search latency-predictor" in capsys.readouterr().err


def test_a_network_of_other_blocks_is_not_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ["--table", str(make_predictor(tmp_path / "device"))]
    assert run(["predict-latency", "N0", *table]) == 0
    assert run(["predict-latency", f"{NAMED['N0']}_ghost", *table]) == 2
    assert "latencies are predicted for conv3x3 blocks only" in capsys.readouterr().err


def test_the_configuration_of_an_older_run_has_no_predictor() -> None:
    values = tiny_config().to_dict()
    del values["predictor"]
    assert SearchConfig.from_dict(json.loads(json.dumps(values))) == tiny_config()


def test_a_predictor_of_another_machine_is_refused(tmp_path: Path) -> None:
    folder, here = make_predictor(tmp_path / "device"), current_environment(tiny_config())
    check_predictor(folder, tiny_config(), here)
    with pytest.raises(UserError, match=r"was made in another environment .device: .*Orin"):
        check_predictor(folder, tiny_config(), dataclasses.replace(here, device="Orin"))
    values = json.loads((folder / "predictor.json").read_text())
    del values["environment"]
    (folder / "predictor.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="does not say where it was made"):
        check_predictor(folder, tiny_config(), here)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("predictor.json", lambda text: text[:50], "is no predictor"),
        ("predictor.json", lambda text: json.dumps({**json.loads(text), "weights": [1.0]}), "it needs 12 weights, none negative"),
        ("predictor.json", lambda text: json.dumps({**json.loads(text), "weights": [math.nan] * 12}), "it needs 12 weights, none negative"),
        ("predictor.json", lambda text: json.dumps({**json.loads(text), "weights": [-1.0] * 12}), "it needs 12 weights, none negative"),
        ("predictor.json", lambda text: json.dumps({**json.loads(text), "ratio_low": math.nan}), "ends of its intervals"),
        ("predictor.json", lambda text: json.dumps({**json.loads(text), "input_size": [0, 0]}), r"its input_size is \[0, 0\]"),
        ("predictor_layers.csv", lambda text: "\n".join(text.splitlines()[:100]), "is not the table it was fitted to"),
        ("predictor_layers.csv", lambda text: text.replace("True", "Tr", 1), "stable must be True or False, got 'Tr'"),
        ("predictor_layers.csv", lambda text: text.replace("0.0", "nan", 1), "is no layer table"),
        ("predictor_layers.csv", lambda text: text.splitlines()[0], "is not the table it was fitted to"),
    ],
)
def test_damaged_files_are_named_and_predict_nothing(
    name: str, spoil: Callable[[str], str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_predictor(tmp_path / "device")
    (folder / name).write_text(spoil((folder / name).read_text()))
    assert run(["predict-latency", "N0", "--table", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_what_lies_beyond_the_table_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_predictor(tmp_path / "device")
    assert run(["predict-latency", "B1-1-1-1-1_C16-32-64-512-512_R8", "--table", str(folder)]) == 0
    assert "not to be trusted: the table does not reach as far as conv3x3 512-512" in capsys.readouterr().out
    assert run(["predict-latency", "N0", "--table", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outside_table"] == ""
