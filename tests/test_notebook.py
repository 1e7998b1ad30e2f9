"""The notebook's cells, in their order, in a process of their own, with small settings in the place of its own.

A line that begins with `!` is run as the command it holds, its `{...}` filled in as IPython does. The cell that installs the
project is left out: `.ci/run` builds and checks a wheel.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search.cli import run
from tests.documents import ROOT, inside
from tests.processes import Process
from tests.tiny import TINY_OPTIONS

NOTEBOOK = json.loads((ROOT / "docs" / "lps-search.ipynb").read_text())
INSTALL = "!pip install -q ./lps-search"
SMALLER = {"STEPS = 2": "STEPS = 1", "ITERATIONS = 80": "ITERATIONS = 2", '"128x256"': '"32x64"', "SECONDS = 0.2": "SECONDS = 0"}
BOUNDS = ["--backend=torch", "--batch", *TINY_OPTIONS.partition("--batch ")[2].split()]


def cells() -> list[str]:
    """Source of the code cells but for the installation, with small settings."""
    sources = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert sources[0] == INSTALL
    (settings,) = (source for source in sources if "STEPS = " in source)
    smaller = settings
    for written, small in SMALLER.items():
        assert settings.count(written) == 1
        smaller = smaller.replace(written, small)
    return [smaller if source == settings else source for source in sources[1:]]


def command(text: str) -> None:
    """Run a command of a cell; what `expand` tries is small, and quickly loaded, too."""
    program, verb, *rest = shlex.split(text)
    assert program == "lps-search"
    assert run([verb, *rest, *(BOUNDS if verb == "expand" else [])]) == 0, text


def execute(place: Path, sources: list[str]) -> None:
    """Run cells as one session in a folder."""
    session: dict[str, Any] = {"__name__": "__main__", "command": command}
    with inside(place):
        for source in sources:
            lines = [f'command(f"""{line[1:]}""")' if line.startswith("!") else line for line in source.splitlines()]
            exec(compile("\n".join(lines), "lps-search.ipynb", "exec"), session)


def test_the_cells_run_in_their_order_and_end_in_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    process = Process(execute, tmp_path, cells(), output=tmp_path / "printed")
    assert process.ends() == 0, process.printed()
    family = pd.read_csv(tmp_path / "runs" / "synthetic" / "family.csv")
    assert list(family.step) == [0, 1]
    assert {path.name for path in (tmp_path / "predictions").glob("*.png")} >= {
        "0_overlay.png",
        "1_overlay.png",
        "0_mask.png",
        "legend.png",
    }
    assert f"{family.architecture.iloc[-1]}: " in process.printed() and "ms to the labels" in process.printed()


def test_it_is_a_notebook_without_results() -> None:
    """As Jupyter and Colab read it: format 4.5, every cell with a name of its own."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")
