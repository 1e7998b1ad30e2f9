"""Checkpoints: what is saved comes back, shipped networks are found by name, and anything else is refused in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lpsnet.architecture import NAMED, Architecture
from lpsnet.checkpoint import CheckpointError, Metadata, load, read_description, read_metadata, save
from lpsnet.errors import UserError
from lpsnet.network import LPSNet
from lpsnet.recipe import TrainRecipe
from tests.checkpoints import NAMES, SIZE, TEXT, refusal, scores, trained


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A sound checkpoint."""
    path = tmp_path / "network.safetensors"
    save(path, trained(), class_names=NAMES, input_size=SIZE)
    return path


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
    refusal(name, "no checkpoint", "train", "LPS_SEARCH_CHECKPOINTS", "from_pretrained", f"load('{name}.pth', architecture='{name}')")


def test_a_shipped_network_is_found_by_its_name(shipped: Path) -> None:
    network = LPSNet("LPS-Net-M", 2, deployed=True).eval()
    save(shipped / "LPS-Net-M.safetensors", network, class_names=("a", "b"), input_size=(1024, 2048))
    loaded = load("LPS-Net-M")
    assert loaded.architecture == NAMED["LPS-Net-M"]
    assert torch.equal(loaded.head.weight, network.head.weight)
    refusal("LPS-Net-S", "no checkpoint")


@pytest.mark.parametrize("name", ["lps-net-m", "LPS-NET-M", "lPs-NeT-m"])
def test_a_shipped_network_is_found_whatever_the_case_of_its_name(name: str, shipped: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint of LPS-Net-M at"):
        load(name)
    save(shipped / "LPS-Net-M.safetensors", LPSNet("LPS-Net-M", 1, deployed=True), class_names=("a",), input_size=(1024, 2048))
    assert load(name).architecture == NAMED["LPS-Net-M"]
    refusal(name, f"expected {NAMED['LPS-Net-S']}", architecture="lps-net-s")


def test_the_one_that_has_not_seen_the_validation_split_has_a_name_of_its_own(shipped: Path) -> None:
    for name, classes in (("LPS-Net-M", ("a",)), ("LPS-Net-M-train", ("b",))):
        save(shipped / f"{name}.safetensors", LPSNet("LPS-Net-M", 1, deployed=True), class_names=classes, input_size=(1024, 2048))
    assert load("lps-net-m-train").architecture == NAMED["LPS-Net-M"]
    assert [read_description(name).class_names for name in ("LPS-Net-M", "LPS-Net-M-train")] == [("a",), ("b",)]  # type: ignore[union-attr]


def test_a_shipped_file_of_another_network_is_refused(shipped: Path) -> None:
    save(shipped / "LPS-Net-S.safetensors", trained(), class_names=NAMES, input_size=SIZE)
    with pytest.raises(CheckpointError) as caught:
        load("LPS-Net-S")
    assert TEXT in str(caught.value) and str(NAMED["LPS-Net-S"]) in str(caught.value)
