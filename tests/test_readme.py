"""The README's commands and code, run as written but for sizes; its links and its generated tables."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lpsnet.architecture import Architecture
from search.cli import app, run
from tests.documents import PREDICTING, README, ROOT, SEARCHING, SECTIONS, furnish, inside, run_commands, small
from tests.tiny import TINY_OPTIONS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searching")
    furnish(folder)
    with inside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPS_SEARCH_LOCKS", str(folder / "locks"))
        # `make search` makes this run before the README shows it.
        assert run(["expand", "--steps", "1", *TINY_OPTIONS.split(), "--latency-seconds", "0", "--out", "runs/synthetic"]) == 0
    return folder


@pytest.mark.parametrize("section", SEARCHING)
def test_the_commands_of_a_section_run_after_those_before_it(section: str, place: Path) -> None:
    run_commands(SECTIONS[section], place)


def test_every_verb_is_shown() -> None:
    verbs = {command.split()[0] for commands in SECTIONS.values() for command in commands}
    assert verbs >= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_a_predictor_is_made_tested_on_networks_drawn_later_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The README's two commands, and what they leave."""
    made, asked = (small(command) for verb in PREDICTING for command in SECTIONS["Latency"] if command.split()[0] == verb)
    out = tmp_path / "device"
    with inside(tmp_path):
        assert run([*made, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert run([*asked, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert 0 < found["low_ms"] <= found["high_ms"] and found["architecture"] == str(Architecture.parse("LPS-Net-S"))
        fitted, tested = (
            list(csv.DictReader((out / name).read_text().splitlines())) for name in ("predictor_fit.csv", "predictor_test.csv")
        )
        assert len(fitted) == 40 and len(tested) == report["networks"] == 3
        assert not {row["architecture"] for row in fitted} & {row["architecture"] for row in tested}
        assert report["worst"] in {row["architecture"] for row in tested}
        assert run(["predict-latency", tested[0]["architecture"], "--table", str(out)]) == 0
        assert f"{float(tested[0]['predicted_ms']):.3f} ms" in capsys.readouterr().out


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"<!-- tested: api -->\n```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    namespace: dict[str, object] = {}
    exec(compile(code[1], "README.md", "exec"), namespace)
    assert tuple(namespace["logits"].shape) == (1, 11, 97, 131)  # type: ignore[attr-defined]
    assert tuple(namespace["scores"].shape) == (1, 11, 3, 5)  # type: ignore[attr-defined]
    assert "1 B" in capsys.readouterr().out


def words(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", words(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", re.sub(r"`[^`\n]*`", "", words(page))):
            led = page.parent / target if target else page
            assert led.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(led), f"{page.name}: {target}#{anchor}"


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")} - {"README.md"}
    assert {page for page in pages if f"({page})" in index} == pages


def test_make_runs_the_command_the_readme_describes() -> None:
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"^SEARCH \?= (.+)$", makefile, re.MULTILINE)
    assert options is not None and "--steps 2" in options[1]
    assert re.search(r"^RUN \?= runs/synthetic$", makefile, re.MULTILINE)


def test_the_tables_are_those_of_the_results() -> None:
    assert "<!-- table: " in README
    done = subprocess.run([sys.executable, str(ROOT / "results" / "tables.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
