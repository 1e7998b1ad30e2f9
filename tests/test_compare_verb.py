"""`lps-search compare`: any networks in one table, every failure a row, and nothing done twice after a kill."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from latency.measurement import Conditions
from latency.rounds import Turn
from lpsnet import save
from lpsnet.architecture import NAMED
from lpsnet.baselines import BASELINES
from lpsnet.zoo import build, complexity_of
from search import compare_run
from search.cli import run
from search.compare_entries import Entry
from search.published import PUBLISHED
from tests.graphs import FOREIGN_PARAMETERS, foreign_macs, write_foreign
from tests.kill_driver import killed
from tests.processes import Process, quick_workers
from tests.test_baselines import ADDED

SMALL = "shufflenetv2-basic"
WIDER = "B1-1-1-2-2_C4-8-16-32-32_R4"
QUICK = ["--input", "64x96", "--seconds", "0", "--rounds", "2", "--limit", "0", "--threads", "1"]
TORCH = ["--backend", "torch"]
SIZE = ["--set=input_height=64", "--set=input_width=96", "--set=crop_height=64", "--set=crop_width=96", "--set=batch_size=2"]

Compare = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def forked() -> Iterator[None]:
    with quick_workers():
        yield


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Runs the verb into a folder and returns its rows."""

    def compared(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        assert run(["compare", *arguments, "--out", str(tmp_path / "out"), "--json"]) == code
        return list(json.loads(capsys.readouterr().out))

    return compared


def record(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


def checkpoint(path: Path, name: str = "N0", classes: int = 11, miou: float | None = 31.25, splits: Sequence[str] = ("train",)) -> Path:
    torch.manual_seed(0)
    metrics = {} if miou is None else {"miou_percent": miou, "class_iou_percent": [miou] * classes}
    names = tuple(f"c{number}" for number in range(classes))
    save(
        path,
        build(name, classes),
        class_names=names,
        input_size=(64, 96),
        metrics=metrics,
        provenance={"data": "camvid", "splits": list(splits)},
    )
    return path


def test_networks_of_every_kind_stand_in_one_table(compare: Compare, tmp_path: Path) -> None:
    weights, graph = checkpoint(tmp_path / "w.safetensors", WIDER), write_foreign(tmp_path / "other.onnx")
    rows = compare("n0", SMALL.upper(), WIDER, str(weights), str(graph), SMALL, *QUICK)
    by = {row["network"]: row for row in rows}
    assert list(by) == ["N0", SMALL, WIDER, str(weights), str(graph)]
    assert [row["kind"] for row in rows] == ["network", "network", "network", "checkpoint", "graph"]
    for row in rows:
        assert row["failure"] == "" and row["rounds"] == 2 and row["samples"] == 2 and row["input"] == "64x96", row
    for row in rows[:4]:
        assert row["latency_scores_ms"] > 0 and row["latency_labels_ms"] <= row["slowest_turn_ms"] and row["boundary"] == "labels"
        assert row["output"] == "1x64x96 int64"
        assert row["macs_giga_per_ms"] == pytest.approx(row["macs_giga"] / row["latency_scores_ms"])
    assert by["N0"]["architecture"] == str(NAMED["N0"]) and by[SMALL]["paper"].endswith("(1902.07476)")
    counted = complexity_of(SMALL, 19, (64, 96))
    assert by[SMALL]["parameters"] == counted.parameters and by[SMALL]["macs_giga"] == counted.macs / 1e9
    assert by[SMALL]["paper_gflops"] == 2.18 and by[SMALL]["paper_gflops_input"] == "360x640"
    assert "2 a multiply-add" in by[SMALL]["paper_gflops_counts"] and by["N0"]["paper_gflops"] is None
    foreign = by[str(graph)]
    assert foreign["latency_as_given_ms"] > 0 and foreign["latency_labels_ms"] is None and foreign["boundary"] == "as given"
    assert foreign["parameters"] == FOREIGN_PARAMETERS and foreign["macs_giga"] == foreign_macs(64, 96) / 1e9
    assert foreign["output"] == "1x5x32x48 float32" and foreign["architecture"] == ""
    scored = by[str(weights)]
    assert (scored["miou_percent"], scored["data"], scored["classes"]) == (31.25, "camvid", 11)
    assert scored["miou_from"] == "told by the checkpoint, at 64x96"
    assert scored["front"] and sum(row["front"] for row in rows) == 1


def test_the_files_hold_what_is_printed_and_where_it_comes_from(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = compare("N0", WIDER, *QUICK, *TORCH)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"compare.csv", "compare.md", "compare.json", "compare.png", "record.jsonl"}
    written = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [row["network"] for row in written] == ["N0", WIDER] and list(written[0]) == list(rows[0])
    told = json.loads((out / "compare.json").read_text())
    assert told["rows"] == rows and told["commit"] and told["conditions"]["backend"] == "torch" and told["environment"]["device"]
    assert told["command"].startswith("lps-search") and told["conditions"]["rounds"] == 2
    text = (out / "compare.md").read_text()
    assert "one a multiply-add" in text and "batch normalisation folded" in text and text.count("| N0 |") == 1
    assert (out / "compare.png").stat().st_size > 10_000
    assert run(["compare", "N0", WIDER, *QUICK, *TORCH, "--out", str(out)]) == 0
    assert "slowest turn" in capsys.readouterr().out


def test_what_is_known_is_not_measured_again_and_other_conditions_are(compare: Compare, tmp_path: Path) -> None:
    first = compare("N0", *QUICK, *TORCH)
    before = record(tmp_path / "out")
    assert len(before) == 2 * 2
    assert compare("N0", *QUICK, *TORCH) == first and record(tmp_path / "out") == before
    compare("N0", WIDER, *QUICK, *TORCH)
    assert len(record(tmp_path / "out")) == 2 * len(before)
    compare("N0", *QUICK, *TORCH, "--boundary", "logits", "--rounds", "3")
    assert len(record(tmp_path / "out")) == 2 * len(before) + 3 + 2  # three turns to the logits, one more to scores and labels
    compare("N0", *QUICK, *TORCH, "--classes", "5")
    assert len(record(tmp_path / "out")) == 2 * len(before) + 5 + 4


def test_networks_take_turns_and_the_order_is_turned_around(compare: Compare, tmp_path: Path) -> None:
    compare("N0", WIDER, SMALL, *QUICK, *TORCH)
    order = [line["key"]["subject"].split()[0] for line in record(tmp_path / "out")]
    assert order[::2] == [str(NAMED["N0"]), WIDER, SMALL, SMALL, WIDER, str(NAMED["N0"])]
    ends = [json.loads(line["key"]["conditions"])["boundary"] for line in record(tmp_path / "out")]
    assert ends == ["labels", "scores"] * 6


def test_a_network_whose_turns_do_not_agree_gets_more_and_the_fastest_counts(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"N0": [9.0, 2.0, 3.0, 2.1], WIDER: [1.0, 1.05, 1.05, 1.05], SMALL: [1.0, 2.0, 4.0, 8.0]}
    turns: dict[tuple[str, str], int] = {}
    asked: list[float] = []

    def turn(entry: Entry, at: Conditions, stem: Path, with_memory: bool) -> Turn:
        number = turns[entry.label, at.boundary] = turns.get((entry.label, at.boundary), -1) + 1
        taken = times[entry.label][number] if at.boundary == "labels" else 0.5 * 2 ** (number * (entry.label == WIDER))
        found = {"output_shape": [1], "output_type": "int64", "state": {"pace_ms": 0.4 + taken, "slowness": 1.0 + taken}}
        return Turn(samples_ms=(taken,), clock="perf_counter", load_s=0.0, found=found)

    monkeypatch.setattr(compare_run.compare_worker, "turn", turn)
    monkeypatch.setattr(compare_run, "slowness", lambda threads, least_ms: asked.append(least_ms) or 1.0)
    arguments = ["N0", WIDER, SMALL, *QUICK, *TORCH, "--seconds", "0.1"]
    rows = compare(*arguments)
    assert [(row["latency_labels_ms"], row["slowest_turn_ms"], row["rounds"], row["stable"]) for row in rows] == [
        (2.0, 9.0, 4, True),
        (1.0, 1.05, 4, True),
        (1.0, 8.0, 4, False),
    ]
    assert [row["unstable"] for row in rows] == ["", "scores", "labels"]
    assert [row["slowness"] for row in rows] == [3.0, 2.0, 2.0]  # of the turn that counts
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "| unstable: scores |" in text and "| unstable: labels |" in text
    assert asked[0] == math.inf and asked[-1] == 0.9  # what the graph of the pace took at least outlives the process of a turn
    assert compare(*arguments) == rows and turns["N0", "labels"] == 3  # nothing is taken again


def test_a_network_that_fails_is_a_row_with_the_reason(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = write_foreign(tmp_path / "other.onnx", operator="Mystery")
    rows = compare("LPS-Net-S", "N0", str(graph), *QUICK, "--input", "2x2")
    assert "least size that works is 4x4" in rows[0]["failure"] and rows[0]["rounds"] == 0 and rows[0]["parameters"] is None
    assert rows[1]["failure"] == "" and rows[1]["latency_labels_ms"] > 0
    assert "ONNX Runtime cannot load the graph" in rows[2]["failure"] and rows[2]["macs_giga"] is None
    assert "least size" in (tmp_path / "out" / "compare.md").read_text()
    before = record(tmp_path / "out")
    assert compare("LPS-Net-S", "N0", str(graph), *QUICK, "--input", "2x2") == rows and record(tmp_path / "out") == before
    assert not (tmp_path / "out" / "graphs").exists()  # nothing more is to be tried
    assert run(["compare", "LPS-Net-S", *QUICK, "--input", "2x2", "--out", str(tmp_path / "none")]) == 1
    assert "none of the networks could be measured" in capsys.readouterr().err


def test_memory_that_ran_out_is_a_reason_that_is_tried_again(compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare_run.compare_worker.network_of

    def too_large(entry: Any) -> Any:
        if entry.network == WIDER:
            raise MemoryError("cannot allocate memory")
        return whole(entry)

    monkeypatch.setattr(compare_run.compare_worker, "network_of", too_large)
    rows = compare("N0", WIDER, *QUICK)
    assert rows[0]["failure"] == "" and "cannot allocate memory" in rows[1]["failure"]
    monkeypatch.setattr(compare_run.compare_worker, "network_of", whole)
    assert compare("N0", WIDER, *QUICK)[1]["failure"] == ""


def test_a_network_that_takes_too_long_is_a_row_and_memory_is_measured_in_a_process_of_its_own(compare: Compare) -> None:
    quick = [*QUICK, *TORCH, "--rounds", "1"]
    (late,) = compare("N0", *quick, "--limit", "0.001", code=1)
    assert "no answer within 0.001 s" in late["failure"]
    (row,) = compare("N0", *quick, "--limit", "60")
    assert row["failure"] == "" and 0 < row["memory_mib"] < 500


def test_a_killed_comparison_goes_on_where_it_stopped(compare: Compare, tmp_path: Path) -> None:
    arguments = ["compare", "N0", WIDER, *QUICK, *TORCH]
    process = Process(killed, "record:after", 3, [*arguments, "--out", str(tmp_path / "out")], output=tmp_path / "printed")
    assert process.ends() == -signal.SIGKILL, process.printed()
    known = record(tmp_path / "out")
    assert len(known) == 3 and (tmp_path / "out" / "graphs").is_dir()
    with (tmp_path / "out" / "record.jsonl").open("a") as file:
        file.write('{"key": {"what": "tu')  # as a kill in the midst of a line leaves it
    rows = compare(*arguments[1:])
    assert [row["rounds"] for row in rows] == [2, 2] and not (tmp_path / "out" / "graphs").exists()
    after = record(tmp_path / "out")
    assert after[:3] == known and len(after) == 8
    told = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert told["seconds"] == pytest.approx(sum(line["seconds"] for line in after)) and min(line["seconds"] for line in after) > 0
    assert re.search(r", in \d+\.\d minutes\.", (tmp_path / "out" / "compare.md").read_text())


def test_how_long_a_comparison_took_is_not_told_where_an_older_record_does_not_say(compare: Compare, tmp_path: Path) -> None:
    compare("N0", *QUICK, *TORCH)
    lines = [{name: value for name, value in line.items() if name != "seconds"} for line in record(tmp_path / "out")]
    (tmp_path / "out" / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    compare("N0", *QUICK, *TORCH, "--rounds", "3")
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["seconds"] is None
    assert "minutes" not in (tmp_path / "out" / "compare.md").read_text()


def test_networks_are_trained_under_one_recipe_and_checkpoints_scored(
    compare: Compare, make_camvid: Callable[..., Path], tmp_path: Path
) -> None:
    root, weights, other = make_camvid(), checkpoint(tmp_path / "w.safetensors"), checkpoint(tmp_path / "o.safetensors", classes=3)
    arguments = ["N0", SMALL, str(weights), str(other), *QUICK, *TORCH, "--rounds", "1", "--data", f"camvid:{root}", "--train", "2", *SIZE]
    rows = compare(*arguments, "--training-device", "cpu")
    assert all(row["classes"] == 11 for row in rows[:3]) and rows[3]["classes"] == 3
    for row in rows[:2]:
        assert (
            0 <= row["miou_percent"] <= 100
            and row["miou_from"] == "trained here for 2 iterations of 2 images in fp32, at 64x96"
            and row["data"] == "camvid"
        )
    assert rows[2]["miou_from"] == "scored here, at 64x96" and rows[2]["miou_percent"] != 31.25
    assert "has 3 classes" in rows[3]["failure"] and rows[3]["miou_percent"] is None and rows[3]["latency_labels_ms"] > 0
    assert any(row["front"] for row in rows)
    trained = sorted((tmp_path / "out" / "trainings").iterdir())
    assert len(trained) == 2 and all(any(folder.glob("*.safetensors")) for folder in trained)
    told = json.loads((tmp_path / "out" / "compare.json").read_text())["scores"]
    assert told["data"] == "camvid" and told["recipe"]["iterations"] == 2
    before, times = record(tmp_path / "out"), [folder.stat().st_mtime_ns for folder in trained]
    assert compare(*arguments, "--training-device", "cpu") == rows and record(tmp_path / "out") == before
    assert [folder.stat().st_mtime_ns for folder in trained] == times
    twice = compare(*arguments, "--training-device", "cpu", "--seeds", "2", "--parallel", "2")
    assert len(record(tmp_path / "out")) == len(before) + 2 and [row["seeds"] for row in twice] == [2, 2, None, None]
    for first, row in zip(rows[:2], twice[:2], strict=True):
        assert row["miou_low"] <= row["miou_percent"] <= row["miou_high"] and first["miou_low"] is None and first["seeds"] == 1
    assert "mean and 95 % interval of 2 seeds" in (tmp_path / "out" / "compare.md").read_text()
    lost = compare(*arguments, "--training-device", "cpu", "--set=learning_rate=1e30", "--train", "30")
    assert any("the loss is" in row["failure"] for row in lost[:2])


def test_a_score_that_does_not_go_with_a_latency_is_told_and_not_on_the_front(
    compare: Compare, make_camvid: Callable[..., Path], tmp_path: Path
) -> None:
    data = ["--data", f"camvid:{make_camvid()}", "--training-device", "cpu"]
    (row,) = compare("N0", *data, "--train", "1", *SIZE, *(QUICK[2:]), *TORCH)
    assert row["input"] == row["miou_input"] == "64x96" and row["front"]  # what --train trains at is the default of --input
    (row,) = compare("N0", *data, "--train", "1", *SIZE, *QUICK, *TORCH, "--input", "96x128")
    assert (row["input"], row["miou_input"], row["front"]) == ("96x128", "64x96", False)
    assert "mIoU at 64x96" in (tmp_path / "out" / "compare.md").read_text()
    seen = checkpoint(tmp_path / "seen.safetensors", splits=["train", "val"])
    (row,) = compare(str(seen), *data, *QUICK, *TORCH)
    assert row["seen"] and not row["front"] and row["miou_percent"] is not None
    assert "trained on these frames" in (tmp_path / "out" / "compare.md").read_text()


def test_a_network_that_is_added_to_the_table_appears(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lpsnet import zoo

    monkeypatch.setattr(zoo, "NAMED", MappingProxyType({"N0": NAMED["N0"]}))
    monkeypatch.setattr(zoo, "BASELINES", MappingProxyType({"plain": ADDED}))
    rows = compare("--all", *QUICK, "--rounds", "1")
    assert [row["network"] for row in rows] == ["N0", "plain"] and rows[1]["failure"] == "" and rows[1]["paper"] == "RTSeg (1803.02758)"
    assert run(["networks", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["N0", "plain"]


def test_published_figures_are_of_networks_that_were_counted() -> None:
    known = {name: told for name, told in PUBLISHED.items() if name in BASELINES}
    assert len(known) >= 10
    # The papers count one or two a multiply-add, some with activations; they are no slips of a digit.
    for name, told in known.items():
        if told.gflops is not None and told.size is not None:
            assert 0.95 < told.gflops / (complexity_of(name, 19, told.size).macs / 1e9) < 2.2, name


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPS_SEARCH_CHECKPOINTS", str(tmp_path))
    for name in ("damaged.onnx", "damaged.safetensors", "net.pth", "file"):
        (tmp_path / name).write_text("no network")
    write_foreign(tmp_path / "two.onnx", inputs=2)
    shutil.copy(checkpoint(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.jsonl").write_text("nonsense\n")
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "record.jsonl").write_text('{"key": {}, "fact": {}, "seconds": -1}\n')
    cases = [
        ([], "nothing to compare"),
        (["resnet"], "the comparison networks are skipnet-vgg16, "),
        (["B1-x"], "position 4"),
        ([str(tmp_path / "none.onnx")], "no ONNX file at"),
        ([str(tmp_path / "damaged.onnx")], "damaged.onnx is no ONNX file"),
        ([str(tmp_path / "two.onnx")], "takes 2 inputs"),
        ([str(tmp_path / "none.safetensors")], "no checkpoint at"),
        ([str(tmp_path / "damaged.safetensors")], "damaged or no safetensors file"),
        ([str(tmp_path / "net.pth")], "does not say its network"),
        (["LPS-Net-L-train"], "no checkpoint of LPS-Net-L-train"),
        (["N0", "--backend", "tensorflow"], "there are: ort"),
        (["N0", "--boundary", "pixels"], "there are: scores, logits, labels"),
        (["N0", "--precision", "fp16"], "needs --device cuda"),
        (["N0", "--input", "big"], "--input takes a size"),
        (["N0", "--train", "5"], "add --data"),
        (["N0", "--data", "cityscape:x"], "unknown data set"),
        ([str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")], "b.safetensors have the same content; leave out one of them"),
        (["N0", "--train", "5", "--data", "synthetic", "--recipe", "none"], "unknown recipe 'none'"),
        (["N0", "--train", "5", "--data", "synthetic", "--set", "iterations=7"], "leave out --set iterations"),
        (["N0", "--rounds", "0"], "--rounds"),
        (["N0", "--limit", "inf"], "--limit"),
        (["N0", "--seed", "-1"], "--seed"),
        (["N0", "--training-device", "gpu"], "unknown device 'gpu' of --training-device"),
        (["N0", "--out", str(tmp_path / "file" / "x")], "cannot be made"),
        (["N0", "--out", str(tmp_path / "broken")], "is damaged in line 1"),
        (["N0", "--out", str(tmp_path / "early")], "damaged in line 1: ValueError('seconds are -1, not a time')"),
    ]
    for arguments, message in cases:
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        assert run(["compare", *arguments, *out]) == 2, arguments
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert message in line, arguments


def test_a_record_whose_facts_are_not_what_they_should_be_is_damaged(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare("N0", *QUICK, *TORCH, "--rounds", "1")
    whole = record(tmp_path / "out")
    for name, value in (
        ("samples_ms", []),
        ("samples_ms", ["1"]),
        ("samples_ms", [-1.0]),
        ("found", {}),
        ("output", 3),
        ("memory_bytes", None),
    ):
        lines = [dict(line) for line in whole]
        lines[0]["fact"] = (
            {**lines[0]["fact"], name: value} if value is not None else {k: v for k, v in lines[0]["fact"].items() if k != name}
        )
        (tmp_path / "out" / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert run(["compare", "N0", *QUICK, *TORCH, "--rounds", "1", "--out", str(tmp_path / "out")]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert "record.jsonl is damaged in line 1" in line and name in line


def test_one_comparison_at_a_time_writes_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from search.compare_record import Record

    held = Record(tmp_path / "out")
    assert run(["compare", "N0", *QUICK, "--out", str(tmp_path / "out")]) == 2
    assert "is in use by another process" in capsys.readouterr().err
    held.close()
