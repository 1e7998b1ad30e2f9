"""What a prediction, an export and a score make of odd files and names: 16-bit images, equal names, shipped networks."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpsnet import Architecture, CheckpointError, LPSNet, load, save
from lpsnet.data.files import read_image
from lpsnet.data.frames import DataError
from lpsnet.resume import differing
from search.cli import run
from search.prediction import distinct_names
from search.video import VideoWriter
from tests.test_train_verbs import refused

N0 = str(Architecture.parse("N0"))


def checkpoint(path: Path, classes: int = 3) -> Path:
    save(path, LPSNet("N0", classes), class_names=tuple("abcdefghijk"[:classes]), input_size=(64, 96))
    return path


def test_16_bit_grey_images_keep_their_upper_8_bits(tmp_path: Path) -> None:
    levels = np.array([[0, 255, 256], [12_345, 40_000, 65_535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[value >> 8] * 3 for value in row] for row in levels.tolist()]


def test_images_of_32_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "deep.tiff")
    with pytest.raises(DataError, match=r"deep\.tiff: an image must have 8 or 16 bits a channel, found mode 'F'"):
        read_image(tmp_path / "deep.tiff")


def test_every_image_has_a_name_of_its_own() -> None:
    paths = [Path(text) for text in ("a/x/1.png", "b/x/1.png", "b/x/1.jpg", "b_x/1.png", "c/2.png")]
    names = distinct_names(paths)
    assert len(set(names)) == len(paths) and names[-1] == "2"
    assert names[0] == "a_x_1_png"
    assert distinct_names([]) == []
    same = [Path(text) for text in ("a/1.png", "a/1.png", "a/1_png_2.png")]
    assert len(set(distinct_names(same))) == 3


def test_images_of_equal_names_are_all_predicted(tmp_path: Path) -> None:
    for folder in ("a/x", "b/x"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("RGB", (96, 64)).save(tmp_path / "in" / folder / "1.png")
    assert run(["predict", str(checkpoint(tmp_path / "n.safetensors")), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 2


@pytest.mark.parametrize("out", ["in/out", "in"])
def test_what_was_predicted_is_not_predicted_again(out: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("1", "a_mask"):
        Image.new("RGB", (96, 64)).save(tmp_path / "in" / f"{name}.png")
    arguments = ["predict", str(checkpoint(tmp_path / "n.safetensors")), str(tmp_path / "in"), "--out", str(tmp_path / out)]
    assert run(arguments) == 0
    first = (tmp_path / out / "times.csv").read_text().splitlines()
    written = {path.name for path in (tmp_path / out).iterdir()}
    assert len(first) == (3 if out == "in/out" else 2) and {"1_mask.png", "legend.png"} <= written
    assert run(arguments) == 0
    second = (tmp_path / out / "times.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in second] == [line.split(",")[0] for line in first]
    assert {path.name for path in (tmp_path / out).iterdir()} == written


def test_a_shipped_network_is_exported_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LPS_SEARCH_CHECKPOINTS", str(tmp_path))
    small = LPSNet("LPS-Net-S", 3).eval().deploy()
    save(tmp_path / "LPS-Net-S-train.safetensors", small, class_names=("a", "b", "c"), input_size=(64, 96))
    assert run(["export", "lps-net-s-train", "--out", str(tmp_path / "s.onnx"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)[str(tmp_path / "s.onnx")]
    assert told["weights"] == "lps-net-s-train" and told["class_names"] == ["a", "b", "c"]
    assert "leave out --classes 7" in refused(capsys, "export", "LPS-Net-S-train", "--classes", "7", "--out", str(tmp_path / "t.onnx"))


def test_a_shipped_network_and_its_train_only_one_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LPS_SEARCH_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("search.export.export_onnx", lambda model, plan, path, **_: {"boundary": "scores", "path": str(path)})
    for name in ("LPS-Net-S", "LPS-Net-S-train"):
        save(tmp_path / f"{name}.safetensors", LPSNet("LPS-Net-S", 3).eval().deploy(), class_names=tuple("abc"), input_size=(64, 96))
    written = []
    for name in ("LPS-Net-S", "lps-net-s-train"):
        assert run(["export", name, "--json"]) == 0
        written += json.loads(capsys.readouterr().out)
    text = Architecture.parse("LPS-Net-S")
    assert written == [f"{text}_64x96_labels_fp32.onnx", f"{text}-train_64x96_labels_fp32.onnx"]


def test_another_architecture_than_the_text_that_is_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["export", "N0", "--input", "64x96", "--out", str(tmp_path / "n.onnx")]
    assert f"N0 is {N0}, expected skipnet-mobilenet" in refused(capsys, *given, "--architecture", "skipnet-mobilenet")
    assert not (tmp_path / "n.onnx").exists()
    monkeypatch.setattr("search.export.export_onnx", lambda *_, **__: {})
    assert run([*given, "--architecture", N0, "--json"]) == 0


def test_an_architecture_is_exported_with_random_weights_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", N0, "--input", "64x96", "--out", str(tmp_path / "n.onnx")]) == 0
    assert "random weights" in capsys.readouterr().err


def test_what_cannot_be_written_is_found_before_scoring(
    tmp_path: Path, make_camvid: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_camvid()  # type: ignore[operator]
    monkeypatch.setattr("search.scoring.evaluate", lambda *_, **__: pytest.fail("scored"))
    given = ["evaluate", str(checkpoint(tmp_path / "n.safetensors", 11)), "--data", f"camvid:{root}"]
    (tmp_path / "file").write_text("")
    assert "cannot be made" in refused(capsys, *given, "--out", str(tmp_path / "file"))
    assert "takes its 19 classes" in refused(capsys, *given, "--submission", str(tmp_path / "sent"))
    (tmp_path / "x.onnx").write_text("")
    assert "lps-search predict takes it" in refused(capsys, "evaluate", str(tmp_path / "x.onnx"), "--data", f"camvid:{root}")


@pytest.mark.parametrize("count", [0, 256, "5", 2.0])
def test_a_number_of_classes_out_of_range_is_refused(count: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="num_classes must be a whole number from 1 to 255"):
        load(checkpoint(tmp_path / "n.safetensors"), num_classes=count)  # type: ignore[arg-type]


def test_descriptions_are_compared_field_by_field() -> None:
    assert differing({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}) == ""
    assert differing({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 5, "b": {"c": 2}}) == "a: 1, not 5; d: 3, not None"


def test_a_device_that_is_not_there_names_the_verbs_own_option(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "use --device cpu" in refused(capsys, "train", "N0", "--out", "x", "--device", "cuda")
    assert "use --training-device cpu" in refused(capsys, "expand", "--training-device", "cuda")


def test_memory_that_runs_out_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "1.png")
    given = ["predict", str(checkpoint(tmp_path / "n.safetensors")), str(tmp_path / "1.png"), "--out", str(tmp_path / "out")]
    assert "memory ran out" in refused(capsys, *given, "--input", "1000000x1000000")


def test_a_contact_sheet_needs_a_png_in_a_folder(make_camvid: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_camvid()  # type: ignore[operator]
    (tmp_path / "file").write_text("")
    for sheet, message in ((tmp_path / "s.foo", "--sheet names a PNG"), (tmp_path / "new" / "s.png", "there is no folder")):
        assert message in refused(capsys, "data", "check", f"camvid:{root}", "--sheet", str(sheet))


def test_a_damaged_image_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        Image.new("RGB", (96, 64)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"cut")
    network, out = str(checkpoint(tmp_path / "n.safetensors")), tmp_path / "out"
    line = refused(capsys, "predict", network, *(str(tmp_path / f"{name}.png") for name in "abc"), "--out", str(out))
    assert "1 inputs cannot be read, the others are done" in line and "b.png" in line
    assert len((out / "times.csv").read_text().splitlines()) == 3 and (out / "c_mask.png").is_file()


def test_videos_of_one_name_are_found_in_folders_and_all_written(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for folder in "ab":
        (tmp_path / "in" / folder).mkdir(parents=True)
        with VideoWriter(tmp_path / "in" / folder / "v.mp4", Fraction(5)) as writer:
            writer.add(np.zeros((64, 96, 3), np.uint8))
    assert run(["predict", str(checkpoint(tmp_path / "n.safetensors")), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"a_v_mp4_overlay.mp4", "b_v_mp4_overlay.mp4"}


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_an_input_too_small_is_one_line(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "1.png")
    save(tmp_path / "n.safetensors", LPSNet("LPS-Net-S", 11), class_names=tuple("abcdefghijklmnopqrst"[:11]), input_size=(64, 96))
    given = [str(tmp_path / "1.png"), "--out", str(tmp_path / "out")] if verb == "predict" else ["--data", "synthetic"]
    line = refused(capsys, verb, str(tmp_path / "n.safetensors"), *given, "--input", "1x1")
    assert "input 1x1 is too small" in line and "4x4" in line


def test_scores_are_told_though_writing_fails(
    tmp_path: Path, make_camvid: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("search.scoring.write_json", full)
    given = [str(checkpoint(tmp_path / "n.safetensors", 11)), "--data", f"camvid:{make_camvid()}"]  # type: ignore[operator]
    assert run(["evaluate", *given, "--out", str(tmp_path / "o")]) == 2
    told = capsys.readouterr()
    assert "mIoU" in told.out and "no space left" in told.err


def test_a_shipped_network_that_is_not_here_and_a_file_without_architecture_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LPS_SEARCH_CHECKPOINTS", str(tmp_path))
    assert "no checkpoint of LPS-Net-S-train" in refused(capsys, "export", "LPS-Net-S-train")
    (tmp_path / "a.pth").write_bytes(b"")
    assert "--architecture LPS-Net-S" in refused(capsys, "evaluate", str(tmp_path / "a.pth"))
