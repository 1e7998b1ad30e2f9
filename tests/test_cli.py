"""The command line: every verb, and every user's mistake as one line with exit code 2."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latency.layers import read_table
from lpsnet.architecture import TABLE_4
from search import latency_space
from search.cli import run
from search.cli.console import parse_size
from search.cli.many_values import spread
from search.cli.table_verbs import parse_widths
from tests.tiny import TINY_OPTIONS, few_frames, fill_store, tiny_config

Complain = Callable[..., str]


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complain:
    """Runs the command line, which must end with exit code 2 and one line on stderr; returns the line."""

    def complain(*arguments: str) -> str:
        assert run(list(arguments)) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        return lines[0]

    return complain


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a latency for every network of the tiny search."""
    path = tmp_path_factory.mktemp("stores") / "filled.sqlite"
    fill_store(path, tiny_config())
    return path


@pytest.fixture
def made_latencies(filled: Path, tmp_path: Path) -> None:
    """This machine's store is a filled one, and the synthetic splits are small."""
    few_frames()
    shutil.copy(filled, tmp_path / "machine-store.sqlite")


@pytest.fixture(scope="module")
def finished(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished one-step run on real training with made latencies."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    few_frames()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPS_SEARCH_LOCKS", str(folder.parent / "locks"))
        arguments = ["expand", "--steps", "1", *TINY_OPTIONS.split(), "--store", str(filled), "--out", str(folder)]
        assert run(arguments) == 0
    return folder


