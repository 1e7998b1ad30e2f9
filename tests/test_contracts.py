"""Contracts of the whole: light imports, a fast command line, and every module importable with base dependencies."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

HEAVY = ("torch", "optuna", "onnxruntime", "pandas", "kornia", "torchmetrics", "matplotlib", "ray", "tensorrt", "plotly", "jinja2")


def modules_after(statement: str) -> set[str]:
    """Top-level modules loaded by a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(' '.join(name for name in sys.modules if '.' not in name))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import lpsnet",
        "import latency; from latency import measure",
        "import search; from search import expand",
        "from lpsnet import Architecture",
        "import search.config, search.space, search.expand, lpsnet.recipe, lpsnet.data",
        "import search.cli\ntry: search.cli.run(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    assert not modules_after(statement) & set(HEAVY)


def test_looking_at_a_run_needs_no_torch() -> None:
    """`watch` runs beside a search: it should start at once and take little memory."""
    loaded = modules_after("import search.watch, search.cli.watch_verbs, search.cli.watch_frame")
    assert "optuna" in loaded and not loaded & (set(HEAVY) - {"optuna"})


def test_public_names_are_the_functions_even_after_their_modules_are_imported() -> None:
    code = "import latency.measure, search.expand; from latency import measure; from search import expand; print(measure, expand)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.count("<function") == 2


def test_every_module_is_importable() -> None:
    import importlib

    import latency
    import lpsnet
    import search

    names = [info.name for package in (lpsnet, latency, search) for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    assert len(names) > 35
    for name in names:
        importlib.import_module(name)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import lpsnet

    with pytest.raises(AttributeError, match="nothing"):
        _ = lpsnet.nothing
