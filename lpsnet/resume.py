"""The state of a training on disk: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from lpsnet.checkpoint import CheckpointError, write_atomic
from lpsnet.tensors import read_pickle

FORMAT = "lps-training-1"


class Keeper:
    """Keeps the state of one training in a file.

    Args:
        path: of the file.
        identity: what decides the training, as plain values; a state of another training is refused.
        every_s: seconds from one saving to the next.
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, every_s: float = 300.0) -> None:
        self.path = path
        self._identity = identity
        self._every_s = every_s
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= self._every_s

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; the one before stays until this one is whole. Raises `CheckpointError`."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "identity": self._identity, "state": state}, buffer)
        write_atomic(self.path, buffer.getvalue())
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, None where none was.

        Raises:
            CheckpointError: the file is damaged, or of another training; the message says what differs.
        """
        if not self.path.exists():
            return None
        try:
            values = read_pickle(self.path)
            found, state = values["identity"], values["state"]
            if values["format"] != FORMAT or not isinstance(found, dict) or not isinstance(state, dict):
                raise TypeError
        except (CheckpointError, KeyError, TypeError, IndexError) as error:
            raise CheckpointError(f"{self.path} is damaged or no training state; move it away to start anew") from error
        if differences := differing(found, self._identity):
            raise CheckpointError(f"{self.path} is the state of another training ({differences}); name another folder")
        kept: dict[str, Any] = state
        return kept


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What two descriptions differ in, `NAME: FOUND, not WANTED`, field by field also within one; empty where they are equal."""
    told = []
    for name in sorted({*found, *wanted}):
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            told.append(differing(one, other))
        elif one != other:
            told.append(f"{name}: {one!r}, not {other!r}")
    return "; ".join(part for part in told if part)
