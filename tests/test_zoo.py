"""One seam for every network with a name: what is accepted, built, saved, trained, scored and exported, and what only LPS-Nets can."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from latency.measure import measure
from latency.measurement import TimingPlan
from latency.store import Store
from lpsnet import Architecture, UserError, load, save, zoo
from lpsnet.architecture import NAMED, ArchitectureError
from lpsnet.baselines import BASELINES
from lpsnet.checkpoint import CheckpointError, read_metadata
from lpsnet.network import LPSNet
from lpsnet.zoo import Network, SegmentationNetwork, build, canonical, complexity_of, lps_net, names, paper_of, score_scale
from search.cli import run
from tests.backends import normalised
from tests.tiny import TINY_TRAINING, trained_folder

SMALL = "shufflenetv2-basic"
SKIP = "skipnet-shufflenet"
"""A network with more than one layer whose width is the number of classes."""

CLASSES = ("a", "b", "c")
QUICK = ["--seconds", "0", "--backend", "torch", "--threads", "1"]
SIZE = ["--set=input_height=64", "--set=input_width=96", "--set=crop_height=64", "--set=crop_width=96"]
FEW = [*TINY_TRAINING, *SIZE]


def lively(name: str, classes: int = len(CLASSES)) -> Network:
    """A network whose normalisations are no identity, in eval mode."""
    torch.manual_seed(3)
    return normalised(build(name, classes)).eval()  # type: ignore[arg-type,return-value]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command line, which must end with exit code 2 and one line on stderr; returns the line."""

    def refuse(*arguments: str) -> str:
        assert run(list(arguments)) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        return line

    return refuse


# Names


def test_a_name_is_known_in_any_case_and_a_text_in_any_spelling() -> None:
    assert canonical(" SkipNet-MobileNet ") == "skipnet-mobilenet"
    assert canonical("lps-net-s") == canonical("B1-3-3-10-10_C8-24-48-96-96_R2-6") == str(NAMED["LPS-Net-S"])
    assert canonical(NAMED["N0"]) == str(NAMED["N0"])
    assert names() == (*NAMED, *BASELINES) and len({canonical(name) for name in names()}) == len(names())


def test_an_unknown_text_is_told_both_kinds_of_name_and_the_form_of_a_text() -> None:
    with pytest.raises(ArchitectureError) as caught:
        canonical("resnet")
    assert "position 1" in str(caught.value)
    for part in ("B1-3-3-10-10_C8-24-48-96-96_R6-2", "LPS-Net-S", "skipnet-vgg16", "mobilenetv2-dpc"):
        assert part in str(caught.value)


def test_what_knows_lps_nets_only_says_so() -> None:
    assert lps_net("N0", "expand") == NAMED["N0"]
    with pytest.raises(ArchitectureError, match=r"expand takes LPS-Nets only, such as N0 or LPS-Net-S; skipnet-vgg16 is a comparison"):
        lps_net("SkipNet-VGG16", "expand")


@pytest.mark.parametrize("name", ["N0", SMALL])
def test_both_kinds_are_built_in_both_forms_and_speak_the_same(name: str) -> None:
    for deployed in (False, True):
        network: SegmentationNetwork = build(name, 5, deployed=deployed)
        assert (network.name, network.num_classes, network.deployed) == (canonical(name), 5, deployed)
        assert network.branches == (name == "N0" and not deployed)
        assert network.deploy().deployed
    lively_one = lively(name)
    deployed_one = build(name, 3, deployed=True)
    assert deployed_one.state_dict().keys() == lively_one.deploy().state_dict().keys()
    with pytest.raises(ValueError, match="at least 1, got 0"):
        build(name, 0)


def test_complexity_is_of_the_deployed_form_and_counted_once() -> None:
    for name in ("N0", SMALL):
        found = complexity_of(name, 7, (64, 96))
        assert found.parameters == sum(p.numel() for p in lively(name, 7).deploy().parameters())
        assert complexity_of(name, 7, (64, 96)) is found and 0 < found.macs < complexity_of(name, 7, (128, 96)).macs
    with pytest.raises(ValueError, match="least size that works is 4x4"):
        complexity_of("LPS-Net-S", 7, (2, 2))


