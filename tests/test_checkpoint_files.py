"""Checkpoints in half precision and in several files, for other classes, and in the Hub's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from lpsnet.checkpoint import CheckpointError, load, read_metadata, save
from lpsnet.network import LPSNet
from tests.backends import normalised

NAMES = ("a", "b", "c")


def lively() -> LPSNet:
    torch.manual_seed(2)
    return normalised(LPSNet("B1-1-1-1-1_C4-8-16-24-24_R4-2", 3)).eval()


def test_half_precision_halves_the_file_and_keeps_the_function(tmp_path: Path) -> None:
    network, image = lively(), torch.rand(1, 3, 32, 48)
    save(tmp_path / "whole.safetensors", network, class_names=NAMES, input_size=(32, 48))
    save(tmp_path / "half.safetensors", network, class_names=NAMES, input_size=(32, 48), half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.62 * (tmp_path / "whole.safetensors").stat().st_size
    with torch.inference_mode():
        expected, found = network(image), load(tmp_path / "half.safetensors")(image)
    torch.testing.assert_close(found, expected, atol=0.02 * float(expected.abs().max()), rtol=0)


def test_what_does_not_fit_a_file_goes_beside_it_and_a_missing_part_is_named(tmp_path: Path) -> None:
    network, limit = lively(), 100_000
    files = save(tmp_path / "n.safetensors", network, class_names=NAMES, input_size=(32, 48), max_bytes=limit)
    assert len(files) > 1 and all(file.stat().st_size <= limit for file in files)
    assert [file.name for file in files[1:]] == [f"n-{number}-of-{len(files)}.safetensors" for number in range(2, len(files) + 1)]
    loaded = load(tmp_path / "n.safetensors").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
    files[1].unlink()
    with pytest.raises(CheckpointError, match=f"is incomplete: .*{files[1].name} is missing"):
        load(tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match="alone takes"):
        save(tmp_path / "m.safetensors", network, class_names=NAMES, input_size=(32, 48), max_bytes=66_000)


def test_a_description_may_name_no_file_elsewhere(tmp_path: Path) -> None:
    described = {
        "format": "lps-net-1",
        "architecture": "N0",
        "class_names": ["a"],
        "input_size": [8, 8],
        "branches": False,
        "deployed": True,
    }
    text = json.dumps({**described, "more_files": ["../other.safetensors"]})
    (tmp_path / "n.safetensors").write_bytes(safetensors_bytes({"x": torch.zeros(1)}, {"lps_net": text}))
    with pytest.raises(CheckpointError, match="is no file beside it"):
        load(tmp_path / "n.safetensors")


def test_other_classes_get_a_new_head_and_are_told(tmp_path: Path) -> None:
    save(tmp_path / "n.safetensors", lively(), class_names=NAMES, input_size=(32, 48))
    with pytest.warns(UserWarning, match="has 3 classes: the head for 5 is new and must be trained"):
        network = load(tmp_path / "n.safetensors", num_classes=5)
    assert network(torch.rand(1, 3, 32, 48)).shape == (1, 5, 32, 48) and network.num_classes == 5
    assert torch.equal(network.paths[0].stages[0][0].conv.weight, lively().paths[0].stages[0][0].conv.weight)  # type: ignore[union-attr, index]
    assert load(tmp_path / "n.safetensors", num_classes=3).num_classes == 3
    with pytest.raises(CheckpointError, match="from 1 to 255, got 0"):
        load(tmp_path / "n.safetensors", num_classes=0)


def test_a_folder_of_the_hubs_layout_gives_the_network_back(tmp_path: Path) -> None:
    from lpsnet.hub import HubNetwork

    save(tmp_path / "n.safetensors", lively(), class_names=NAMES, input_size=(32, 48))
    HubNetwork.of(tmp_path / "n.safetensors").save_pretrained(tmp_path / "hub")
    found, image = HubNetwork.from_pretrained(str(tmp_path / "hub")), torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        assert torch.equal(found(image), lively()(image))
    assert read_metadata(tmp_path / "hub" / "model.safetensors").class_names == NAMES
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        HubNetwork.from_pretrained(str(tmp_path))