@pytest.fixture
def tiny_run(finished: Path, made_latencies: None, tmp_path: Path) -> Path:
    """That run, to do with as one likes."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_help_lists_the_verbs_and_a_missing_verb_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        verb in text for verb in ("expand", "resume", "show", "watch", "family", "package", "measure", "latency-table", "data", "doctor")
    )


def test_expand_leaves_everything_a_run_should(tiny_run: Path) -> None:
    names = {path.name for path in tiny_run.iterdir()}
    assert {"config.json", "environment.json", "study.journal", "latency.sqlite", "candidates.csv", "family.csv"} <= names
    assert {"trajectory.png", "checkpoints"} <= names
    rows = list(csv.DictReader((tiny_run / "family.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert all(float(row["latency_labels_ms"]) > 0 and (tiny_run / row["weights"]).is_file() for row in rows)
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert environment["latency"]["versions"]["onnxruntime"] and environment["packages"]["torch"]


def test_show_resume_and_expand_again_give_the_same_family(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def family(*arguments: str) -> list[dict[str, object]]:
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["family"]

    shown = family("show", str(tiny_run))
    assert len(shown) == 2 and shown[1]["architecture"] != shown[0]["architecture"]
    assert family("resume", str(tiny_run)) == shown
    assert family("expand", "--steps", "1", *TINY_OPTIONS.split(), "--out", str(tiny_run)) == shown
    extended = family("resume", str(tiny_run), "--steps", "2")
    assert extended[:2] == shown and len(extended) == 3


def test_show_prints_every_candidate_and_the_chain(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(tiny_run)]) == 0
    text = capsys.readouterr().out
    rows = list(csv.DictReader((tiny_run / "candidates.csv").read_text().splitlines()))
    assert len(rows) > 4 and all(row["architecture"] in text for row in rows)
    assert "1 of 1 steps taken" in text


def test_another_configuration_is_refused_with_the_fields_that_differ(tiny_run: Path, complaint: Complain) -> None:
    line = complaint("expand", "--steps", "1", *TINY_OPTIONS.split(), "--seed", "5", "--set", "learning_rate=0.1", "--out", str(tiny_run))
    assert "seed: 0, not 5" in line and "proxy.learning_rate: 0.004, not 0.1" in line


def test_another_environment_is_refused_unless_told_to_measure_anew(tiny_run: Path, complaint: Complain) -> None:
    file = tiny_run / "environment.json"
    values = json.loads(file.read_text())
    values["latency"]["versions"]["onnxruntime"] = "1.0"
    file.write_text(json.dumps(values))
    assert "onnxruntime: '1.0', not" in complaint("resume", str(tiny_run))
    assert run(["resume", str(tiny_run), "--remeasure"]) == 0


def test_max_hours_stops_and_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_frames()
    assert run(["expand", *TINY_OPTIONS.split(), "--max-hours", "0", "--out", str(tmp_path / "run")]) == 0
    assert f"lps-search resume {tmp_path / 'run'}" in capsys.readouterr().out


def test_control_c_stops_cleanly_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    few_frames()
    monkeypatch.setattr("search.runner.advance", interrupted)
    assert run(["expand", *TINY_OPTIONS.split(), "--out", str(tmp_path / "run")]) == 130
    assert f"lps-search resume {tmp_path / 'run'}" in capsys.readouterr().err


def test_a_search_that_cannot_go_on_is_one_line_and_exit_code_1(
    made_latencies: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY_OPTIONS.split(), "--set", "learning_rate=1e30", "--out", str(tmp_path / "run")]
    assert run(["expand", *options]) == 1
    assert "could not be trained: the loss is" in capsys.readouterr().err


def test_dry_run_names_the_children_and_estimates_without_making_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_frames()
    assert run(["expand", "--dry-run", *TINY_OPTIONS.split(), "--out", str(tmp_path / "run"), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {child["operation"] for child in plan["children"]} == {
        "depth-2",
        "depth-3",
        "depth-4",
        "width-1",
        "width-2",
        "width-3",
        "width-4",
        "scale-1",
    }
    assert plan["total_s"] > plan["training_s"] > 0
    assert not (tmp_path / "run").exists()


def test_measure_prints_every_boundary_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["measure", "N0", "--input", "64x128", "--classes", "5", "--seconds", "0"]
    assert run([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["boundary"] for row in rows] == ["scores", "logits", "labels"]
    assert all(row["latency_ms"] > 0 and row["shape"] == [1, 3, 64, 128] for row in rows)
    assert run([*arguments, "--boundary", "scores"]) == 0
    assert "median ms" in capsys.readouterr().out


def test_latency_table_writes_csv_and_names_widths_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new"
    quick = ["--seconds", "0", "--backend", "torch", "--threads", "1"]
    arguments = ["latency-table", "--parts", "widths", "--input", "64x64", "--widths", "8,2-4", *quick, "--out", str(out)]
    assert run([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["widths"]
    assert [(row["width"], row["separable"]) for row in rows] == [(width, kind) for kind in (False, True) for width in (2, 3, 4, 8)]
    written = list(csv.DictReader((out / "widths.csv").read_text().splitlines()))
    assert [int(row["width"]) for row in written] == [2, 3, 4, 8] * 2
    assert float(written[3]["macs_giga"]) == pytest.approx(9 * 8 * 8 * 64 / 1e9)
    assert float(written[7]["macs_giga"]) == pytest.approx((9 * 8 + 8 * 8) * 64 / 1e9)
    assert rows[3]["sweet_spot"] and (out / "widths.png").stat().st_size > 10_000
    assert run(arguments) == 0
    assert "widths worth using here" in capsys.readouterr().out


def test_latency_table_holds_layers_and_the_chain_of_table_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = latency_space.table_convs
    monkeypatch.setattr(latency_space, "table_convs", lambda size: whole(size)[::40])
    monkeypatch.setattr("lpsnet.architecture.TABLE_4", TABLE_4[:4])
    out, quick = tmp_path / "device", ["--seconds", "0", "--backend", "torch", "--threads", "1"]
    arguments = ["latency-table", "--parts", "networks,layers", "--input", "32x64", *quick, "--out", str(out)]
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert "layers, torch on cpu" in printed and "the chain of Table 4" in printed
    assert [row.conv for row in read_table(out / "layers.csv")] == list(whole((32, 64))[::40])
    networks = list(csv.DictReader((out / "networks.csv").read_text().splitlines()))
    assert [row["subject"].split()[0] for row in networks] == [str(architecture) for architecture in TABLE_4[:4]]
    assert (out / "layers.png").stat().st_size > 10_000
    assert run([*arguments, "--json"]) == 0  # from the store
    again = json.loads(capsys.readouterr().out)
    assert [f"{row['latency_ms']:.6g}" for row in again["networks"]] == [row["latency_ms"] for row in networks]


def test_doctor_names_each_backend_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {(row["backend"], row["device"]): row["state"] for row in found["backends"]}
    assert states[("ort", "cpu")] == states[("torch", "cpu")] == "ready"
    assert all(
        any(sign in state for sign in ("not yet executed on a GPU", "CUDA", "GPU", "pip install"))
        for (_, device), state in states.items()
        if device == "cuda"
    )
    assert run(["doctor"]) == 0


def test_data_check_reports_counts_sizes_and_shares(make_camvid: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = make_camvid({"train": 3, "val": 2, "test": 1})
    assert run(["data", "check", f"camvid:{root}", "--json"]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert {name: split["frames"] for name, split in splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert splits["train"]["sizes"] == ["32x48"]
    assert sum(splits["train"]["class_share_percent"].values()) == pytest.approx(100, abs=0.01)


# --- mistakes ---


def test_unknown_architecture_text_shows_the_position(complaint: Complain) -> None:
    assert "position 4" in complaint("measure", "B1-x")
    assert "position 1" in complaint("expand", "--start", "resnet")


def test_unknown_names_list_what_there_is(complaint: Complain) -> None:
    assert "synthetic, camvid" in complaint("expand", "--data", "cityscape:/x")
    assert "ort, ort-tensorrt, torch" in complaint("expand", "--backend", "tensorflow")
    assert "ort, ort-tensorrt, torch" in complaint("measure", "N0", "--backend", "tensorflow")
    assert "cpu, cuda" in complaint("measure", "N0", "--device", "tpu")
    assert "scores, logits, labels" in complaint("expand", "--boundary", "pixels")
    assert "scores, logits, labels" in complaint("measure", "N0", "--boundary", "pixels")
    assert "auto, cpu, cuda" in complaint("expand", "--training-device", "tpu")


def test_a_data_set_without_its_folder_layout_says_what_was_looked_for(tmp_path: Path, complaint: Complain) -> None:
    assert "camvid:PATH" in complaint("expand", "--data", "camvid")
    assert "takes no path" in complaint("expand", "--data", "synthetic:/x")
    line = complaint("expand", "--data", f"camvid:{tmp_path}")
    assert "trainannot" in line and str(tmp_path) in line
    assert "trainannot" in complaint("data", "check", f"camvid:{tmp_path}")


def test_a_broken_data_set_names_the_file(made_latencies: None, make_camvid: Callable[..., Path], complaint: Complain) -> None:
    root = make_camvid()
    label = root / "trainannot" / "frame1.png"
    kept = label.read_bytes()
    options = ["expand", "--steps", "0", "--data", f"camvid:{root}", *TINY_OPTIONS.split()]

    Image.fromarray(np.full((32, 48), 77, np.uint8)).save(label)
    for arguments in ([*options, "--out", str(root / "run1")], ["data", "check", f"camvid:{root}"]):
        line = complaint(*arguments)
        assert "frame1.png" in line and "77" in line and "0 to 10" in line
    Image.fromarray(np.zeros((30, 48), np.uint8)).save(label)
    line = complaint("data", "check", f"camvid:{root}")
    assert "48x30" in line and "48x32" in line
    label.unlink()
    assert "frame1.png" in complaint("data", "check", f"camvid:{root}")
    label.write_bytes(kept[: len(kept) // 2])
    assert "frame1.png" in complaint("data", "check", f"camvid:{root}")
    label.write_bytes(kept)
    for image in (root / "val").iterdir():
        image.unlink()
    assert "holds no image" in complaint("data", "check", f"camvid:{root}")


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, complaint: Complain) -> None:
    file = tmp_path / "file"
    file.write_text("")
    few_frames()
    assert "cannot be made" in complaint("expand", *TINY_OPTIONS.split(), "--out", str(file))
    assert "cannot be made" in complaint("expand", *TINY_OPTIONS.split(), "--out", str(file / "below"))
    assert "cannot be opened" in complaint("measure", "N0", "--store", str(file / "store.sqlite"))
    arguments = ["latency-table", "--parts", "widths", "--input", "64x64", "--widths", "2", "--seconds", "0", "--out", str(file)]
    assert "cannot be made" in complaint(*arguments)


def test_a_corrupt_store_or_study_is_named(tiny_run: Path, tmp_path: Path, complaint: Complain) -> None:
    store = tmp_path / "broken.sqlite"
    store.write_bytes(b"no database at all, but long enough to look like one" * 40)
    assert "broken.sqlite is corrupt" in complaint("measure", "N0", "--store", str(store))
    journal = tiny_run / "study.journal"
    lines = journal.read_text().splitlines()
    lines[4] = "{broken"
    journal.write_text("\n".join(lines) + "\n")
    assert "corrupt in line 5" in complaint("resume", str(tiny_run))


def test_a_folder_without_a_run_says_how_to_start_one(tmp_path: Path, complaint: Complain) -> None:
    for verb in ("show", "resume", "watch", "family", "package"):
        assert "lps-search expand --out" in complaint(verb, str(tmp_path))


def test_sizes_widths_spans_and_options_out_of_range_are_refused(complaint: Complain) -> None:
    assert "360x480" in complaint("expand", "--input", "360")
    assert "at least" in complaint("expand", "--max-width", "0")
    assert "eighths" in complaint("expand", "--max-scale", "1.3")
    assert "outside the bounds" in complaint("expand", "--max-depth", "8", "--start", "LPS-Net-S")
    assert "such as 100,200, got 'soon'" in complaint("expand", "--rungs", "soon")
    assert "rungs lie before the end of 200 iterations, got 200" in complaint("expand", "--rungs", "100,200")
    assert "rungs are iterations above 0 that rise" in complaint("expand", "--rungs", "200,100")
    assert "learning_rate" in complaint("expand", "--set", "learning_rate=-1")
    assert "unknown precision 'int8'; there are: fp32, bf16, fp16" in complaint("expand", "--precision", "int8")
    assert "--widths" in complaint("latency-table", "--widths", "4-")
    assert "any of widths, layers, networks" in complaint("latency-table", "--parts", "widths,rows")
    assert "at least 0 and below 1, got 1.5" in complaint("expand", "--noise", "1.5")
    assert "least size that works is 4x4" in complaint("measure", "LPS-Net-S", "--input", "2x2")
    assert "least size that works is 2x2" in complaint("expand", "--input", "1x1")
    assert "memory ran out" in complaint("measure", "N0", "--input", "999999x999999")
    assert "takes a database URL" in complaint("expand", "--storage", "garbage")
    assert "--steps" in complaint("expand", "--steps", "many")
    assert "no-such" in complaint("expand", "--no-such")
    assert "no-such" in complaint("no-such")


def test_parsing_of_sizes_and_widths() -> None:
    assert parse_size("360x480") == (360, 480)
    assert parse_widths("24-72:24,1-3,2") == (1, 2, 3, 24, 48, 72)


def test_the_installed_command_exits_with_the_code_and_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", "from search.cli import main; main(['measure', 'B1'])"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error:") and len(done.stderr.splitlines()) == 1


def test_values_in_a_row_get_options_of_their_own_and_nothing_else_does() -> None:
    assert spread(["runs/a", "--pick", "S=7", "M=8", "--json"]) == ["runs/a", "--pick", "S=7", "--pick", "M=8", "--json"]
    assert spread(["--budget-ms", "5", "10", "--fps", "60", "runs/a", "7"]) == [
        *("--budget-ms", "5", "--budget-ms", "10", "--fps", "60", "runs/a", "7")
    ]
    assert spread(["--budget-ms=5", "1e1"]) == ["--budget-ms=5", "--budget-ms", "1e1"]
    assert spread(["--boundary", "labels", "5"]) == ["--boundary", "labels", "5"]