@pytest.mark.parametrize("name", ["N0", "LPS-Net-S", SMALL, SKIP, "liteseg-shufflenet"])
def test_the_scale_of_the_scores_is_that_of_the_score_maps(name: str) -> None:
    with torch.device("meta"):
        maps = build(name, 3).eval().scores(torch.empty(1, 3, 256, 512, device="meta"))
    assert tuple(maps.shape[-2:]) == (256 * score_scale(name), 512 * score_scale(name))


def test_a_network_says_its_paper_and_scale() -> None:
    assert paper_of("n0") == ("LPS-Net", "2207.13600") and paper_of("UNet-VGG16") == ("RTSeg", "1803.02758")
    assert score_scale("LPS-Net-S") == Fraction(3, 64)


# Checkpoints


@pytest.mark.parametrize("form", ["training", "deployed"])
@pytest.mark.parametrize("name", [SMALL, SKIP])
def test_a_comparison_network_comes_back_from_its_checkpoint(form: str, name: str, tmp_path: Path) -> None:
    network = lively(name).deploy() if form == "deployed" else lively(name)
    image = torch.rand(1, 3, 64, 96)
    save(tmp_path / "n.safetensors", network, class_names=CLASSES, input_size=(64, 96))
    told, found = read_metadata(tmp_path / "n.safetensors"), load(tmp_path / "n.safetensors", name.upper())
    assert told.architecture == found.name == name and found.deployed == told.deployed == (form == "deployed")
    with torch.inference_mode():
        assert torch.equal(found(image), network.eval()(image))
    save(tmp_path / "half.safetensors", network, class_names=CLASSES, input_size=(64, 96), half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.62 * (tmp_path / "n.safetensors").stat().st_size
    with torch.inference_mode():
        expected = network(image)
        torch.testing.assert_close(load(tmp_path / "half.safetensors")(image), expected, atol=0.03 * float(expected.abs().max()), rtol=0)


def test_for_other_classes_every_weight_that_fits_is_taken_over(tmp_path: Path) -> None:
    network = lively(SKIP)
    save(tmp_path / "n.safetensors", network, class_names=CLASSES, input_size=(64, 96))
    with pytest.warns(UserWarning, match=r"has 3 classes: decoder\..* for 5 are new and must be trained"):
        found = load(tmp_path / "n.safetensors", num_classes=5)
    assert found(torch.rand(1, 3, 64, 96)).shape == (1, 5, 64, 96) and not found.training
    before, after = network.state_dict(), found.state_dict()
    kept = [name for name in after if after[name].shape == before[name].shape]
    assert len(after) - len(kept) > 4 and all(torch.equal(after[name], before[name]) for name in kept)
    assert all(name in kept for name in after if name.startswith("encoder."))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "n.safetensors", lively(SMALL), class_names=CLASSES, input_size=(64, 96))
    for wanted in ("N0", SKIP):
        with pytest.raises(CheckpointError, match=f"holds {SMALL}, expected {canonical(wanted)}"):
            load(tmp_path / "n.safetensors", wanted)
    torch.save({"head.weight": torch.zeros(3, 4, 1, 1)}, tmp_path / "n.pth")
    with pytest.raises(ArchitectureError, match="takes LPS-Nets only"):
        load(tmp_path / "n.pth", SMALL)


