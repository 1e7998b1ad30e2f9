"""The folder of a training: whose it is, one training at a time in it, and the learning curve as a file.

Does not cover the training itself (`training_run.py`) or its state (`lpsnet/resume.py`).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latency.told import parse_json
from lpsnet.checkpoint import write_atomic
from lpsnet.errors import UserError
from lpsnet.resume import differing
from search.files import csv_rows, csv_text
from search.run import make_folder

STATE, CONFIG, CURVE, SCORES = "state.pt", "config.json", "curve.csv", "scores.json"
CURVE_COLUMNS = ("iteration", "loss", "learning_rate", "images_per_s", "waiting_percent", "val_miou_percent")


@contextmanager
def held(out: Path, who: str = "a training") -> Iterator[None]:
    """Make the folder and hold it until the block ends; the hold goes with the process.

    Raises:
        UserError: it cannot be made, or another process, `who`, works in it.
    """
    make_folder(out)
    path = out / f"{who.split()[-1]}.lock"
    try:
        lock = path.open("a")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; name another folder with --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{who} is running in {out}; wait for it, or name another folder") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def finished_weights(out: Path, architecture: str) -> Path | None:
    """The checkpoint of a network whose training in this folder has ended; None where it has not: the scores are written last."""
    path = out / f"{architecture}.safetensors"
    return path if path.is_file() and (out / SCORES).is_file() else None


def check_plan(out: Path, plan: dict[str, Any]) -> bool:
    """Whether the folder holds this training, begun or ended. One that failed before its first point is none.

    Raises:
        UserError: it holds another one, or its description is damaged.
    """
    path = out / CONFIG
    if not path.is_file():
        return False
    try:
        found = parse_json(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; name another folder") from error
    wanted = json.loads(json.dumps(plan))
    differences = differing({name: found.get(name) for name in wanted}, wanted)
    if differences and (any((out / name).exists() for name in (STATE, CURVE)) or any(out.glob("*.safetensors"))):
        raise UserError(f"{out} holds another training ({differences}); name another folder")
    return not differences


def read_curve(path: Path) -> list[dict[str, str]]:
    """Rows of a learning curve, none where there is no file.

    Raises:
        UserError: the file is something else.
    """
    if not path.exists():
        return []
    try:
        rows = csv_rows(path.read_text())
        for row in rows:
            int(row["iteration"])
            float(row["loss"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no learning curve: {error!r}; move it away to go on without it") from error
    return rows


def write_curve(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a learning curve whole or not at all. Raises `CheckpointError`."""
    write_atomic(path, csv_text(rows, CURVE_COLUMNS).encode())
