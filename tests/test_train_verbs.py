"""`train`, `evaluate`, `predict`, `bench-data`, `pretrain`: what they leave, what they print, and what they refuse."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lpsnet import Architecture, LPSNet, load, save
from lpsnet.checkpoint import read_metadata
from lpsnet.data import DataSpec, open_split
from lpsnet.data.camvid import COLOURS, CamVid
from lpsnet.data.cityscapes import LABEL_IDS
from lpsnet.data.frames import Frames
from lpsnet.errors import UserError
from lpsnet.evaluation import evaluate
from search.cli import run
from search.training_folder import held, read_curve
from tests.test_datasets import cityscapes
from tests.tiny import TINY_TRAINING, trained_folder

N0 = str(Architecture.parse("N0"))
SIZE = ["--set=input_height=64", "--set=input_width=96", "--set=crop_height=32", "--set=crop_width=64"]
QUICK = [*TINY_TRAINING, *SIZE]
MakeCamVid = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training's folder, and the CamVid folder it was trained on, for reading."""
    return trained_folder(tmp_path_factory.mktemp("trained"), "N0", *QUICK)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert run(list(arguments)) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def test_a_training_leaves_everything_a_reader_needs(trained: tuple[Path, Path]) -> None:
    out, root = trained
    names = {path.name for path in out.iterdir()}
    told_of = {"config.json", "curve.csv", "curve.png", "tensorboard", "scores.json", "classes.csv", "confusion.png", "README.md"}
    assert names == {*told_of, f"{N0}.safetensors"}
    told = read_metadata(out / f"{N0}.safetensors")
    assert told.input_size == (64, 96) and told.colours == COLOURS and told.licence.startswith("CamVid")
    assert told.provenance["splits"] == ["train"] and told.recipe["iterations"] == 3
    scores = json.loads((out / "scores.json").read_text())
    assert scores["miou_percent"] == told.metrics["miou_percent"] and scores["images"] == 2 and not scores["trained_on_val"]
    card = (out / "README.md").read_text()
    assert f"mIoU {scores['miou_percent']:.2f} %" in card and "CamVid: research" in card and str(root) not in card
    assert [row["iteration"] for row in csv.DictReader((out / "curve.csv").read_text().splitlines())] == ["1", "2", "3"]
    assert list((out / "tensorboard").iterdir())
    frames = Frames(CamVid(root, "val"), (360, 480))
    found = evaluate(load(out / f"{N0}.safetensors"), frames, input_size=(64, 96))
    assert found.scores.miou_percent == pytest.approx(scores["miou_percent"], abs=1e-6)


