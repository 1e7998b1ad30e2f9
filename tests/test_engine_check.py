"""Engine files that may not run here, and what the engine inspector says of precision."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from latency.engine import runtime_module
from latency.engine_check import contradiction, precisions_found, read_engine
from latency.protocols import BackendError
from search.cli import run


def written(folder: Path, **changes: Any) -> Path:
    """An engine of arbitrary bytes with its description; None leaves an entry out."""
    data, path = b"plan" * 100, folder / "net.engine"
    path.write_bytes(data)
    values = {"flavour": "tensorrt-rtx", "version": "1.7.1", "compute_capabilities": ["8.6"], "sha256": hashlib.sha256(data).hexdigest()}
    description = {name: value for name, value in {**values, "runs_on": "x", **changes}.items() if value is not None}
    path.with_name("net.engine.json").write_text(json.dumps(description))
    return path


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        __version__ = "1.7.1"

    monkeypatch.setattr("latency.engine_check.runtime_module", lambda flavour: Module)


def test_an_engine_for_this_gpu_and_version_is_read(tmp_path: Path) -> None:
    data, description = read_engine(written(tmp_path), "8.6")
    assert data == b"plan" * 100 and description["flavour"] == "tensorrt-rtx"
    assert read_engine(written(tmp_path, compute_capabilities=[]), "8.6")[0] == data  # built on the GPU it was to run on
    assert read_engine(written(tmp_path), None)[0] == data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "1.6.0"}, "was built by tensorrt-rtx 1.6.0, here is 1.7.1; build it anew"),
        ({"compute_capabilities": ["7.5", "12.0"]}, "for compute capability 7.5, 12.0, this GPU has 8.6; .*--compute-capability 8.6"),
        ({"sha256": "0" * 64}, "is damaged: its SHA-256"),
        ({"flavour": None}, "cannot be read as an engine"),
        ({"compute_capabilities": [], "built_on": "9.0"}, "for compute capability 9.0, this GPU has 8.6"),
    ],
)
def test_an_engine_of_another_version_or_gpu_or_damaged_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=message):
        read_engine(written(tmp_path, **changes), "8.6")


def test_a_cut_engine_and_one_without_description_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BackendError, match="is damaged"):
        read_engine(path, None)
    path.with_name("net.engine.json").unlink()
    assert run(["doctor", "--engine", str(path)]) == 2
    assert "net.engine.json" in capsys.readouterr().err.splitlines()[-1]


def test_doctor_says_what_an_engine_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--engine", str(written(tmp_path, precision="fp16")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp16"
    assert run(["doctor", "--engine", str(written(tmp_path, precision="fp16"))]) == 0
    assert "fp16" in capsys.readouterr().out


def layers(*rows: tuple[str, str]) -> str:
    """Inspector output: (kind of layer, format of its output)."""
    outputs = [{"LayerType": kind, "Outputs": [{"Format/Datatype": told}], "TacticName": "x"} for kind, told in rows]
    return json.dumps({"Layers": outputs, "I/O Tensors": []})


HALF = ("CaskConvolution", "Channel major FP16 format where channel % 8 == 0")
FULL = ("CaskConvolution", "Row major linear FP32")
MOVED = ("Reformat", "Row major linear FP32")


def test_layers_that_compute_are_counted_by_type() -> None:
    assert precisions_found(layers(HALF, HALF, FULL, MOVED)) == {"FP16": 2, "FP32": 1}
    weights = {"LayerType": "Conv", "Weights": {"Type": "Half", "Count": 9}, "Outputs": [{"Format": "Row major", "Datatype": "Float"}]}
    assert precisions_found(json.dumps({"Layers": [weights]})) == {"FP16": 1}
    for told in (
        {"Layers": ["only", "names"]},
        {"Layers": None},
        {"Layers": [{"Outputs": None, "Weights": None}]},
        {"Layers": [{"Outputs": [3]}]},
        [],
    ):
        assert precisions_found(json.dumps(told)) == precisions_found("not JSON") == {}


@pytest.mark.parametrize(
    ("precision", "told", "against"),
    [
        ("fp16", layers(HALF, HALF, FULL), None),
        ("fp16", layers(HALF, FULL, FULL), "1 layers in FP16, 2 layers in FP32"),
        ("fp16", layers(FULL, MOVED), "asked for fp16, the engine inspector finds 1 layers in FP32"),
        ("fp32", layers(FULL, FULL), None),
        ("fp32", layers(FULL, HALF), "asked for fp32, the engine inspector finds 1 layers in FP16"),
        ("tf32", layers(HALF), "asked for tf32"),
        ("fp32", layers(FULL).replace('"x"', '"sm80_xmma_fprop_implicit_gemm_tf32f32"'), "names TF32 in 1 places"),
        ("tf32", layers(FULL).replace('"x"', '"sm80_xmma_fprop_implicit_gemm_tf32f32"'), None),
        ("fp16", "", None),
    ],
)
def test_what_the_inspector_finds_is_held_against_what_was_asked_for(precision: str, told: str, against: str | None) -> None:
    found = contradiction(precision, told)
    assert found is None if against is None else found is not None and against in found


def test_an_engine_built_here_for_a_named_gpu_is_one_that_may_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latency.engine_check.runtime_module", runtime_module)
    try:
        runtime_module("tensorrt-rtx")
    except BackendError as missing:
        pytest.skip(str(missing))
    out = tmp_path / "n0.onnx"
    assert run(["export", "N0", "--input", "64x128", "--engine", "--compute-capability", "8.6", "--out", str(out)]) == 0
    assert read_engine(out.with_suffix(".engine"), "8.6")[1]["compute_capabilities"] == ["8.6"]
    with pytest.raises(BackendError, match=r"this GPU has 9\.0"):
        read_engine(out.with_suffix(".engine"), "9.0")
