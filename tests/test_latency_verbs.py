"""The verbs on latencies besides `measure`: turns, noise floor, export, predictor."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from lpsnet.architecture import TABLE_4
from lpsnet.checkpoint import save
from lpsnet.network import LPSNet
from search.cli import run

QUICK = ["--seconds", "0", "--backend", "torch", "--threads", "1"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def test_two_networks_are_compared_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["measure", "N0", "B1-1-1-8-8_C8-16-32-64-64_R8", "--interleave", "--turns", "6", "--input", "64x128", *QUICK]
    assert run([*arguments, "--boundary", "scores", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faster"] == "first" and found["turns"] == 6 and found["ratio_low"] > 1
    assert run(arguments) == 0
    assert "is faster" in capsys.readouterr().out
    assert "compares two networks, got 1" in refused(capsys, "measure", "N0", "--interleave", *QUICK)


def test_several_networks_are_measured_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "N0", "B1-1-1-2-2_C4-8-16-32-32_R4", "--boundary", "scores", "--input", "64x128", *QUICK, "--json"]) == 0
    assert [one["subject"].split()[0] for one in json.loads(capsys.readouterr().out)] == [
        "B1-1-1-1-1_C4-8-16-32-32_R4",
        "B1-1-1-2-2_C4-8-16-32-32_R4",
    ]


def test_the_chain_of_table_4_is_that_of_the_paper() -> None:
    rows = csv.DictReader((Path(__file__).parent / "data" / "table4.csv").read_text().splitlines())
    assert [str(architecture) for architecture in TABLE_4] == [row["network"] for row in rows]


def test_a_table_of_networks_is_written_as_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpsnet.architecture.TABLE_4", TABLE_4[:4])
    out = tmp_path / "new" / "networks.csv"
    assert run(["measure", "table-4", "N0", "--boundary", "scores", "--input", "16x32", *QUICK, "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["subject"].split()[0] for row in rows] == [str(architecture) for architecture in TABLE_4[:4]]
    assert all(float(row["min_ms"]) <= float(row["latency_ms"]) <= float(row["p95_ms"]) <= float(row["p99_ms"]) for row in rows)


def test_a_cpu_is_measured_in_fp32_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs --device cuda" in refused(capsys, "measure", "N0", "--precision", "fp16")
    assert "fp32, tf32, fp16" in refused(capsys, "measure", "N0", "--precision", "int8")


def test_the_noise_floor_is_printed_and_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["noise-floor", "N0", "--input", "64x128", "--repeats", "2", "--rebuilds", "2", *QUICK]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["medians_ms"]) == 2 and found["floor"] == max(found["repeat_spread"], found["rebuild_spread"]) > 0
    assert run(arguments) == 0
    assert "do not differ" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("boundary", ["scores", "logits", "labels"])
def test_an_exported_graph_gives_what_the_network_gives(boundary: str, precision: str, tmp_path: Path) -> None:
    network = LPSNet("B1-2-1-2-2_C4-8-8-12-12_R6-2", 3).eval()
    save(tmp_path / "net.safetensors", network, class_names=("a", "b", "c"), input_size=(48, 80))
    out = tmp_path / "new" / "net.onnx"
    arguments = ["--boundary", boundary, "--precision", precision, "--normalised", "--dynamic-batch"]
    assert run(["export", str(tmp_path / "net.safetensors"), "--out", str(out), *arguments]) == 0
    described = json.loads((tmp_path / "new" / "net.onnx.json").read_text())
    assert described["size"] == [48, 80] and described["classes"] == 3 and described["weights"].endswith("net.safetensors")
    images = np.random.default_rng(5).integers(0, 256, (3, 3, 48, 80), dtype=np.uint8)
    (found,) = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"]).run(None, {"image": images})
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        normal = (torch.from_numpy(images) / 255 - mean) / std
        expected = network.scores(normal) if boundary == "scores" else network(normal)
    if boundary == "labels":
        assert (found == expected.argmax(1).numpy()).mean() > (0.999 if precision == "fp32" else 0.9)
    else:
        assert np.abs(found - expected.numpy()).max() < (1e-4 if precision == "fp32" else 0.02) * float(expected.abs().max())


def test_an_engine_is_built_beside_the_graph_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    out = tmp_path / "n0.onnx"
    options = ["--input", "64x128", "--engine", "--compute-capability", "8.6,8.9", "--out", str(out)]
    assert run(["export", "N0", "--precision", "fp16", *options]) == 0
    engine = json.loads((tmp_path / "n0.engine.json").read_text())
    assert engine["bytes"] == (tmp_path / "n0.engine").stat().st_size and engine["graph"] == "n0.onnx"
    assert "compute capability 8.6, 8.9" in engine["runs_on"] and engine["precision"] == "fp16"
    assert "runs on tensorrt-rtx" in capsys.readouterr().out
    assert "there are: 7.5" in refused(capsys, "export", "N0", *options[:3], "--compute-capability", "9.9", *options[5:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["N0", "--precision", "int8"], "'int8'; there are: fp32, fp16"),
        (["N0", "--precision", "tf32"], "add --engine"),
        (["N0", "--compute-capability", "8.6"], "add --engine"),
        (["folder"], "folder is a folder"),
        (["net.pth"], "add --architecture"),
        (["N0", "--input", "999999x999999"], "memory ran out"),
        (["N0", "--boundary", "pixels"], "there are: scores, logits, labels"),
        (["N0", "--engine", "--dynamic-batch"], "an engine is built for one image"),
        (["N0", "--out", "net.pt"], "must end in .onnx, got net.pt"),
        (["LPS-Net-S", "--input", "2x2"], "least size that works is 4x4"),
        (["none.safetensors"], "no checkpoint at none.safetensors"),
        (["N0", "--out", "file/net.onnx"], "cannot write file/net.onnx"),
        (["file"], "damaged or no safetensors file"),
    ],
)
def test_mistakes_of_an_export_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no network")
    (tmp_path / "folder").mkdir()
    small = [] if "--input" in arguments else ["--input", "32x64"]
    assert message in refused(capsys, "export", *arguments, *small)
    assert not list(tmp_path.glob("*.onnx*"))


def test_a_predictor_that_is_not_there_or_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no predictor" in refused(capsys, "predict-latency", "N0", "--table", str(tmp_path))
    (tmp_path / "file").touch()
    assert "cannot be made" in refused(capsys, "latency-predictor", "--out", str(tmp_path / "file" / "x"), "--input", "32x64", *QUICK)