def test_the_hubs_layout_holds_a_comparison_network_too(tmp_path: Path) -> None:
    from lpsnet.hub import HubNetwork

    network, image = lively(SMALL), torch.rand(1, 3, 64, 96)
    save(tmp_path / "n.safetensors", network, class_names=CLASSES, input_size=(64, 96))
    HubNetwork.of(tmp_path / "n.safetensors").save_pretrained(tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["architecture"] == SMALL
    found = HubNetwork.from_pretrained(str(tmp_path / "hub"))
    assert (found.name, found.num_classes, found.deployed) == (SMALL, 3, False)
    with torch.inference_mode():
        assert torch.equal(found(image), network(image)) and torch.equal(found.scores(image), network.scores(image))
        torch.testing.assert_close(found.deploy()(image), network(image), atol=1e-4, rtol=0)


# Latency


def test_latencies_of_comparison_networks_are_measured_and_kept_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "ShuffleNetV2-basic", "N0", "--boundary", "scores", "--input", "64x96", *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["subject"] for row in found] == [f"{SMALL} classes=19", f"{NAMED['N0']} classes=19"]
    assert found[0]["parameters"] == complexity_of(SMALL, 19, (64, 96)).parameters
    assert run(["measure", SMALL, "N0", "--interleave", "--turns", "6", "--boundary", "scores", "--input", "32x32", *QUICK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"] == SMALL
    assert run(["noise-floor", SMALL, "--input", "32x32", "--repeats", "2", "--rebuilds", "2", *QUICK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == SMALL


def test_a_latency_of_an_older_store_answers_for_an_lps_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, store = TimingPlan(min_s=0.0), Store(tmp_path / "machine-store.sqlite")
    same = {"size": (64, 96), "backend": "torch", "boundary": "scores", "threads": 1, "plan": plan}
    known = measure(LPSNet("N0", 19, deployed=True), subject=f"{Architecture.parse('N0')} classes=19", store=store, **same)  # type: ignore[arg-type]
    assert run(["measure", "N0", "--boundary", "scores", "--input", "64x96", *QUICK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["created"] == known.created and len(store.all()) == 1


def test_networks_lists_every_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    monkeypatch.setattr(zoo, "BASELINES", {name: BASELINES[name] for name in (SMALL, SKIP)})  # all take seconds
    assert run(["networks", "--input", "64x128", "--classes", "3", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert tuple(rows) == names()
    assert rows[SMALL]["arxiv"] == "1902.07476" and rows[SMALL]["scores_scale"] == "1/16"
    assert rows["N0"]["parameters"] == complexity_of("N0", 3, (64, 128)).parameters
    assert "least size" in refused("networks", "--input", "2x2")


# Training, scoring, predicting, exporting


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training's folder, and the CamVid folder it was trained on, for reading."""
    return trained_folder(tmp_path_factory.mktemp("trained"), SMALL, *FEW)


def test_a_comparison_network_is_trained_scored_and_shown_as_any_other(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    out, root = trained
    checkpoint = str(out / f"{SMALL}.safetensors")
    assert f"# {SMALL}" in (out / "README.md").read_text()
    assert run(["evaluate", checkpoint, "--data", f"camvid:{root}", "--network", SMALL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["miou_percent"] == pytest.approx(
        json.loads((out / "scores.json").read_text())["miou_percent"], abs=1e-9
    )
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    assert run(["predict", checkpoint, str(tmp_path / "one.png"), "--out", str(tmp_path / "p"), "--device", "cpu"]) == 0
    mask = np.asarray(Image.open(tmp_path / "p" / "one_mask.png"))
    for boundary in ("labels", "scores"):
        graph = tmp_path / f"{boundary}.onnx"
        assert run(["export", checkpoint, "--boundary", boundary, "--normalised", "--out", str(graph)]) == 0
        assert json.loads(graph.with_name(f"{graph.name}.json").read_text())["architecture"] == SMALL
        assert run(["predict", str(graph), str(tmp_path / "one.png"), "--out", str(tmp_path / boundary)]) == 0
        assert (np.asarray(Image.open(tmp_path / boundary / "one_mask.png")) == mask).mean() > 0.97
    assert f"holds {SMALL}, expected {SKIP}" in refused("evaluate", checkpoint, "--data", f"camvid:{root}", "--network", SKIP)


def test_a_paused_training_goes_on_to_the_same_weights(trained: tuple[Path, Path], tmp_path: Path) -> None:
    out, root = trained
    arguments = ["train", SMALL, "--data", f"camvid:{root}", *FEW, "--out", str(tmp_path / "paused")]
    assert run([*arguments, "--max-hours", "0"]) == 130 and (tmp_path / "paused" / "state.pt").is_file()
    assert run(arguments) == 0
    whole, paused = (load(folder / f"{SMALL}.safetensors").state_dict() for folder in (out, tmp_path / "paused"))
    assert all(torch.equal(whole[name], paused[name]) for name in whole)


def test_a_training_starts_from_a_checkpoint_in_training_form(
    trained: tuple[Path, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    out, root = trained
    first = out / f"{SMALL}.safetensors"
    still = ["--set=iterations=1", "--set=learning_rate=1e-30", "--set=batch_size=2", *SIZE, "--threads", "1"]
    arguments = ["train", SMALL, "--data", f"camvid:{root}", *still]
    assert run([*arguments, "--init", str(first), "--out", str(tmp_path / "a")]) == 0
    source, again = (load(path).state_dict() for path in (first, tmp_path / "a" / f"{SMALL}.safetensors"))
    assert all(torch.equal(again[name], source[name]) for name in source if name.endswith("conv.weight"))
    told = read_metadata(first)
    save(tmp_path / "d.safetensors", load(first).deploy(), class_names=told.class_names, input_size=told.input_size)
    line = refused(*arguments, "--init", str(tmp_path / "d.safetensors"), "--out", str(tmp_path / "b"))
    assert "is in deployed form" in line and "training form" in line


def test_a_network_is_exported_by_its_name(tmp_path: Path) -> None:
    out = tmp_path / "n.onnx"
    assert run(["export", SMALL.upper(), "--classes", "4", "--input", "64x96", "--boundary", "logits", "--out", str(out)]) == 0
    (found,) = onnxruntime.InferenceSession(out).run(None, {"image": np.zeros((1, 3, 64, 96), np.float32)})
    assert found.shape == (1, 4, 64, 96)


def test_a_bench_takes_a_network_of_either_kind(make_camvid: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench-data", "--data", f"camvid:{make_camvid()}", "--set=batch_size=2", *SIZE, "--iterations", "2", "--device", "cpu"]
    assert run([*arguments, "--network", SMALL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] > 0


def test_a_batch_that_a_network_cannot_be_trained_on_is_one_line(
    make_camvid: Callable[..., Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    arguments = ["train", SMALL, "--data", f"camvid:{make_camvid()}", *FEW, "--set=batch_size=1", "--out", str(tmp_path / "t")]
    assert f"{SMALL} cannot be trained so: Expected more than 1 value" in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["expand", "--start", "skipnet-vgg16"], "expand takes LPS-Nets only"),
        (["predict-latency", "skipnet-vgg16", "--table", "x"], "predict-latency takes LPS-Nets only"),
        (["pretrain", "skipnet-vgg16", "--data", "x", "--out", "y"], "pretrain takes LPS-Nets only"),
        (["measure", "skipnet"], "the comparison networks are skipnet-vgg16, "),
        (["train", "skipnet", "--out", "x"], "the comparison networks are skipnet-vgg16, "),
        (["noise-floor", "skipnet"], "the comparison networks are skipnet-vgg16, "),
        (["export", "skipnet"], "the comparison networks are skipnet-vgg16, "),
        (["bench-data", "--network", "skipnet"], "the comparison networks are skipnet-vgg16, "),
    ],
)
def test_what_a_command_does_not_take_is_one_line(arguments: list[str], what: str, refused: Callable[..., str]) -> None:
    assert what in refused(*arguments)


def test_a_new_row_of_the_table_is_a_name_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import MappingProxyType

    from tests.test_baselines import ADDED

    monkeypatch.setattr(zoo, "BASELINES", MappingProxyType({**BASELINES, "plain": ADDED}))
    assert canonical("Plain") == "plain" and build("plain", 3).name == "plain" and score_scale("plain") == Fraction(1, 4)
    assert "plain" in names() and complexity_of("plain", 19, (64, 64)).macs > 0


def test_nothing_is_warned_of_where_the_classes_are_the_same(tmp_path: Path) -> None:
    save(tmp_path / "n.safetensors", lively(SMALL), class_names=CLASSES, input_size=(64, 96))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path / "n.safetensors", num_classes=3).num_classes == 3
    with pytest.raises(UserError, match="from 1 to 255, got 0"):
        load(tmp_path / "n.safetensors", num_classes=0)
