"""Processes of their own that begin with everything imported: forked from a server that did so once, as importing takes seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from latency import worker

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "torch",
        "onnxruntime",
        "kornia.augmentation",
        "torchmetrics.classification",
        "pandas",
        "matplotlib.backends.backend_agg",
        "tensorboard.summary.writer.event_file_writer",
        "torch.utils.tensorboard",
        "onnxscript",
        "torch.onnx.ops",
        "torch.onnx._internal.exporter._core",
        "tensorrt_rtx",
        "accelerate",
        "latency.export",
        "latency.measure",
        "lpsnet.training",
        "search.cli",
        "search.runner",
        "search.report",
        "search.training_run",
        "search.compare_report",
        "search.ablation_report",
    ]
)


@contextmanager
def quick_workers() -> Iterator[None]:
    """What starts a `Worker` gets one that is forked; how it starts by itself is for `test_worker.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.multiprocessing, "get_context", lambda method: _CONTEXT)
        yield


class Process:
    """A call in a process of its own; what it prints goes to a file.

    Args:
        function: it; must be found by its name.
        arguments: its own.
        output: the file, which is written anew.
        environment: variables in the place of this process's.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, output: Path, environment: dict[str, str] | None = None) -> None:
        self._output = output
        self._process = _CONTEXT.Process(target=_begin, args=(environment or dict(os.environ), os.getcwd(), output, function, arguments))
        self._process.start()

    def ends(self, timeout_s: float = 240.0) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        self._process.join(timeout_s)
        code = self._process.exitcode
        assert code is not None, f"no end within {timeout_s:g} s"
        return code

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def until(self, seen: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait until something is seen, or the process has ended."""
        deadline = time.monotonic() + timeout_s
        while self.runs() and not seen():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def printed(self) -> str:
        """What it printed."""
        return self._output.read_text()


def _begin(environment: dict[str, str], folder: str, output: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with output.open("wb") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    function(*arguments)
