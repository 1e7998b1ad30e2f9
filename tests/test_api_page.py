"""The API reference is that of the docstrings, and has all that is exported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

import latency
import lpsnet
import search
from tests.documents import ROOT

SCRIPT, PAGE = ROOT / "docs" / "api.py", ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", [lpsnet, latency, search], ids=lambda package: package.__name__)
def test_every_exported_name_is_explained(package: ModuleType) -> None:
    _, _, part = PAGE.read_text().partition(f"\n## {package.__name__}\n")
    part = part.partition("\n## ")[0]
    for name in package.__all__:
        _, found, told = part.partition(f"\n### {name}\n\n```python\n")
        words = told.partition("```\n")[2].partition("\n#")[0].strip()
        assert found and len(words) > 10, name


def test_a_long_signature_has_a_line_a_parameter(script: ModuleType) -> None:
    short = "f(a: dict[str, int], *, b: str = 'x') -> None"
    assert script._lines(short) == short
    long = f"f(a: dict[str, int], {'b' * 100}: tuple[int, int] = (1, 2), *, c: int) -> tuple[int, ...]"
    assert script._lines(long).splitlines() == [
        "f(",
        "    a: dict[str, int],",
        f"    {'b' * 100}: tuple[int, int] = (1, 2),",
        "    *,",
        "    c: int,",
        ") -> tuple[int, ...]",
    ]
