"""What the README and the pages of `docs/` hold to be run: commands by section, with small settings and what they ask for, and files."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from lpsnet.data import synthetic
from search import latency_space
from search.cli import run
from tests.backends import steady
from tests.processes import quick_workers
from tests.tiny import TINY_OPTIONS, few_frames, write_camvid

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMAND = re.compile(r"^(?:\.venv/bin/)?lps-search ([^#\n]+)", re.MULTILINE)
FILE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections_of(page: Path) -> dict[str, list[str]]:
    """Commands of a page by section, in the order written."""
    return {part.partition("\n")[0]: found for part in page.read_text().split("\n## ")[1:] if (found := COMMAND.findall(part))}


def files_of(page: Path) -> dict[str, str]:
    """The files that a page holds in code blocks, by name."""
    found = FILE.findall(page.read_text())
    assert len(dict(found)) == len(found)
    return dict(found)


SECTIONS = sections_of(ROOT / "README.md")

SEARCHING = ("Two commands", "A search of your own", "Picking from the family", "How far to trust the choice", "The report")
"""Sections that need a run."""

PREDICTING = ("latency-predictor", "predict-latency")
"""Verbs whose commands have a test of their own, in `test_readme.py`."""

SMALLER = {
    "expand": f"{TINY_OPTIONS} --latency-seconds 0 --backend torch",
    "measure": "--input 64x128 --seconds 0 --threads 1",
    "latency-table": "--input 32x64 --widths 4,8 --seconds 0 --backend torch --threads 1",
    "noise-floor": "--input 64x128 --seconds 0 --repeats 2 --rebuilds 2 --threads 1",
    "latency-predictor": "--input 32x64 --seconds 0 --fit 10 --test 3 --max-macs 0.003 --backend torch --threads 1",
    "export": "--input 64x128",
    "train": "--set iterations=2 --set batch_size=2 --set input_height=48 --set input_width=64 --set crop_height=32 --set crop_width=48",
    "pretrain": "--epochs 1 --batch 4 --size 32",
    "validate-proxy": "--full 3 --full-seeds 1 --settings scratch-2,inherit-2 --seeds 1 --parallel 1",
    "bench-table": "--networks 12 --short scratch-2 --seeds 1 --long-networks 0 --input 64x96 --batch 2 --parallel 1 --seconds 0",
    "ablate": "--input 48x64 --iterations 1 --set batch_size=2 --seeds 1 --width 1 --backend torch --seconds 0 --limit 0 --threads 1",
    "rival": "--seeds 2 --hours 0.0001 --short scratch-2",
    "compare": "--input 64x96 --seconds 0 --rounds 1 --limit 0 --backend torch --set batch_size=2 --set input_height=48"
    " --set input_width=64 --set crop_height=48 --set crop_width=64",
    "report": "--frames 1",
    "bench-data": "--set batch_size=2 --set crop_height=32 --set crop_width=48 --iterations 2",
}

SHORTER = {"--steps 4": "--steps 1", "100,200": "1", "--steps 6": "--steps 2", "--train 500": "--train 2"}


def small(command: str, keep: tuple[str, ...] = ()) -> list[str]:
    """The arguments of a command with small settings in the place of those it has, but for options to keep as they are."""
    for written, shorter in SHORTER.items():
        command = command.replace(written, shorter)
    verb, *rest = shlex.split(command)
    kept = tuple(option for option in keep if option in rest)
    smaller = _without(SMALLER.get(verb, "").split(), kept)
    return [verb, *_without(rest, tuple(option for option in smaller if option.startswith("--"))), *smaller]


def _without(arguments: list[str], options: tuple[str, ...]) -> list[str]:
    """Leave out options, with their values, that the smaller settings set."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument not in options:
            kept.append(argument)
        skip = not skip and argument in options
    return kept


def furnish(place: Path) -> None:
    """Put a CamVid folder, and one of two classes in ImageNet's layout, where the commands look for them."""
    write_camvid(place / "data" / "camvid")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (place / "imagenet" / split / name).mkdir(parents=True)
            for index in range(4):
                picture = Image.new("RGB", (40, 40), (60 * index, 0, 0))
                picture.save(place / "imagenet" / split / name / f"{index}.JPEG", format="JPEG")


@contextmanager
def inside(place: Path) -> Iterator[None]:
    """Work in a folder, with its own store, few frames and few layers."""
    whole = latency_space.table_convs  # 265 layers take a minute
    with pytest.MonkeyPatch.context() as patch, quick_workers(), steady():
        patch.setattr(synthetic, "SPLIT_SIZES", dict(synthetic.SPLIT_SIZES))
        few_frames()
        patch.chdir(place)
        patch.setenv("LPS_SEARCH_STORE", str(place / "store.sqlite"))
        patch.setattr(latency_space, "table_convs", lambda size: random.Random(0).sample(whole(size), 40))
        yield


def run_commands(commands: list[str], place: Path, keep: tuple[str, ...] = ()) -> None:
    """Run commands in a folder but for those of `PREDICTING`; see `small`."""
    with inside(place):
        for command in commands:
            if command.split()[0] not in PREDICTING:
                assert run(small(command, keep)) == 0, command
