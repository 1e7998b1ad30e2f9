"""What all tests share: a store of their own, few threads, and a made CamVid folder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latency.backends import BACKENDS
from latency.pace import Patience
from latency.store import Store, default_store_path
from lpsnet.data import synthetic
from tests.backends import Watched
from tests.tiny import write_camvid

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the store of the machine it runs on, or waits for its devices."""
    monkeypatch.setenv("LPS_SEARCH_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("LPS_SEARCH_STORE", str(tmp_path / "machine-store.sqlite"))
    monkeypatch.setenv("LPS_SEARCH_CACHE", str(tmp_path / "machine-cache"))
    yield


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits until the machine is as fast as it was; that it would is for `test_pace.py`."""
    monkeypatch.setattr(importlib.import_module("latency.measure"), "_PATIENCE", Patience(0.0))
    monkeypatch.setattr("search.compare_run.Patience", lambda: Patience(0.0))


@pytest.fixture(autouse=True)
def whole_synthetic_splits() -> Iterator[None]:
    """A test that asks for few frames leaves the splits of the next one whole."""
    sizes = dict(synthetic.SPLIT_SIZES)
    yield
    synthetic.SPLIT_SIZES.update(sizes)


@pytest.fixture
def make_camvid(tmp_path: Path) -> Callable[..., Path]:
    """Makes a small folder in CamVid's layout and returns it."""

    def make(counts: dict[str, int] | None = None, size: tuple[int, int] = (32, 48), suffix: str = ".png") -> Path:
        return write_camvid(tmp_path / "camvid", counts, size, suffix)

    return make


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    """Puts a watched backend under `measure`."""

    def put(name: str = "torch", **how: Any) -> Watched:
        watched = Watched(BACKENDS[name](), **how)
        monkeypatch.setattr(importlib.import_module("latency.measure"), "usable_backend", lambda asked, device: watched)
        return watched

    return put


@pytest.fixture
def store(own_store: None) -> Iterator[Store]:
    opened = Store(default_store_path())
    yield opened
    opened.close()
