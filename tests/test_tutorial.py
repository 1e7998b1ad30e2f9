"""The tutorial's commands, in their order, on made images; TensorRT on a GPU is replaced by what a machine without one can do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents import ROOT, files_of, run_commands, sections_of

PAGE = ROOT / "docs" / "tutorial.md"
SECTIONS = sections_of(PAGE)

HERE = {
    "--flavour tensorrt ": "--flavour tensorrt-rtx --compute-capability 8.6 ",
    "--backend tensorrt --device cuda --precision fp16": "--backend ort",
    "--backend tensorrt --device cuda": "",
    "pallets.engine": "pallets.onnx",
    "S=2 M=4 L=6": "S=0 M=1 L=2",
}
"""What the page asks of a GPU or of a longer run, and what is run instead; the page says so."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's data set, of noise."""
    folder, rng = tmp_path_factory.mktemp("tutorial"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind, values in (("images", (256, 3)), ("masks", (3, 1))):
            (folder / "pallets" / kind / split).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, values[0], (48, 64, values[1]), dtype=np.uint8).squeeze()
                Image.fromarray(pixels).save(folder / "pallets" / kind / split / f"{index:04}.png")
    for name, text in files_of(PAGE).items():
        (folder / name).write_text(text)
    return folder


def test_every_replacement_is_of_something_the_page_says() -> None:
    said = "\n".join(command for commands in SECTIONS.values() for command in commands)
    assert all(written in said for written in HERE)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_commands_of_a_section_run_after_those_before_it(section: str, place: Path) -> None:
    commands = SECTIONS[section]
    for written, here in HERE.items():
        commands = [command.replace(written, here) for command in commands]
    if section.startswith("8"):
        shutil.copytree(place / "runs" / "pallets" / "package" / "M", place / "M")
    run_commands(commands, place, keep=("--backend",))
    if section.startswith("7"):
        told = json.loads((place / "runs" / "pallets" / "package" / "manifest.json").read_text())
        assert told["picks"]["M"]["weights_from"] == "full training" and told["picks"]["M"]["class_names"] == ["floor", "pallet", "person"]
    if section.startswith("8"):
        assert (place / "pallets.engine").stat().st_size > 0
        assert len(list((place / "predicted").rglob("*.png"))) >= 2
