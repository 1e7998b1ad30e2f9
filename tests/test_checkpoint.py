"""Checkpoints: what is saved comes back, the authors' files are read, and anything else is refused in words."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lpsnet.architecture import NAMED, Architecture
from lpsnet.checkpoint import CheckpointError, Metadata, load, read_metadata, save
from lpsnet.errors import UserError
from lpsnet.network import LPSNet
from lpsnet.recipe import TrainRecipe
from tests import restatement

TEXT = "B1-2-1-2-2_C4-8-8-12-12_R6-2"
NAMES = ("road", "sky", "tree")
SIZE = (64, 96)
IMAGES = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def trained(text: str = TEXT, *, branches: bool = True) -> LPSNet:
    """A network whose running statistics are not the initial ones, in eval mode."""
    torch.manual_seed(0)
    network = LPSNet(text, len(NAMES), branches=branches).train()
    with torch.no_grad():
        network.scores(2 * IMAGES + 1)
    return network.eval()


def scores(network: LPSNet) -> Tensor:
    with torch.inference_mode():
        return network.scores(IMAGES)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A sound checkpoint."""
    path = tmp_path / "network.safetensors"
    save(path, trained(), class_names=NAMES, input_size=SIZE)
    return path


def refusal(source: str | Path, *parts: str, architecture: str | None = None) -> str:
    """The message with which `load` refuses `source`; it holds all `parts` and, being shown on one line, no line break."""
    with pytest.raises(CheckpointError) as caught:
        load(source, architecture)
    message = str(caught.value)
    for part in (str(source), *parts):
        assert part in message
    assert "\n" not in message
    return message


# Saved and loaded


@pytest.mark.parametrize("form", ["branches", "plain", "deployed"])
def test_a_network_comes_back_with_its_form_and_its_outputs(form: str, tmp_path: Path) -> None:
    network = trained(branches=form != "plain")
    network = network.deploy() if form == "deployed" else network
    path = tmp_path / "new" / "folder" / "network.safetensors"
    save(path, network, class_names=NAMES, input_size=SIZE)
    loaded = load(path)
    assert loaded.architecture == network.architecture
    assert (loaded.branches, loaded.deployed) == (form == "branches", form == "deployed")
    assert not any(module.training for module in loaded.modules())
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(scores(loaded), scores(network))


@pytest.mark.parametrize("text", ["B1-1-1-1-1_C4-4-4-4-4_R8", "B1-1-1-1-1_C4-4-4-4-4_R8-4-2_sepconv3x3_none"])
def test_block_and_interaction_and_number_of_paths_come_back(text: str, tmp_path: Path) -> None:
    network = trained(text)
    save(tmp_path / "a.safetensors", network, class_names=NAMES, input_size=SIZE)
    assert str(load(tmp_path / "a.safetensors").architecture) == text
    assert torch.equal(scores(load(str(tmp_path / "a.safetensors"))), scores(network))


def test_the_description_comes_back(tmp_path: Path) -> None:
    recipe = TrainRecipe(iterations=7, learning_rate=0.03).to_dict()
    metrics = {"miou_percent": 41.25, "class_iou_percent": [1.5, None, 81.0]}
    path = tmp_path / "a.safetensors"
    save(path, trained(branches=False), class_names=NAMES, input_size=SIZE, recipe=recipe, metrics=metrics)
    assert read_metadata(path) == Metadata(
        architecture=TEXT, class_names=NAMES, input_size=SIZE, branches=False, deployed=False, recipe=recipe, metrics=metrics
    )


def test_recipe_and_metrics_are_empty_where_unknown(saved: Path) -> None:
    metadata = read_metadata(saved)
    assert (metadata.recipe, metadata.metrics) == ({}, {})
    assert (metadata.class_names, metadata.input_size) == (NAMES, SIZE)


def test_the_expected_architecture_may_be_given_in_any_spelling(saved: Path) -> None:
    for expected in (TEXT, TEXT.replace("R6-2", "R2-0-6"), Architecture.parse(TEXT)):
        assert str(load(saved, expected).architecture) == TEXT


# Saving


