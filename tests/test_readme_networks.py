"""The README's commands on networks, which need no run; `test_readme.py` has the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents import SEARCHING, SECTIONS, furnish, run_commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    furnish(folder)
    return folder


@pytest.mark.parametrize("section", [section for section in SECTIONS if section not in SEARCHING])
def test_the_commands_of_a_section_run_after_those_before_it(section: str, place: Path) -> None:
    run_commands(SECTIONS[section], place)
