"""The authors' .pth files: their layout is read, nothing in them is executed, and faults are named as the file names them."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lpsnet.architecture import Architecture
from lpsnet.checkpoint import load
from tests import restatement
from tests.checkpoints import IMAGES, NAMES, TEXT, refusal, scores

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
        lacking = f"lacks {restatement.prefixes(other)[0]}.stages.0.0.0.bias"
        assert "paths." not in refusal(path, text, lacking, architecture=text)


def test_the_authors_weights_of_another_depth_or_width_are_refused(tmp_path: Path) -> None:
    path, _, _ = released(tmp_path, 2)
    deeper, wider = "B1-2-1-3-2_C4-8-8-12-12_R6-2", "B1-2-1-2-2_C4-8-8-12-16_R6-2"
    lacking = "lacks netH.stages.3.2.0.bias, netH.stages.3.2.0.weight, netL.stages.3.2.0.bias and 1 more"
    assert "paths." not in refusal(path, deeper, lacking, architecture=deeper)
    refusal(path, wider, "head.weight [3, 24, 1, 1] instead of [3, 32, 1, 1]", architecture=wider)


def test_faults_in_the_authors_layout_are_named(tmp_path: Path) -> None:
    path, text, weights = released(tmp_path, 1)
    key = "net.stages.3.1.0.weight"
    for changed, part in (
        ({name: value for name, value in weights.items() if name != key}, f"lacks {key}"),
        (weights | {"net.stages.5.0.0.weight": weights[key]}, "has too many weights, net.stages.5.0.0.weight"),
        (weights | {key: weights[key][:, :5]}, f"has other shapes, {key} [12, 5, 3, 3] instead of [12, 12, 3, 3]"),
        ({name: value for name, value in weights.items() if name != "head.weight"}, "head.weight"),
    ):
        torch.save(changed, path)
        assert "paths." not in refusal(path, text, part, architecture=text)


@pytest.mark.parametrize(("paths", "second"), [(2, "netL"), (3, "net2")])
def test_a_fault_in_a_further_path_is_named_as_the_file_names_it(paths: int, second: str, tmp_path: Path) -> None:
    path, text, weights = released(tmp_path, paths)
    torch.save({name: value for name, value in weights.items() if name != f"{second}.stages.4.0.0.bias"}, path)
    message = refusal(path, text, architecture=text)
    assert message.endswith(f"it lacks {second}.stages.4.0.0.bias")


def test_our_names_in_a_pth_are_not_taken_for_the_authors(tmp_path: Path) -> None:
    path, text, weights = released(tmp_path, 2)
    torch.save(restatement.as_network_state(weights, 2), path)
    refusal(path, text, "lacks netH.stages.0.0.0.bias", architecture=text)


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
