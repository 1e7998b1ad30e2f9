"""`family`, `train --from` and `package`: what a run remembers, what its picks become, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from latency.engine import FLAVOURS
from latency.export import seeded_input
from lpsnet import LPSNet, load, save
from lpsnet.checkpoint import read_metadata
from lpsnet.errors import UserError
from lpsnet.hub import HubNetwork
from search import package as packaging
from search.cli import run as cli
from search.executor import current_environment
from search.package import CARD, CHECKPOINT, ENGINE, FULL, GRAPH, MANIFEST, SHORT
from search.picks import read_picks, remember_training, training_folder
from search.run import Run, RunError
from search.runner import replay
from search.step import Step
from search.training_folder import held
from tests.test_runner import CLASSES, CountingExecutor, finish
from tests.test_watch import contents
from tests.tiny import few_frames, tiny_config

QUICK = ["--set=iterations=2", "--set=batch_size=2", "--set=warmup_iterations=1", "--threads=1", "--device=cpu", "--validations=0"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    """A finished run of two steps, and its chain."""
    path, config = tmp_path_factory.mktemp("family") / "run", tiny_config(2)
    return path, finish(path, config, CountingExecutor(config))


@pytest.fixture
def run(made: tuple[Path, list[Step]], tmp_path: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def chain(made: tuple[Path, list[Step]]) -> list[Step]:
    return made[1]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a verb with --json and returns what it prints."""

    def call(*arguments: object) -> Any:
        assert cli([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a verb that must end with exit code 2 and one line, which it returns."""

    def call(*arguments: object) -> str:
        assert cli(list(map(str, arguments))) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        return line

    return call


Told = Callable[..., Any]
Refused = Callable[..., str]


# --- family ---


def test_the_table_holds_the_chain_and_its_picks_with_the_cost_of_another_step(run: Path, chain: list[Step], told: Told) -> None:
    family = told("family", run)
    assert family["picks"] == {} and [row["architecture"] for row in family["family"]] == [str(step.chosen.architecture) for step in chain]
    assert all(row["latency_ms"] == step.chosen.latency_ms for row, step in zip(family["family"], chain, strict=True))
    assert all(row["memory_bytes"] is None and not row["memory_failure"] for row in family["family"])
    family = told("family", run, "--pick", "S=0", "M=1", "L=2")
    assert [row["picks"] for row in family["family"]] == [["S"], ["M"], ["L"]]
    medium, members = family["picks"]["M"], [step.chosen for step in chain]
    assert medium["architecture"] == str(members[1].architecture) and medium["why"] == "the network of step 1"
    for name, other in (("step_down", 0), ("step_up", 2)):
        assert medium[name]["step"] == other
        assert medium[name]["cost_ms"] == members[other].latency_ms - members[1].latency_ms
        assert medium[name]["gain_percent"] == members[other].miou_percent - members[1].miou_percent
    assert family["picks"]["S"]["step_down"] is None and family["picks"]["L"]["step_up"] is None
    assert told("family", run) == family, "they are remembered"


def test_every_way_of_picking_leads_to_a_network_that_keeps_its_word(run: Path, chain: list[Step], told: Told) -> None:
    slow, fast = chain[2].chosen, chain[0].chosen
    budget, rate, percent = slow.latency_ms - 1e-6, 999.9 / fast.latency_ms, fast.miou_percent + 0.01
    family = told("family", run, "--budget-ms", budget, f"big={2 * slow.latency_ms}", "--fps", f"quick={rate}", "--miou", percent, "--knee")
    picks = {name: pick["step"] for name, pick in family["picks"].items()}
    assert picks == {f"{budget:g}ms": 1, "big": 2, "quick": 0, f"{percent:g}miou": 1, "knee": picks["knee"]}
    family = told("family", run, "--pick", "big=0", "--forget", "knee", "--forget", "quick")
    assert {name: pick["step"] for name, pick in family["picks"].items()} == {f"{budget:g}ms": 1, "big": 0, f"{percent:g}miou": 1}


def test_the_printed_table_says_what_a_step_costs(run: Path, chain: list[Step], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["family", str(run), "--pick", "M=1"]) == 0
    text = capsys.readouterr().out
    assert all(str(step.chosen.architecture) in text for step in chain) and "memory is not measured yet" in text
    up = chain[2].chosen.latency_ms - chain[1].chosen.latency_ms
    (line,) = [line for line in text.splitlines() if line.startswith("M: step 1")]
    assert f"; a step up: {up:+.3f} ms" in line and "a step down: -" in line
    assert cli(["family", str(run), "--boundary", "labels"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("M: step 1")]
    assert "ms to the scores" in line and f"; to the labels, a step up: {up:+.3f} ms" in line


def test_latencies_at_the_labels_pick_there(run: Path, chain: list[Step], told: Told) -> None:
    assert [row["latency_ms"] for row in told("family", run, "--boundary", "labels")["family"]] == [s.chosen.latency_ms for s in chain]
    family = told("family", run, "--boundary", "logits", "--pick", "S=1")
    assert {row["latency_ms"] for row in family["family"]} == {None} and family["picks"]["S"]["latency_ms"] is None
    assert family["picks"]["S"]["step_up"]["cost_ms"] is None


def test_what_cannot_be_had_is_one_line_that_says_the_nearest_and_remembers_nothing(run: Path, chain: list[Step], refused: Refused) -> None:
    fastest, best = chain[0].chosen, chain[2].chosen
    assert f"within 0.001 ms; the nearest is step 0 with {fastest.latency_ms:.4g} ms" in refused("family", run, "--budget-ms", 0.001)
    assert "at 1e+06 frames/s (0.001 ms); the nearest is step 0" in refused("family", run, "--fps", "1000000", "--pick", "S=1")
    assert f"no network has 99 % mIoU; the nearest is step 2 with {best.miou_percent:.2f} %" in refused("family", run, "--miou", "99")
    assert "no step 7; the nearest is step 2" in refused("family", run, "--pick", "S=0", "M=7")
    assert "--pick takes STEP or NAME=STEP" in refused("family", run, "--pick", "S")
    assert "two picks would be named S" in refused("family", run, "--pick", "S=0", "S=1")
    assert "there are: scores, logits, labels" in refused("family", run, "--boundary", "pixels")
    assert "no latency of the family is known" in refused("family", run, "--boundary", "logits", "--budget-ms", "5")
    assert "has no pick 'S'; nothing is picked yet" in refused("family", run, "--forget", "S")
    assert not (run / "picks.json").exists()


def test_damaged_picks_and_picks_of_another_chain_are_told(run: Path, told: Told, refused: Refused) -> None:
    told("family", run, "--pick", "S=1")
    file = run / "picks.json"
    sound = json.loads(file.read_text())
    other = {**sound, "picked": {"S": {**sound["picked"]["S"], "architecture": "B1-1-1-1-1_C4-8-16-32-32_R4"}}}
    file.write_text(json.dumps(other))
    line = refused("family", run)
    assert "pick S" in line and "which is now" in line and "pick it again" in line
    for values in (
        {**sound, "format": 2},
        {**sound, "picked": {"../S": sound["picked"]["S"]}},
        {**sound, "picked": {"S": {**sound["picked"]["S"], "architecture": "../../etc"}}},
        {**sound, "picked": {"S": {**sound["picked"]["S"], "step": "one"}}},
        {**sound, "picked": {"S": {"step": 1}}},
        {**sound, "picked": ["S"]},
        {**sound, "trainings": {"..": "x"}},
        {},
        [],
    ):
        file.write_text(json.dumps(values))
        assert "picks.json" in refused("family", run)


def test_a_run_that_has_decided_nothing_has_no_family(tmp_path: Path, refused: Refused) -> None:
    Run.start(tmp_path / "run", tiny_config(1), CLASSES, current_environment(tiny_config(1))).close()
    assert "has decided nothing yet" in refused("family", tmp_path / "run")
    assert "lps-search expand --out" in refused("family", tmp_path / "nothing")


def test_memory_is_measured_on_demand_once_and_only_where_the_latencies_were(
    tmp_path: Path, told: Told, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(0)
    finish(tmp_path / "run", config, CountingExecutor(config))
    run = tmp_path / "run"
    (row,) = told("family", run, "--memory")["family"]
    assert 100_000 < row["memory_bytes"] < 2_000_000_000 and not row["memory_failure"]
    record = (run / "memory" / "record.jsonl").read_bytes()
    assert told("family", run, "--memory")["family"] == [row] == told("family", run)["family"]
    assert (run / "memory" / "record.jsonl").read_bytes() == record, "it is not measured twice"
    assert told("family", run, "--boundary", "labels")["family"][0]["memory_bytes"] is None, "another boundary is another figure"
    elsewhere = dataclasses.replace(current_environment(config), device="Another CPU")
    monkeypatch.setattr("search.family_memory.current_environment", lambda config: elsewhere)
    line = refused("family", run, "--memory")
    assert "memory is measured where the latencies of" in line and "not 'Another CPU'" in line


# --- train --from ---


def test_a_pick_is_trained_in_full_at_the_size_of_its_latency_and_packaged_from_there(
    run: Path, chain: list[Step], told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    few_frames()
    told("family", run, "--pick", "S=0", "M=1")
    text = str(chain[1].chosen.architecture)
    assert cli(["train", "--from", str(run), "--pick", "M", *QUICK, "--seed", "5"]) == 0
    out = run / "trainings" / text
    captured = capsys.readouterr()
    assert "mIoU" in captured.out and "by recipe camvid on synthetic, seed 5" in captured.err
    trained = read_metadata(out / f"{text}.safetensors")
    assert trained.architecture == text and trained.input_size == (32, 64) and trained.provenance["seed"] == 5
    assert trained.recipe["optimizer"] == "adamw" and (trained.recipe["crop_height"], trained.recipe["crop_width"]) == (28, 55)
    assert read_picks(run).trainings == {text: f"trainings/{text}"}
    manifest = told("package", run, "--no-engine")
    small, medium = manifest["picks"]["S"], manifest["picks"]["M"]
    assert small["weights_from"] == SHORT and medium["weights_from"] == FULL
    assert medium["miou_percent"] == trained.metrics["miou_percent"] and medium["input"] == [32, 64]
    assert (run / "package" / "M" / CHECKPOINT).read_bytes() == (out / f"{text}.safetensors").read_bytes()
    assert medium["engine"] == {"none": "not asked for"} and not (run / "package" / "M" / ENGINE).exists()
    few = LPSNet(text, 3).eval().deploy()
    save(out / f"{text}.safetensors", few, class_names=("a", "b", "c"), input_size=(32, 64), provenance={"data": "folder"})
    assert cli(["package", str(run), "--no-engine", "--json"]) == 0
    told_of = capsys.readouterr()
    assert json.loads(told_of.out)["picks"]["M"]["weights_from"] == SHORT and "is of folder with 3 classes" in told_of.err.replace("\n", "")


def test_a_training_elsewhere_is_remembered_where_it_lies(run: Path, tmp_path: Path, chain: list[Step]) -> None:
    text = str(chain[0].chosen.architecture)
    assert training_folder(run, text) == run / "trainings" / text
    remember_training(run, text, tmp_path / "elsewhere")
    assert training_folder(run, text) == tmp_path / "elsewhere"
    remember_training(run, text, run / "mine")
    assert training_folder(run, text) == run / "mine" and read_picks(run).trainings == {text: "mine"}


def test_a_training_is_of_a_network_or_of_a_pick_and_nothing_between(run: Path, told: Told, refused: Refused) -> None:
    told("family", run, "--pick", "S=0")
    either = "train takes a network and --out FOLDER, or --from RUN and --pick NAME"
    assert either in refused("train") and either in refused("train", "N0")
    together = "--from RUN and --pick NAME go together, and without a network"
    for arguments in (["--from", run], ["--pick", "S"], ["N0", "--from", run, "--pick", "S"]):
        assert together in refused("train", *arguments)
    assert f"has no pick 'M'; there are: S; lps-search family {run} --pick M=STEP makes it" in refused(
        "train", "--from", run, "--pick", "M"
    )
    assert "unknown recipe 'best'" in refused("train", "--from", run, "--pick", "S", "--recipe", "best")
    assert "lps-search expand --out" in refused("train", "--from", run / "no", "--pick", "S")


# --- package ---


def test_a_package_holds_what_its_manifest_says_and_runs_as_torch_does(run: Path, chain: list[Step], told: Told) -> None:
    told("family", run, "--pick", "S=0", "L=2")
    manifest = told("package", run, "--compute-capability", "8.6")
    folder = run / "package"
    assert json.loads((folder / MANIFEST).read_text()) == manifest and list(manifest["picks"]) == ["S", "L"]
    assert manifest["commit"] is not None and manifest["command"] and manifest["latency_environment"]["cores"]
    for name, step in (("S", chain[0]), ("L", chain[2])):
        entry = manifest["picks"][name]
        assert entry["data"] == "synthetic" and len(entry["class_names"]) == 11
        assert entry["architecture"] == str(step.chosen.architecture) and entry["miou_percent"] == step.chosen.miou_percent
        assert entry["latency"]["scores"]["latency_ms"] == entry["latency"]["labels"]["latency_ms"] == step.chosen.latency_ms
        for part in ("checkpoint", "onnx", "engine", "card"):
            data = (folder / entry[part]["file"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry[part]["bytes"], entry[part]["sha256"])
        assert "compute capability 8.6" in entry["engine"]["runs_on"] and entry["onnx"]["difference_to_torch"] == 0
        network = load(folder / name / CHECKPOINT)
        image = seeded_input((1, 3, 32, 64))
        with torch.inference_mode():
            labels = network(torch.from_numpy(image)).argmax(1).numpy()
        session = onnxruntime.InferenceSession(folder / name / GRAPH, providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"image": image})[0], labels)
        assert HubNetwork.from_pretrained(str(folder / name)).name == entry["architecture"], "it is laid out as the Hub wants it"
        card = (folder / name / CARD).read_text()
        assert "short training of the search" in card and f"step {step.number}" in card and "runs on tensorrt-rtx" in card
        assert "synthetic" in card and str(run) not in card and "| labels |" in card
    assert {path.name for path in folder.rglob("*") if path.name.endswith((".lock", ".tmp"))} == set()


def test_a_second_call_changes_nothing_and_a_changed_wish_only_what_it_must(run: Path, told: Told) -> None:
    told("family", run, "--pick", "S=0")
    first, before = told("package", run), contents(run / "package")
    assert re.search("no GPU is found here|compute capability", first["picks"]["S"]["engine"].get("none", "compute capability"))
    assert told("package", run) == first and contents(run / "package") == before
    half = told("package", run, "--precision", "fp16", "--boundary", "scores", "--normalised", "--no-engine")
    after = contents(run / "package")
    changed = {Path(name).name for name in after if after[name] != before.get(name)}
    assert changed == {MANIFEST, GRAPH, f"{GRAPH}.json", CARD}
    assert half["picks"]["S"]["onnx"]["precision"] == "fp16" and half["picks"]["S"]["onnx"]["bytes"] < first["picks"]["S"]["onnx"]["bytes"]


def test_an_engine_that_is_no_longer_wanted_goes_and_one_that_cannot_be_built_is_told(
    run: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latency.protocols import MeasurementFailed

    told("family", run, "--pick", "S=0")
    engine = run / "package" / "S" / ENGINE
    told("package", run, "--compute-capability", "8.6")
    built = engine.read_bytes()
    told("package", run, "--compute-capability", "8.6")
    assert engine.read_bytes() == built
    assert told("package", run, "--no-engine")["picks"]["S"]["engine"] == {"none": "not asked for"} and not engine.exists()

    def broken(*args: object) -> None:
        raise MeasurementFailed("tensorrt-rtx could not build the engine: no kernel")

    monkeypatch.setattr(packaging, "export_engine", broken)
    told_of = told("package", run, "--compute-capability", "8.6")["picks"]["S"]["engine"]
    assert told_of == {"none": "tensorrt-rtx could not build the engine: no kernel"}
    assert "There is no engine: tensorrt-rtx could not build" in (run / "package" / "S" / CARD).read_text()
    monkeypatch.setattr("latency.engine.FLAVOURS", {**FLAVOURS, "tensorrt-rtx": ("no_such_module",)})
    assert "is not installed" in told("package", run)["picks"]["S"]["engine"]["none"]


def test_cut_short_anywhere_it_leaves_no_manifest_and_goes_on_with_what_is_whole(
    run: Path, chain: list[Step], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("family", run, "--pick", "S=0", "M=1")
    folder, original = run / "package", packaging.write_atomic
    half = folder / "M" / GRAPH  # written, but its description was not
    for struck in (CHECKPOINT, f"{GRAPH}.json", CARD, MANIFEST):

        def write(path: Path, data: bytes, struck: str = struck) -> None:
            if path.name == struck and path.parent.name in ("M", "package"):
                raise KeyboardInterrupt
            original(path, data)

        before = contents(folder) if folder.exists() else {}
        with monkeypatch.context() as patch:
            for owner in ("search.package", "search.export"):
                patch.setattr(f"{owner}.write_atomic", write)
            assert cli(["package", str(run), "--no-engine"]) == 130
        after = contents(folder)
        assert not (folder / MANIFEST).exists() and len(after) > len(before)
        assert all(after[name] == value for name, value in before.items() if Path(name) != half)
    manifest = told("package", run, "--no-engine")
    for name, step in (("S", chain[0]), ("M", chain[1])):
        weights = (run / "checkpoints" / f"{step.chosen.architecture}.safetensors").read_bytes()
        assert manifest["picks"][name]["checkpoint"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert set(contents(folder)) == {*after, str(folder / MANIFEST)}


def test_picks_that_are_packaged_one_by_one_stand_in_one_manifest_while_they_hold(run: Path, chain: list[Step], told: Told) -> None:
    told("family", run, "--pick", "S=0", "M=1", "L=2")
    folder = run / "package"
    small = told("package", run, "S", "--no-engine")["picks"]["S"]
    assert told("package", run, "M", "--no-engine")["picks"]["S"] == small
    (folder / "M" / f".{GRAPH}.x7").write_bytes(b"half")  # as a kill leaves it
    told("package", run, "M", "--no-engine")
    assert not list(folder.rglob(".*"))
    (folder / "S" / GRAPH).write_bytes(b"damaged")
    assert list(told("package", run, "L", "--no-engine")["picks"]) == ["M", "L"]
    told("family", run, "--forget", "M")
    assert list(told("package", run, "L", "--no-engine")["picks"]) == ["L"]
    (folder / MANIFEST).write_text("{}")
    assert list(told("package", run, "L", "--no-engine")["picks"]) == ["L"]


def test_a_damaged_part_of_a_package_is_made_anew(run: Path, told: Told) -> None:
    told("family", run, "--pick", "S=0")
    first = told("package", run, "--no-engine")
    for name in (CHECKPOINT, GRAPH, CARD):
        path = run / "package" / "S" / name
        path.write_bytes(path.read_bytes()[:-7])
    assert told("package", run, "--no-engine")["picks"] == first["picks"]


def test_weights_that_are_gone_or_changed_and_a_folder_in_use_are_told_before_anything_is_written(
    run: Path, chain: list[Step], told: Told, refused: Refused
) -> None:
    assert "has no picks; make some, for example" in refused("package", run)
    told("family", run, "--pick", "S=0", "M=1")
    assert "has no pick 'L'; there are: S, M" in refused("package", run, "S", "L")
    assert "such as 8.6" not in refused("package", run, "--compute-capability", "1.0")
    assert "leave out --no-engine" in refused("package", run, "--no-engine", "--compute-capability", "8.6")
    assert "unknown boundary 'pixels'" in refused("package", run, "--boundary", "pixels")
    assert "unknown precision 'int8'" in refused("package", run, "--precision", "int8")
    with held(run / "package", "a package"):
        assert "a package is running in" in refused("package", run)
    weights = run / "checkpoints" / f"{chain[1].chosen.architecture}.safetensors"
    kept = weights.read_bytes()
    other = run / "checkpoints" / f"{chain[0].chosen.architecture}.safetensors"
    shutil.copy(other, weights)
    assert "not" in (line := refused("package", run)) and "of pick M" in line
    weights.unlink()
    assert f"lps-search train --from {run} --pick M" in refused("package", run)
    assert list((run / "package").iterdir()) == []
    weights.write_bytes(kept)
    assert list(told("package", run, "M", "--no-engine")["picks"]) == ["M"]


def test_picks_of_a_run_that_was_measured_anew_are_not_packaged(run: Path, told: Told) -> None:
    told("family", run, "--pick", "S=1")
    with Run.read(run) as opened, pytest.raises(RunError, match="not decided; pick it again"):
        packaging.write_package(opened, replay(opened).steps[:1], [], packaging.PackagePlan(), run / "package", packaging.Observer())
    with pytest.raises(UserError, match="unknown boundary"):
        packaging.ExportPlan(size=(1, 1), boundary="x")
