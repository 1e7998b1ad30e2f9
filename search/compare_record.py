"""What a comparison or an ablation has found so far, as lines that accrue: killed and started again it repeats nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from latency.told import parse_json
from lpsnet.errors import UserError
from search.files import open_alone
from search.run import make_folder

FILE = "record.jsonl"


class Record:
    """The lines of a folder, each a fact under a key; of one key the last holds. A last line that a kill has torn is no fact.

    Args:
        folder: it is made when absent. One process at a time writes to it.

    Raises:
        UserError: the folder cannot be written or is in use, or the file is something else.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path = folder / FILE
        self._file = open_alone(self.path)
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
        self._facts = _facts(self.path, whole)

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The fact of a key, None where there is none."""
        return self._facts.get(_key(key))

    def add(self, key: dict[str, Any], fact: dict[str, Any]) -> None:
        """Append a fact. Raises `UserError` where the file cannot be written."""
        try:
            self._file.write(json.dumps({"key": key, "fact": fact}) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}") from error
        self._facts[_key(key)] = fact

    def has_success(self) -> bool:
        """Whether any fact is no failure."""
        return any("failure" not in fact for fact in self._facts.values())

    def clear(self) -> None:
        """Forget every fact. Raises `UserError` where the file cannot be written."""
        try:
            self._file.truncate(0)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}") from error
        self._facts = {}

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
        self._facts = _facts(path, text[: text.rfind("\n") + 1])

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The fact of a key, None where there is none."""
        return self._facts.get(_key(key))


def _facts(path: Path, text: str) -> dict[str, dict[str, Any]]:
    """The facts of whole lines by key. Raises `UserError` for lines of something else."""
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            values = parse_json(line)
            found[_key(values["key"])] = dict(values["fact"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged in line {number}: {error!r}; name another folder with --out") from error
    return found


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def digest(key: dict[str, Any]) -> str:
    """SHA-256 of a key."""
    return hashlib.sha256(_key(key).encode()).hexdigest()
