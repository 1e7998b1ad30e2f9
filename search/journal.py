"""The journal file of a run's studies: opened, healed of what a killed driver left, and checked line by line."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from latency.told import parse_json
from lpsnet.errors import UserError


class StudyError(UserError):
    """A record that cannot be opened or read; the message names the file or the database."""


def without_password(text: str) -> str:
    """A text with the password of every URL in it hidden."""
    text = re.sub(r"(://[^\s/:@]*):[^\s@]*@", r"\1:***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd)=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


def open_journal(path: Path, *, heal: bool) -> JournalStorage:
    """Optuna's storage of a journal file.

    Args:
        path: the file.
        heal: repair what a killed driver left.

    Raises:
        StudyError: damaged elsewhere than in its last line, or it cannot be read.
    """
    try:
        if heal:
            _heal(path)
        _check(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return JournalStorage(JournalFileBackend(str(path)))
    except StudyError:
        raise
    except Exception as error:  # Optuna plays the journal back: lines that make no sense lead it to any error
        raise StudyError(f"study {path} cannot be opened: {type(error).__name__}: {error}") from error


def _heal(path: Path) -> None:
    """Cut a torn last line, which the next write would be glued to, and remove a killed writer's lock."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.exists():
        with path.open("r+b") as file:
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole != len(data):
                file.truncate(whole)


def _check(path: Path) -> None:
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn, not corrupt
        try:
            if "op_code" not in dict(parse_json(line)):
                raise ValueError("no operation of a study")
        except (ValueError, TypeError) as error:
            raise StudyError(f"study {path} is corrupt in line {number}: {error}; restore it, or start a new run with --out") from error
