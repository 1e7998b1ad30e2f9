"""What a comparison or an ablation has found so far, as lines that accrue: killed and started again it repeats nothing."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latency.told import parse_json
from lpsnet.errors import UserError
from search.files import open_alone
from search.run import make_folder

FILE = "record.jsonl"

NEEDED = {
    "prepare": {"failure"},
    "turn": {"samples_ms", "found", "output", "memory_bytes"},
    "memory": {"memory_bytes"},
    "latency": {"latency_ms", "stable"},
    "training": {"miou_percent"},
    "score": {"miou_percent"},
}
"""What a fact that is no failure must hold, by the `what` of its key."""


class Record:
    """The lines of a folder, each a fact under a key; of one key the last holds. A last line that a kill has torn is no fact.

    Each line has the seconds since the one before, or since the record was opened; their sum, `seconds`, is what all calls so far took
    up to their last facts, None where a line of an older version does not tell.

    Args:
        folder: it is made when absent. One process at a time writes to it.

    Raises:
        UserError: the folder cannot be written or is in use, or the file is something else.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path = folder / FILE
        self._file = open_alone(self.path)
        self._since = time.monotonic()
        try:
            self._read()
        except UserError:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        try:
            text = self._file.read()
        except ValueError as error:
            raise UserError(f"{self.path} is damaged: {error}; name another folder with --out") from error
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._file.truncate(len(whole.encode()))
        self._facts, self.seconds = _facts(self.path, whole)

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The fact of a key, None where there is none."""
        return self._facts.get(_key(key))

    def add(self, key: dict[str, Any], fact: dict[str, Any]) -> None:
        """Append a fact. Raises `UserError` where the file cannot be written."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        try:
            self._file.write(json.dumps({"key": key, "fact": fact, "seconds": round(seconds, 3)}) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}") from error
        self._facts[_key(key)] = fact
        if self.seconds is not None:
            self.seconds += seconds

    def has_success(self) -> bool:
        """Whether any fact is no failure."""
        return any("failure" not in fact for fact in self._facts.values())

    def clear(self) -> None:
        """Forget every fact. Raises `UserError` where the file cannot be written."""
        try:
            self._file.truncate(0)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}") from error
        self._facts, self.seconds = {}, 0.0

    def close(self) -> None:
        """Let another process write."""
        self._file.close()


class ReadRecord:
    """The facts of a folder as they are now, also while another process writes to it. Raises `UserError` where there are none."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        try:
            text = path.read_text()
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from error
        self._facts, self.seconds = _facts(path, text[: text.rfind("\n") + 1])

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The fact of a key, None where there is none."""
        return self._facts.get(_key(key))


def _facts(path: Path, text: str) -> tuple[dict[str, dict[str, Any]], float | None]:
    """The facts of whole lines by key, and the seconds they took. Raises `UserError` for lines of something else."""
    found: dict[str, dict[str, Any]] = {}
    seconds: list[float | None] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            values = parse_json(line)
            found[_key(values["key"])] = _checked(values["key"], values["fact"])
            seconds.append(_seconds(values.get("seconds")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged in line {number}: {error!r}; name another folder with --out") from error
    told = [one for one in seconds if one is not None]
    return found, sum(told) if len(told) == len(seconds) else None


def _checked(key: dict[str, Any], fact: dict[str, Any]) -> dict[str, Any]:
    """A fact whose fields are what is made of them. Raises `ValueError`, `KeyError` or `TypeError`."""
    if missing := NEEDED.get(key.get("what", ""), set()) - set(fact) if "failure" not in fact else set():
        raise ValueError(f"{key['what']} lacks {', '.join(sorted(missing))}")
    for name, value in fact.items():
        if (is_sound := _SOUND.get(name)) and not is_sound(value):
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    return dict(fact)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_time(value: Any) -> bool:
    return _is_number(value) and value > 0


_SOUND: dict[str, Callable[[Any], bool]] = {
    "failure": lambda value: isinstance(value, str),
    "output": lambda value: isinstance(value, str),
    "stable": lambda value: isinstance(value, bool),
    "again": lambda value: isinstance(value, bool),
    "latency_ms": _is_time,
    "samples_ms": lambda value: isinstance(value, (list, tuple)) and bool(value) and all(map(_is_time, value)),
    "miou_percent": lambda value: value is None or _is_number(value),
    "seconds": _is_number,
    "memory_bytes": lambda value: value is None or _is_number(value),
    "found": lambda value: (
        isinstance(value, dict)
        and isinstance(value.get("state"), dict)
        and all(_is_time(value["state"].get(name, 1)) for name in ("pace_ms", "slowness"))
    ),
}
"""Whether the value of a field is what it should be."""


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    seconds = float(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"seconds are {value!r}, not a time")
    return seconds


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def digest(key: dict[str, Any]) -> str:
    """SHA-256 of a key."""
    return hashlib.sha256(_key(key).encode()).hexdigest()
