"""The package of `docs/extending.md`, installed as a package is, at work; and what is said of one that is wrong."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latency.backends import backend_names
from lpsnet import Architecture, ArchitectureError, LPSNet, UserError, load
from lpsnet.architecture import BLOCK_NAMES, block_names
from lpsnet.baselines import BASELINES
from lpsnet.blocks import BLOCKS
from lpsnet.data import DATASETS
from lpsnet.tables import Table
from tests.documents import ROOT, files_of, run_commands, sections_of

PAGE = ROOT / "docs" / "extending.md"
DILATED = "B1-1-1-1-1_C4-8-16-32-32_R4_dilated"
COLOURS = ((90, 90, 90), (200, 120, 40), (220, 20, 60), (0, 0, 0))


def install(place: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay a package out as pip does, and look for packages there, too."""
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    told = tomllib.loads(files["pyproject.toml"])["project"]
    info = place / f"{told['name'].replace('-', '_')}-{told['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n")
    groups = ([f"[{group}]", *(f"{name} = {value}" for name, value in rows.items())] for group, rows in told["entry-points"].items())
    (info / "entry_points.txt").write_text("\n".join(line for group in groups for line in group) + "\n")
    monkeypatch.syspath_prepend(place)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path / "site", files_of(PAGE), monkeypatch)
    return tmp_path


def draw(root: Path) -> None:
    """A folder in the layout of the page's data set."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("frames", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(root / "frames" / split / f"{index}.jpg")
            mask = np.array(COLOURS, dtype=np.uint8)[rng.integers(0, 4, (64, 96))]
            Image.fromarray(mask).save(root / "masks" / split / f"{index}.png")


def test_every_row_of_the_package_works_in_every_command(package: Path) -> None:
    """The page's commands, in this process and in those that measure and train."""
    draw(package / "data" / "warehouse")
    ((_, commands),) = sections_of(PAGE).items()
    run_commands(commands, package, keep=("--backend",))
    with (package / "compared" / "compare.csv").open() as file:
        assert {(row["network"], row["failure"]) for row in csv.DictReader(file)} == {("two-layers", ""), (DILATED, "")}
    told = json.loads((package / "compared" / "compare.json").read_text())
    assert told["conditions"]["backend"] == "torch-export"
    trained = load(package / "trained" / "dilated" / f"{DILATED}.safetensors")
    assert trained.name == DILATED and trained.num_classes == 3
    assert "not to be handed on" in (package / "trained" / "dilated" / "README.md").read_text()


def test_what_must_hold_of_a_block_and_a_network_holds(package: Path) -> None:
    exec(compile(files_of(PAGE)["check.py"], "check.py", "exec"), {})
    architecture = Architecture.parse("B1-1-1-2-2_C4-8-16-32-32_R4-2_dilated_attention-a")
    assert architecture.block == "dilated" and Architecture.parse(str(architecture)) == architecture
    network, image = LPSNet(architecture, 5).eval(), torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(network.deploy()(image), network(image), atol=1e-4, rtol=0)
    again = LPSNet(architecture, 5, deployed=True)
    again.load_state_dict(network.deploy().state_dict())


def test_rows_of_a_package_stand_behind_those_built_in_and_go_with_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(BASELINES)[-1] == "two-layers" and list(DATASETS)[-1] == "warehouse" and len(BASELINES) == 28
    assert block_names() == tuple(BLOCKS) == (*BLOCK_NAMES, "dilated") and backend_names()[-1] == "torch-export"
    monkeypatch.undo()
    assert "two-layers" not in BASELINES and "warehouse" not in DATASETS and block_names() == BLOCK_NAMES
    with pytest.raises(ArchitectureError, match=r"found '_'; |expected the end, or '_' and a block \(conv3x3"):
        Architecture.parse("B1-1-1-2-2_C4-8-16-32-32_R4_dilated")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Table[int]]:
    """Makes a table of whole numbers with a row of its own, `one`, and those that packages of these entry points add."""

    def make(*packages: dict[str, str]) -> Table[int]:
        for number, rows in enumerate(packages):
            told = "\n".join(f"'{name}' = '{value}'" for name, value in rows.items())
            project = f"[project]\nname = 'package{number}'\nversion = '1'\n[project.entry-points.numbers]\n{told}\n"
            code = f"two, one, text = {number}, 7, 'x'\n"
            install(tmp_path / str(number), {"pyproject.toml": project, f"numbers{number}.py": code}, monkeypatch)
        return Table("numbers", {"one": 1}, int)

    return make


def test_what_is_built_in_is_not_replaced(table: Callable[..., Table[int]]) -> None:
    numbers = table({"one": "numbers0:one", "two": "numbers0:two"})
    assert dict(numbers) == {"one": 1, "two": 0} and len(numbers) == 2
    with pytest.raises(KeyError):
        _ = numbers["three"]


@pytest.mark.parametrize(
    ("packages", "asked", "what"),
    [
        ([{"two": "numbers0:three"}], "two", r"'two' of numbers0:three cannot be loaded: AttributeError: .*three"),
        ([{"two": "absent:two"}], "two", r"'two' of absent:two cannot be loaded: ModuleNotFoundError"),
        ([{"two": "numbers0:text"}], "two", r"'two' of numbers0:text must be a int, found a str"),
        ([{"two": "numbers0:two"}, {"two": "numbers1:two"}], "two", r"two packages offer 'two' in numbers: .*; uninstall one of them"),
        (
            [{"Two": "numbers0:two"}],
            "two",
            r"entry point 'Two' of numbers: a name is made of lower-case letters, digits and single hyphens",
        ),
    ],
)
def test_a_row_that_is_wrong_is_one_line(packages: list[dict[str, str]], asked: str, what: str, table: Callable[..., Table[int]]) -> None:
    numbers = table(*packages)
    with pytest.raises(UserError, match=what):
        _ = numbers[asked]
