"""Measurements on disk: an append-only SQLite file, one a machine, shared by all runs on it.

A failed measurement is a row with its reason. No row is changed or deleted. A run keeps a copy of the rows it used in
a store of its own, so that its folder can be read on any machine.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from latency.measurement import Conditions, Environment, Measurement
from latency.told import is_text, parse_json

MOVE_AWAY = "move it away to start a new one (of a run: with lps-search resume RUN --remeasure)"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    conditions TEXT NOT NULL,
    environment TEXT NOT NULL,
    created TEXT NOT NULL,
    failure TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_key ON measurements (subject, conditions, environment);
"""


_COLUMNS = ("id", "subject", "conditions", "environment", "created", "failure", "detail")
_OWN = (("table", "measurements", "measurements"), ("index", "by_key", "measurements"))


class StoreError(ValueError):
    """A store that cannot be opened or read; the message names the file."""


def default_store_path() -> Path:
    """Where this machine's store lies: `$LPS_SEARCH_STORE`, else below `$XDG_DATA_HOME` or `~/.local/share`."""
    if named := os.environ.get("LPS_SEARCH_STORE"):
        return _home(named)
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "lps-search" / "latency.sqlite"


def _home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise StoreError(f"LPS_SEARCH_STORE is {text!r}: {error}") from error


class Store:
    """An open store.

    Args:
        path: the file; it and its folder are made when absent.

    Raises:
        StoreError: the path cannot be written, or the file is no sound store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._check()
        except (OSError, sqlite3.OperationalError) as error:
            raise StoreError(f"latency store {path} cannot be opened: {error}; name another file with --store") from error

    @classmethod
    def snapshot(cls, path: Path) -> Self:
        """The rows of a file as they are now, copied into memory for a reader beside whoever writes, who may wait for milliseconds.

        Rows that are added go nowhere.

        Raises:
            StoreError: the file cannot be read or is no sound store.
        """
        if not path.is_file():  # opening it would make an empty one
            raise StoreError(f"latency store {path} cannot be read: there is no such file")
        store = cls.__new__(cls)
        store.path = path
        store._connection = sqlite3.connect(":memory:", isolation_level=None)
        opened = cls(path)
        try:
            with store._translated():
                opened._connection.backup(store._connection)
        finally:
            opened.close()
        return store

    def _check(self) -> None:
        """Refuse what is damaged or something else; an empty file becomes an empty store."""
        with self._translated():
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._check_schema()
            verdict = self._connection.execute("PRAGMA quick_check").fetchone()[0]
            if verdict != "ok":
                raise StoreError(f"latency store {self.path} is corrupt: {verdict}; {MOVE_AWAY}")
            self._connection.executescript(_SCHEMA)

    def _check_schema(self) -> None:
        """Refuse views, triggers and other tables than ours: they are programs, which reading the file would run."""
        found = self._connection.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall()
        other = [f"{kind} {name}" for kind, name, table in found if (kind, name, table) not in _OWN]
        columns = [row[1] for row in self._connection.execute("PRAGMA table_xinfo(measurements)")]
        if other or columns not in ([], list(_COLUMNS)):
            what = f"it holds {', '.join(other[:3])}" if other else f"its columns are {', '.join(map(str, columns))}"
            raise StoreError(f"{self.path} is no latency store: {what}; name another file with --store")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add(self, measurement: Measurement) -> None:
        """Append a measurement."""
        detail = {
            "samples_ms": measurement.samples_ms,
            "clock": measurement.clock,
            "warmup_runs": measurement.warmup_runs,
            "load_s": measurement.load_s,
            "found": measurement.found,
        }
        self._insert(measurement.subject, measurement.conditions, measurement.environment, measurement.created, None, json.dumps(detail))

    def add_failure(self, subject: str, conditions: Conditions, environment: Environment, created: str, reason: str) -> None:
        """Append a measurement that failed, with its reason."""
        self._insert(subject, conditions, environment, created, reason, "{}")

    def find(self, subject: str, conditions: Conditions, environment: Environment) -> Measurement | str | None:
        """The first measurement of this key, the reason of its failure, or None where it was never measured."""
        with self._translated():
            row = self._connection.execute(
                "SELECT * FROM measurements WHERE subject = ? AND conditions = ? AND environment = ? ORDER BY id LIMIT 1",
                (subject, conditions.key(), environment.key()),
            ).fetchone()
        return None if row is None else self._read(row)

    def row_number(self, subject: str, conditions: Conditions, environment: Environment) -> int | None:
        """Number of the row that `find` reads, None where there is none."""
        with self._translated():
            row = self._connection.execute(
                "SELECT min(id) FROM measurements WHERE subject = ? AND conditions = ? AND environment = ?",
                (subject, conditions.key(), environment.key()),
            ).fetchone()
        return None if row[0] is None else int(row[0])

    def all(self, beyond: int = 0) -> list[Measurement]:
        """Every measurement that succeeded, in the order taken; of rows beyond a number only."""
        with self._translated():
            rows = self._connection.execute("SELECT * FROM measurements WHERE failure IS NULL AND id > ? ORDER BY id", (beyond,)).fetchall()
        return [measurement for row in rows if isinstance(measurement := self._read(row), Measurement)]

    def last_row(self) -> int:
        """Number of the last row, failures included; 0 for an empty store."""
        with self._translated():
            return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM measurements").fetchone()[0])

    def _insert(
        self, subject: str, conditions: Conditions, environment: Environment, created: str, failure: str | None, detail: str
    ) -> None:
        with self._translated():
            self._connection.execute(
                "INSERT INTO measurements (subject, conditions, environment, created, failure, detail) VALUES (?, ?, ?, ?, ?, ?)",
                (subject, conditions.key(), environment.key(), created, failure, detail),
            )

    def _read(self, row: tuple[int, str, str, str, str, str | None, str]) -> Measurement | str:
        number, subject, conditions, environment, created, failure, detail = row
        try:
            if failure is not None:
                if not is_text(failure):
                    raise ValueError(f"its failure is no text: {failure!r}")
                return failure
            key = {"subject": subject, "conditions": Conditions.from_key(conditions), "environment": Environment.from_key(environment)}
            return Measurement.from_dict({**parse_json(detail), **key, "created": created})
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"latency store {self.path} is corrupt in row {number}: {error}; {MOVE_AWAY}") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"latency store {self.path}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeError) as error:  # what is wrong may itself be no text
            raise StoreError(f"latency store {self.path} is corrupt: {error}; {MOVE_AWAY}") from error
