"""The README's commands and code, run as written but for sizes; its links and its generated tables."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from search import latency_space
from search.cli import app, run
from tests.tiny import TINY_OPTIONS, few_frames

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^(?:\.venv/bin/)?lps-search ([^#\n]+)", README, re.MULTILINE)
SMALLER = {
    "expand": f"{TINY_OPTIONS} --latency-seconds 0",
    "measure": "--input 64x128 --seconds 0",
    "latency-table": "--input 32x64 --widths 4,8 --seconds 0 --backend torch",
    "noise-floor": "--input 64x128 --seconds 0 --repeats 2 --rebuilds 2",
    "latency-predictor": "--input 32x64 --seconds 0 --fit 10 --test 3 --max-macs 0.003 --backend torch",
    "export": "--input 64x128",
    "train": "--set iterations=2 --set batch_size=2 --set input_height=48 --set input_width=64 --set crop_height=32 --set crop_width=48",
    "pretrain": "--epochs 1 --batch 4 --size 32",
    "validate-proxy": "--full 3 --full-seeds 1 --settings scratch-2,inherit-2 --seeds 1 --parallel 1",
    "bench-table": "--networks 12 --iterations 2 --seeds 1 --long-networks 0 --input 64x96 --batch 2 --parallel 1 --seconds 0",
    "ablate": "--input 48x64 --iterations 1 --set batch_size=2 --seeds 1 --width 1 --backend torch --seconds 0 --limit 0 --threads 1",
    "rival": "--seeds 2 --hours 0.0001 --iterations 2",
    "compare": "--input 64x96 --seconds 0 --rounds 1 --limit 0 --backend torch --set batch_size=2 --set input_height=48"
    " --set input_width=64 --set crop_height=48 --set crop_width=64",
    "report": "--frames 1",
    "bench-data": "--set batch_size=2 --set crop_height=32 --set crop_width=48 --iterations 2",
}

SHORTER = {"--steps 4": "--steps 1", "100,200": "1", "--steps 6": "--steps 2", "--train 500": "--train 2"}


def without(arguments: list[str], options: tuple[str, ...]) -> list[str]:
    """Leave out options, with their values, that the smaller settings set."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument not in options:
            kept.append(argument)
        skip = not skip and argument in options
    return kept


def test_every_verb_is_shown() -> None:
    verbs = {command.split()[0] for command in COMMANDS}
    assert verbs >= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def make_classes(root: Path) -> None:
    """A folder of two classes in ImageNet's layout."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (40, 40), (60 * index, 0, 0)).save(root / split / name / f"{index}.JPEG", format="JPEG")


@pytest.mark.quiet
@pytest.mark.usefixtures("steady")
def test_the_commands_run_in_the_order_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_camvid: object) -> None:
    few_frames()
    make_camvid()  # type: ignore[operator]
    (tmp_path / "data").mkdir()
    (tmp_path / "camvid").rename(tmp_path / "data" / "camvid")
    make_classes(tmp_path / "imagenet")
    monkeypatch.chdir(tmp_path)
    whole = latency_space.table_convs  # 265 layers take a minute
    monkeypatch.setattr(latency_space, "table_convs", lambda size: random.Random(0).sample(whole(size), 40))
    # `make search` makes this run before the README shows it.
    assert run(["expand", "--steps", "1", *SMALLER["expand"].split(), "--out", "runs/synthetic"]) == 0
    for command in COMMANDS:
        for written, shorter in SHORTER.items():
            command = command.replace(written, shorter)
        verb, *rest = shlex.split(command)
        smaller = SMALLER.get(verb, "").split()
        rest = without(rest, tuple(option for option in smaller if option.startswith("--")))
        assert run([verb, *rest, *smaller]) == 0, command
    assert (tmp_path / "device" / "networks.csv").exists() and (tmp_path / "runs" / "camvid" / "trajectory.png").exists()


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"<!-- tested: api -->\n```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    namespace: dict[str, object] = {}
    exec(compile(code[1], "README.md", "exec"), namespace)
    assert tuple(namespace["logits"].shape) == (1, 11, 97, 131)  # type: ignore[attr-defined]
    assert tuple(namespace["scores"].shape) == (1, 11, 3, 5)  # type: ignore[attr-defined]
    assert "1 B" in capsys.readouterr().out


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_runs_the_command_the_readme_describes() -> None:
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"^SEARCH \?= (.+)$", makefile, re.MULTILINE)
    assert options is not None and "--steps 2" in options[1]
    assert re.search(r"^RUN \?= runs/synthetic$", makefile, re.MULTILINE)


def test_the_tables_are_those_of_the_results() -> None:
    assert "<!-- table: " in README
    done = subprocess.run([sys.executable, str(ROOT / "results" / "tables.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