def test_as_many_names_as_classes_are_needed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 class names for a network of 3 classes"):
        save(tmp_path / "a.safetensors", trained(), class_names=NAMES[:2], input_size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("raised", "seen"), [(OSError("disk full"), CheckpointError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    raised: BaseException, seen: type[BaseException], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(seen) as caught:
        save(saved, LPSNet("N0", 3), class_names=NAMES, input_size=SIZE)
    if seen is CheckpointError:
        assert str(saved) in str(caught.value) and "disk full" in str(caught.value)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_replaces_the_old_file(saved: Path) -> None:
    network = trained("B1-1-1-1-1_C4-4-4-4-4_R8")
    save(saved, network, class_names=NAMES, input_size=SIZE)
    assert torch.equal(scores(load(saved)), scores(network))
    assert list(saved.parent.iterdir()) == [saved]


def test_a_saved_file_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        save(tmp_path / "a.safetensors", trained(), class_names=NAMES, input_size=SIZE)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_path_that_cannot_be_written_is_refused(saved: Path) -> None:
    folder = saved.parent / "folder.safetensors"
    folder.mkdir()
    for path in (saved / "network.safetensors", saved / "deeper" / "network.safetensors", folder):
        with pytest.raises(CheckpointError) as caught:
            save(path, trained(), class_names=NAMES, input_size=SIZE)
        assert f"cannot write {path}" in str(caught.value)
    assert sorted(saved.parent.iterdir()) == [folder, saved]


# Files that are refused


def rewrite(path: Path, tensors: Callable[[dict[str, Tensor]], None] = lambda _: None, **description: Any) -> None:
    """Change a checkpoint's tensors or its description in place; a description of `...` is removed."""
    with safe_open(path, framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        ((key, text),) = file.metadata().items()
    values = {name: value for name, value in (json.loads(text) | description).items() if value is not ...}
    tensors(held)
    save_file(held, path, {key: json.dumps(values)})


def test_every_refusal_is_a_users_error() -> None:
    assert issubclass(CheckpointError, UserError)


def test_another_architecture_is_refused_with_both(saved: Path) -> None:
    refusal(saved, f"holds {TEXT}", f"expected {NAMED['LPS-Net-S']}", architecture="LPS-Net-S")


def test_a_missing_weight_is_named(saved: Path) -> None:
    rewrite(saved, lambda held: [held.pop("head.bias"), held.pop("paths.1.stages.3.1.norm.running_var")])
    refusal(saved, TEXT, "lacks head.bias, paths.1.stages.3.1.norm.running_var")


def test_a_weight_too_many_is_named(saved: Path) -> None:
    rewrite(saved, lambda held: held.update({"tail.weight": torch.ones(1)}))
    refusal(saved, TEXT, "too many weights", "tail.weight")


def test_a_weight_of_another_shape_is_named_with_both_shapes(saved: Path) -> None:
    rewrite(saved, lambda held: held.update({"head.weight": torch.ones(3, 23, 1, 1)}))
    refusal(saved, TEXT, "head.weight [3, 23, 1, 1] instead of [3, 24, 1, 1]")


def test_a_list_of_many_weights_is_cut_short(saved: Path) -> None:
    rewrite(saved, lambda held: held.clear() or held.update({"x": torch.ones(1)}))
    assert len(refusal(saved, TEXT, "lacks head.bias, head.weight", "more")) < 400


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(share: float, saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    refusal(saved, "is damaged or no safetensors file")


def test_a_file_of_another_kind_is_refused(saved: Path) -> None:
    saved.write_text("not a network, but long enough to hold the length of a header")
    refusal(saved, "is damaged or no safetensors file")


def test_safetensors_without_our_description_are_refused(saved: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        save_file({"head.weight": torch.ones(1)}, saved, metadata)
        refusal(saved, "without the description that lpsnet.save writes")


def test_a_later_format_is_refused_with_both_formats(saved: Path) -> None:
    rewrite(saved, format="lps-net-2")
    refusal(saved, "lps-net-1", "lps-net-2")


@pytest.mark.parametrize(
    "change",
    [
        {"format": ...},
        {"class_names": ...},
        {"input_size": ...},
        {"branches": ...},
        {"mood": "unknown to this version"},
        {"class_names": 3},
        {"class_names": []},
        {"class_names": ["road", "sky"]},
        {"architecture": "B1-2-1-2-2_C4-8-8-12-12"},
        {"architecture": 7},
        {"branches": False},
        {"deployed": True},
    ],
    ids=str,
)
def test_a_description_that_fits_no_network_or_not_these_weights_is_refused(change: dict[str, Any], saved: Path) -> None:
    rewrite(saved, **change)
    refusal(saved)


def test_a_description_that_is_no_json_is_refused(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        (key,) = file.metadata()
    for text in ("{", "[]", "7", ""):
        save_file({"head.weight": torch.ones(1)}, saved, {key: text})
        refusal(saved)


def test_a_missing_file_is_refused_with_what_may_be_given(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.safetensors", tmp_path / "none.pth", tmp_path):
        refusal(missing, ".safetensors", ".pth", "LPS-Net-S")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_metadata(tmp_path / "none.safetensors")


# Shipped networks


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped checkpoints, empty, and a working directory beside it."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setenv("LPS_SEARCH_CHECKPOINTS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", NAMED)
def test_a_network_not_shipped_is_refused_with_the_ways_to_make_one(name: str, shipped: Path) -> None:
    refusal(name, "no checkpoint", "train", "lpsnet.save", f"load('{name}.pth', architecture='{name}')")


def test_a_shipped_network_is_found_by_its_name(shipped: Path) -> None:
    network = LPSNet("LPS-Net-M", 2, deployed=True).eval()
    save(shipped / "LPS-Net-M.safetensors", network, class_names=("a", "b"), input_size=(1024, 2048))
    loaded = load("LPS-Net-M")
    assert loaded.architecture == NAMED["LPS-Net-M"]
    assert torch.equal(loaded.head.weight, network.head.weight)
    refusal("LPS-Net-S", "no checkpoint")


def test_a_shipped_file_of_another_network_is_refused(shipped: Path) -> None:
    save(shipped / "LPS-Net-S.safetensors", trained(), class_names=NAMES, input_size=SIZE)
    with pytest.raises(CheckpointError) as caught:
        load("LPS-Net-S")
    assert TEXT in str(caught.value) and str(NAMED["LPS-Net-S"]) in str(caught.value)


# The authors' files

DEPTHS, WIDTHS = (1, 2, 1, 2, 2), (4, 8, 8, 12, 12)
RELEASED = {1: (6,), 2: (6, 2), 3: (8, 4, 2)}


def released(tmp_path: Path, paths: int) -> tuple[Path, str, restatement.Weights]:
    """A file in the authors' key layout, its architecture and its weights."""
    weights = restatement.random_weights(DEPTHS, WIDTHS, paths, len(NAMES), seed=paths)
    path = tmp_path / f"released-{paths}.pth"
    torch.save(weights, path)
    return path, str(Architecture(DEPTHS, WIDTHS, RELEASED[paths])), weights


@pytest.mark.parametrize("paths", RELEASED)
def test_the_authors_layout_is_read(paths: int, tmp_path: Path) -> None:
    path, text, weights = released(tmp_path, paths)
    prefixes = {1: {"net"}, 2: {"netH", "netL"}, 3: {"net1", "net2", "net3"}}[paths]
    assert {key.partition(".")[0] for key in weights} == prefixes | {"head"}
    network = load(path, text)
    assert network.deployed and network.num_classes == len(NAMES) and not network.training
    with torch.inference_mode():
        expected = restatement.scores(weights, DEPTHS, tuple(scale / 8 for scale in RELEASED[paths]), IMAGES)
    assert expected.std(dim=(-2, -1)).min() > 0.01
    torch.testing.assert_close(scores(network), expected, rtol=0, atol=1e-4)


def test_a_file_that_does_not_say_its_architecture_needs_one(tmp_path: Path) -> None:
    path, _, _ = released(tmp_path, 2)
    refusal(path, "does not say its architecture", "architecture='LPS-Net-S'")


def test_the_authors_weights_of_another_number_of_paths_are_refused(tmp_path: Path) -> None:
    for paths, other in ((1, 2), (2, 1), (2, 3), (3, 2)):
        path, _, _ = released(tmp_path, paths)
        text = str(Architecture(DEPTHS, WIDTHS, RELEASED[other]))
        refusal(path, text, "stages.", architecture=text)


def test_the_authors_weights_of_another_depth_or_width_are_refused(tmp_path: Path) -> None:
    path, _, _ = released(tmp_path, 2)
    deeper, wider = "B1-2-1-3-2_C4-8-8-12-12_R6-2", "B1-2-1-2-2_C4-8-8-12-16_R6-2"
    refusal(path, deeper, "lacks", "stages.3.2.0.bias", architecture=deeper)
    refusal(path, wider, "head.weight [3, 24, 1, 1] instead of [3, 32, 1, 1]", architecture=wider)


def test_faults_in_the_authors_layout_are_named(tmp_path: Path) -> None:
    path, text, weights = released(tmp_path, 1)
    key = "net.stages.3.1.0.weight"
    for changed, part in (
        ({name: value for name, value in weights.items() if name != key}, "stages.3.1.0.weight"),
        (weights | {"net.stages.5.0.0.weight": weights[key]}, "stages.5.0.0.weight"),
        (weights | {key: weights[key][:, :5]}, "stages.3.1.0.weight [12, 5, 3, 3] instead of [12, 12, 3, 3]"),
        ({name: value for name, value in weights.items() if name != "head.weight"}, "head.weight"),
    ):
        torch.save(changed, path)
        refusal(path, text, part, architecture=text)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"state_dict": {"head.weight": torch.ones(1)}},
        {"head.weight": "text"},
        {"head.weight": torch.tensor(1.0)},
        {"head.weight": torch.ones(0, 12, 1, 1)},
        {0: torch.ones(1)},
        {},
        torch.ones(3),
    ],
    ids=lambda content: repr(content).replace(" ", ""),
)
def test_a_pth_that_holds_no_table_of_weights_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    refusal(tmp_path / "a.pth", architecture=TEXT)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_pth_is_refused(share: float, tmp_path: Path) -> None:
    path, text, _ = released(tmp_path, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refusal(path, "is damaged or holds more than weights", architecture=text)


def test_a_pth_of_another_kind_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate((b"not a network at all", bytes(range(256)) * 9, b"PK\x03\x04 not really a zip")):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(content)
        refusal(path, "is damaged or holds more than weights", architecture=TEXT)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("layout", ["zip", "bare pickle", "zip named .safetensors"])
def test_nothing_in_a_file_is_executed(layout: str, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / ("a.safetensors" if "safetensors" in layout else "a.pth")
    content = {"head.weight": torch.ones(1), "trap": Trap(sprung)}
    if layout == "bare pickle":
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    else:
        torch.save(content, path)
    refusal(path, architecture=TEXT)
    assert not sprung.exists()
    if layout == "bare pickle":  # the trap does work
        pickle.loads(path.read_bytes())
    else:
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert sprung.exists()
