"""What a runtime must offer to be timed, and the ways it can fail.

A backend loads and runs once; warm-up, repetition and statistics live outside it (`timing.py`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from latency.measurement import Conditions


class BackendError(ValueError):
    """A backend that is unknown or cannot be used here; the message says what is missing and how to get it."""


class MeasurementFailed(RuntimeError):
    """A network that a backend could not build, run or agree with torch on; the message gives the reason."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, as runtimes say it: by a type of their own or only in the message."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY):
            return True
        error = error.__cause__
    return False


_OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory", "bad_alloc", "bad allocation", "failed to allocate")


class Session(Protocol):
    """A network loaded on a device for one input shape."""

    clock: str
    """What `run_ms` reads: "perf_counter" or "cuda-events"."""

    found: dict[str, Any]
    """What the runtime reports of itself, recorded with the measurement."""

    def infer(self, image: np.ndarray) -> np.ndarray:
        """Output for an input of the loaded shape, float32."""
        ...

    def run_ms(self) -> float:
        """Milliseconds of one synchronised inference on a fixed input that is not zero.

        A session may also offer `parts_ms()`, a table of what `run_ms` leaves out or is made of, in milliseconds, and a
        number `runs_a_sample` that may be set: then `run_ms` times as many runs in a row and returns the mean of one.
        """
        ...


class Backend(Protocol):
    """A runtime.

    One that loads ONNX graphs may say so by an attribute `takes_graphs`, which is then true: it takes a `GraphFile` for a module.
    """

    name: str

    def unavailable(self, device: str) -> str | None:
        """None, or one sentence: what is missing for this device and how to get it."""
        ...

    def versions(self) -> dict[str, str]:
        """Version by package, of everything that decides what runs."""
        ...

    def load(self, module: nn.Module, conditions: Conditions) -> AbstractContextManager[Session]:
        """Load a module in eval mode; leaving the context frees its memory. Raises `MeasurementFailed`."""
        ...