def test_a_finished_training_is_told_again_and_another_one_refused(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    out, root = trained
    before = (out / f"{N0}.safetensors").stat().st_mtime_ns
    arguments = ["train", "N0", "--data", f"camvid:{root}", *QUICK, "--out", str(out)]
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["miou_percent"] == json.loads((out / "scores.json").read_text())["miou_percent"]
    assert (out / f"{N0}.safetensors").stat().st_mtime_ns == before
    assert "holds another training (seed: 0, not 1)" in refused(capsys, *arguments, "--seed", "1")


def test_cut_short_while_it_writes_its_results_it_writes_them_all(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, root = trained
    arguments = ["train", "N0", "--data", f"camvid:{root}", *QUICK, "--out", str(tmp_path / "out")]

    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    for part in ("search.training_run.write_curve_figure", "search.training_run.write_card", "search.scoring.write_confusion"):
        with monkeypatch.context() as patch:
            patch.setattr(part, cut)
            assert run(arguments) == 130
    assert run(arguments) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in whole.iterdir()}
    assert (tmp_path / "out" / "classes.csv").read_text() == (whole / "classes.csv").read_text()


def test_a_network_to_ship_is_trained_on_both_splits_and_claims_no_score(
    make_camvid: MakeCamVid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ship"
    root = make_camvid()
    assert run(["train", "N0", "--data", f"camvid:{root}", *QUICK, "--splits", "train,val", "--out", str(out)]) == 0
    assert read_metadata(out / f"{N0}.safetensors").metrics == {}
    assert json.loads((out / "scores.json").read_text())["trained_on_val"]
    assert "the validation split was trained on, too" in (out / "README.md").read_text()
    capsys.readouterr()
    assert run(["evaluate", str(out / f"{N0}.safetensors"), "--data", f"camvid:{root}", "--split", "val"]) == 0
    assert "was trained on the val split, too" in capsys.readouterr().err


def test_a_training_starts_from_a_checkpoint_and_learns_from_a_teacher(trained: tuple[Path, Path], tmp_path: Path) -> None:
    out, root = trained
    first = str(out / f"{N0}.safetensors")
    wide = "B1-1-1-1-1_C8-8-16-32-32_R4"
    still = ["--set=iterations=1", "--set=learning_rate=1e-30", "--set=batch_size=2", *SIZE, "--threads", "1"]
    assert run(["train", "N0", "--data", f"camvid:{root}", *still, "--init", first, "--out", str(tmp_path / "a")]) == 0
    again, source = (load(path).state_dict() for path in (tmp_path / "a" / f"{N0}.safetensors", first))
    assert all(torch.equal(again[name], source[name]) for name in source if "weight" in name)
    taught = ["--teacher", first, "--set=distillation=1"]
    assert run(["train", wide, "--data", f"camvid:{root}", *QUICK, *taught, "--out", str(tmp_path / "b")]) == 0
    plain = tmp_path / "c"
    assert run(["train", wide, "--data", f"camvid:{root}", *QUICK, "--out", str(plain)]) == 0
    assert (tmp_path / "b" / "curve.csv").read_text() != (plain / "curve.csv").read_text()


def test_evaluating_a_checkpoint_gives_the_trainings_own_scores(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, root = trained
    arguments = ["evaluate", str(out / f"{N0}.safetensors"), "--data", f"camvid:{root}"]
    assert run([*arguments, "--json", "--out", str(tmp_path / "scored")]) == 0
    found = json.loads(capsys.readouterr().out)
    own = json.loads((out / "scores.json").read_text())
    assert found["miou_percent"] == pytest.approx(own["miou_percent"], abs=1e-9) and found["images"] == 2
    assert {path.name for path in (tmp_path / "scored").iterdir()} == {"scores.json", "classes.csv", "confusion.png"}
    for more in (["--flip"], ["--scales", "0.5,1"], ["--batch", "2"], ["--input", "32x48"], ["--split", "train"]):
        assert run([*arguments, *more, "--json"]) == 0
        other = json.loads(capsys.readouterr().out)
        assert other["images"] == (4 if "train" in more else 2)
        assert more[0] != "--batch" or other == found


def test_mistakes_are_one_line(trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, root = trained
    checkpoint, data = str(out / f"{N0}.safetensors"), f"camvid:{root}"
    (tmp_path / "file").write_text("x")
    cases = [
        (["evaluate", checkpoint, "--data", "cityscapes:x"], "x/leftImg8bit/val is no folder"),
        (["evaluate", checkpoint, "--data", data, "--split", "test"], "test is no folder"),
        (["evaluate", checkpoint, "--data", data, "--scales", "1,x"], "--scales takes numbers"),
        (["evaluate", checkpoint, "--data", data, "--input", "big"], "--input takes a size"),
        (["evaluate", checkpoint, "--data", data, "--submission", str(tmp_path / "s")], "takes its 19 classes"),
        (["train", "N0", "--data", data, "--out", str(tmp_path / "file" / "x")], "cannot be made"),
        (["train", "N0", "--data", data, "--recipe", "none", "--out", str(tmp_path / "n")], "unknown recipe 'none'"),
        (["train", "N0", "--data", data, "--splits", "val", "--out", str(tmp_path / "n")], "splits must be train"),
        (["train", "N0", "--data", data, *QUICK, "--precision", "fp8", "--out", str(tmp_path / "n")], "unknown precision 'fp8'"),
        (["train", "N0", "--data", data, *QUICK, "--teacher", checkpoint, "--out", str(tmp_path / "n")], "add --set distillation=1"),
        (["train", "N0", "--data", data, *QUICK, "--init", str(tmp_path / "file"), "--out", str(tmp_path / "n")], "no safetensors file"),
        (["predict", checkpoint, str(tmp_path / "none.png"), "--out", str(tmp_path / "p")], "no such file"),
        (["predict", checkpoint, str(tmp_path / "file"), "--out", str(tmp_path / "p")], "neither an image"),
        (["predict", checkpoint, str(out), "--out", str(tmp_path / "file")], "cannot write"),
        (["predict", str(tmp_path / "x.onnx"), str(root / "val")], "needs the description that lps-search export writes"),
        (["pretrain", "N0", "--data", str(tmp_path), "--out", str(tmp_path / "w")], "looked for train/CLASS/"),
    ]
    for arguments, message in cases:
        assert message in refused(capsys, *arguments), arguments


def test_a_loss_that_is_lost_twice_ends_with_code_1(make_camvid: MakeCamVid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "N0", "--data", f"camvid:{make_camvid()}", *QUICK, "--set=iterations=60", "--set=learning_rate=1e30"]
    assert "the loss is" in refused(capsys, *arguments, "--out", str(tmp_path / "lost"), code=1)


def test_a_submission_holds_label_ids_at_full_size(tmp_path: Path) -> None:
    from lpsnet.checkpoint import save
    from lpsnet.network import LPSNet
    from search.observer import Observer
    from search.scoring import write_submission

    cityscapes(tmp_path / "data")
    frames = open_split(DataSpec.parse(f"cityscapes:{tmp_path / 'data'}"), "train", (16, 24))
    torch.manual_seed(0)
    network = LPSNet("N0", 19).eval()
    save(tmp_path / "n.safetensors", network, class_names=frames.class_names, input_size=(32, 48))
    write_submission(tmp_path / "out", network, frames, (32, 48), Observer())
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [f"ulm_{number:06}_000019_pred_labelIds.png" for number in range(3)]
    found = np.asarray(Image.open(written[0]))
    assert found.shape == (16, 24) and set(np.unique(found)) <= set(LABEL_IDS)


def picture(path: Path, size: tuple[int, int] = (30, 44)) -> Path:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def test_pictures_are_labelled_the_same_by_checkpoint_and_graph(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = trained
    checkpoint, folder = str(out / f"{N0}.safetensors"), tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    picture(folder / "one.png")
    picture(folder / "more" / "one.jpg", (64, 96))
    assert run(["predict", checkpoint, str(folder), "--out", str(tmp_path / "p"), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 2
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert {"legend.png", "times.csv", "one_png_overlay.png", "one_png_mask.png", "more_one_jpg_overlay.png"} < names
    mask = np.asarray(Image.open(tmp_path / "p" / "more_one_jpg_mask.png"))
    assert mask.shape == (64, 96) and mask.max() < 11
    overlay = np.asarray(Image.open(tmp_path / "p" / "more_one_jpg_overlay.png")).astype(float)
    image = np.asarray(Image.open(folder / "more" / "one.jpg").convert("RGB")).astype(float)
    np.testing.assert_allclose(overlay, 0.45 * image + 0.55 * np.array(COLOURS)[mask], atol=1)
    for boundary in ("labels", "scores"):
        graph = tmp_path / f"{boundary}.onnx"
        assert run(["export", checkpoint, "--boundary", boundary, "--normalised", "--out", str(graph)]) == 0
        assert run(["predict", str(graph), str(folder / "more" / "one.jpg"), "--out", str(tmp_path / boundary)]) == 0
        assert (np.asarray(Image.open(tmp_path / boundary / "one_mask.png")) == mask).mean() > 0.97
    assert (tmp_path / "labels" / "legend.png").read_bytes() == (tmp_path / "p" / "legend.png").read_bytes()
    assert "leave out --input" in refused(capsys, "predict", str(tmp_path / "labels.onnx"), str(folder), "--input", "64x96")


def test_a_video_is_labelled_frame_by_frame(trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    from fractions import Fraction

    from search.video import VideoWriter, read_video

    with VideoWriter(tmp_path / "drive.mp4", Fraction(10)) as writer:
        for index in range(5):
            writer.add(np.full((48, 64, 3), 40 * index, np.uint8))
    out, _ = trained
    assert (
        run(["predict", str(out / f"{N0}.safetensors"), str(tmp_path / "drive.mp4"), "--out", str(tmp_path / "v"), "--device", "cpu"]) == 0
    )
    with read_video(tmp_path / "v" / "drive_overlay.mp4") as video:
        frames = list(video)
        assert len(frames) == 5 and frames[0].shape == (48, 64, 3) and video.rate == 10
    rows = list(csv.DictReader((tmp_path / "v" / "times.csv").read_text().splitlines()))
    assert len(rows) == 5 and all(float(row[f"{part}_ms"]) > 0 for row in rows for part in ("read", "infer", "write"))
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "drive.mp4").read_bytes()[:200])
    capsys.readouterr()
    assert "cannot be read as a video" in refused(capsys, "predict", str(out / f"{N0}.safetensors"), str(tmp_path / "cut.mp4"))


def test_a_bench_tells_the_three_speeds(make_camvid: MakeCamVid, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench-data", "--data", f"camvid:{make_camvid()}", "--set=batch_size=2", *SIZE, "--iterations", "3", "--device", "cpu"]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert min(found["loader"], found["network"], found["both"]) > 0
    assert 0 <= found["idle_percent"] < 100
    assert run(arguments) == 0
    assert "waits for data" in capsys.readouterr().out


def raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_path_is_pretrained_and_taken_over_by_every_path_of_a_network(
    make_camvid: MakeCamVid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for name, level in (("dark", 40), ("light", 200)):
            (tmp_path / "classes" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(level - 30, level + 30, (40, 48, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "classes" / split / name / f"{index}.JPEG", format="JPEG")
    weights, two = tmp_path / "path.safetensors", "B1-1-1-1-1_C4-8-16-32-32_R4-2"
    options = ["--epochs", "6", "--batch", "8", "--size", "32", "--device", "cpu"]
    assert run(["pretrain", two, "--data", str(tmp_path / "classes"), "--out", str(weights), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1_percent"] > 90
    still = ["--set=iterations=1", "--set=learning_rate=1e-30", "--set=batch_size=2", *SIZE, "--threads", "1"]
    assert run(["train", two, "--data", f"camvid:{make_camvid()}", *still, "--init", str(weights), "--out", str(tmp_path / "t")]) == 0
    from lpsnet.checkpoint import read_tensors

    theirs, ours = read_tensors(weights), read_tensors(tmp_path / "t" / f"{two}.safetensors")
    for name, tensor in theirs.items():
        if name.endswith("weight"):
            for path in range(2):
                torch.testing.assert_close(ours[name.replace("path.", f"paths.{path}.", 1)], tensor)
    assert not weights.with_name("path.safetensors.state").exists()
    (tmp_path / "classes" / "val" / "dark" / "0.JPEG").write_bytes(b"cut")
    assert "cannot be read as an image" in refused(
        capsys, "pretrain", two, "--data", str(tmp_path / "classes"), "--out", str(weights), *options
    )
    state = weights.with_name("path.safetensors.state")
    assert state.exists(), "an image that cannot be scored costs no epoch"
    Image.new("RGB", (48, 40)).save(tmp_path / "classes" / "val" / "dark" / "0.JPEG", format="JPEG")
    assert "another training (epochs: 6, not 7;" in refused(
        capsys, "pretrain", two, "--data", str(tmp_path / "classes"), "--out", str(weights), *options, "--epochs", "7"
    )
    assert run(["pretrain", two, "--data", str(tmp_path / "classes"), "--out", str(weights), *options]) == 0
    assert not state.exists() and "epochs 1/6" not in capsys.readouterr().err
    monkeypatch.setattr("lpsnet.classifier.accuracy", raise_interrupt)
    line = refused(capsys, "pretrain", two, "--data", str(tmp_path / "classes"), "--out", str(weights), *options, code=130)
    assert "the same command goes on" in line and state.exists()
    (tmp_path / "classes" / "train" / "dark").rename(tmp_path / "classes" / "train" / "dusk")
    (tmp_path / "classes" / "val" / "dark").rename(tmp_path / "classes" / "val" / "dusk")
    assert "is of the classes" in refused(capsys, "pretrain", two, "--data", str(tmp_path / "classes"), "--out", str(weights), *options)
    assert "is a folder" in refused(capsys, "pretrain", two, "--data", str(tmp_path / "classes"), "--out", str(tmp_path))


def test_a_contact_sheet_is_drawn(make_camvid: MakeCamVid, tmp_path: Path) -> None:
    root = make_camvid({"train": 14, "val": 2})
    assert run(["data", "check", f"camvid:{root}", "--sheet", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 3 * (2 * 240 + 8) + 8 and len(sheet.getcolors(1 << 24)) > 100


def test_a_training_starts_from_a_deployed_checkpoint_and_other_classes_get_a_new_head(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, root = trained
    first, still = load(out / f"{N0}.safetensors"), ["--set=iterations=1", "--set=learning_rate=1e-30", "--set=batch_size=2"]
    deployed = tmp_path / "deployed.safetensors"
    save(deployed, first.deploy(), class_names=read_metadata(out / f"{N0}.safetensors").class_names, input_size=(64, 96))
    arguments = ["--data", f"camvid:{root}", *still, *SIZE, "--threads", "1", "--init", str(deployed)]
    assert run(["train", "N0", *arguments, "--out", str(tmp_path / "a")]) == 0
    assert "in deployed form" in capsys.readouterr().err
    assert f"Started from the weights of `{deployed}`." in (tmp_path / "a" / "README.md").read_text()
    again = load(tmp_path / "a" / f"{N0}.safetensors")
    images = torch.randn(2, 3, 64, 96)
    assert not again.deployed and again.branches
    with torch.no_grad():
        own, theirs = again.deploy().scores(images), first.scores(images)
    assert float((own - theirs).abs().max()) < 0.3 * float(theirs.abs().max()), "an update moved the statistics, no weight"
    save(deployed, LPSNet(N0, 3).eval().deploy(), class_names=("a", "b", "c"), input_size=(64, 96))
    assert run(["train", "N0", *arguments, "--out", str(tmp_path / "b")]) == 0
    assert "the head for 11 is new" in capsys.readouterr().err
    assert load(tmp_path / "b" / f"{N0}.safetensors").num_classes == 11
    wide = "B1-1-1-1-1_C8-8-16-32-32_R4"
    assert f"holds {N0}, expected {wide}" in refused(capsys, "train", wide, *arguments, "--out", str(tmp_path / "c"))


def test_a_folder_in_which_nothing_was_trained_takes_a_corrected_training(
    make_camvid: MakeCamVid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", f"camvid:{make_camvid()}"]
    arguments = ["train", "shufflenetv2-basic", *data, *QUICK, "--set=iterations=1", "--out", str(tmp_path / "out")]
    assert "cannot be trained so" in refused(capsys, *arguments, "--set=batch_size=1")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["recipe"]["batch_size"] == 1
    assert run(arguments) == 0
    capsys.readouterr()
    assert "batch_size: 2, not 1" in refused(capsys, *arguments, "--set=batch_size=1")


def test_one_training_at_a_time_in_a_folder(trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, root = trained
    arguments = ["train", "N0", "--data", f"camvid:{root}", *QUICK, "--out", str(tmp_path / "t")]
    with held(tmp_path / "t"):
        assert "a training is running in" in refused(capsys, *arguments)
    assert run(arguments) == 0
    assert not (tmp_path / "t" / "training.lock").exists()


def test_the_last_point_of_the_curve_has_the_networks_score(trained: tuple[Path, Path]) -> None:
    out, _ = trained
    *_, last = read_curve(out / "curve.csv")
    assert float(last["val_miou_percent"]) == pytest.approx(json.loads((out / "scores.json").read_text())["miou_percent"], abs=1e-3)


@pytest.mark.parametrize("text", ["iteration,loss\nx,1\n", "loss\n1\n", "\xff\x00"])
def test_a_damaged_curve_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="is no learning curve"):
        read_curve(tmp_path / "curve.csv")


def test_mistakes_are_found_before_the_frames_are_decoded(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, root = trained
    checkpoint = str(out / f"{N0}.safetensors")
    few = tmp_path / "few.safetensors"
    save(few, LPSNet(N0, 3), class_names=("a", "b", "c"), input_size=(64, 96))
    monkeypatch.setattr(Frames, "hold", lambda *_: pytest.fail("decoded"))
    tiny = [f"--set={name}=16" for name in ("input_height", "input_width", "crop_height", "crop_width")]
    cases = [
        (["--init", "nowhere.safetensors"], "no checkpoint at nowhere.safetensors"),
        (["--teacher", "nowhere.safetensors", "--set=distillation=1"], "no checkpoint at nowhere.safetensors"),
        (["--teacher", str(few), "--set=distillation=1"], "has 3 classes, the data set 11"),
        (["--teacher", checkpoint], "a teacher needs a weight"),
        (["--set=distillation=1"], "needs a teacher"),
        (["--set=batch_size=1", *tiny], "ends in a single pixel"),
        (["--set=crop_height=1", "--set=crop_width=1"], "too small"),
        (["--seed", str(2**64)], "seed must be from 0"),
        (["--set=jitter=inf"], "jitter must be finite"),
        (["--set=batch_size=1000000"], "batch_size must be at most 10000"),
        (["--precision", "fp16"], "fp16 trains on a GPU"),
    ]
    for number, (options, message) in enumerate(cases):
        assert message in refused(capsys, "train", "N0", "--data", f"camvid:{root}", *QUICK, *options, "--out", str(tmp_path / str(number)))


def test_a_split_without_a_label_is_refused(make_camvid: MakeCamVid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_camvid()
    for path in (root / "valannot").iterdir():
        Image.fromarray(np.full(np.asarray(Image.open(path)).shape, 255, np.uint8)).save(path)
    line = refused(capsys, "train", "N0", "--data", f"camvid:{root}", *QUICK, "--out", str(tmp_path / "t"))
    assert "the validation split has no labelled pixel" in line
    assert not (tmp_path / "t" / "config.json").exists()
