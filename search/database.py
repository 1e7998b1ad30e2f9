"""A database of studies that several drivers share: one driver a study, and connections that come back.

The right to drive a study is a lock of the server's that belongs to a connection (PostgreSQL's advisory locks, MySQL's
named ones): it ends with the process that holds it, needs no clock, and cannot be held twice. A file (SQLite) has none;
there the lock of the run's folder is all.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from search.journal import StudyError, without_password

T = TypeVar("T")

ANSWER_WITHIN_S = 120.0
"""How long a database that does not answer is tried again before what was to be written is given up."""

_TO_INSTALL = {"psycopg": "pip install 'lps-search[postgresql]'", "MySQLdb": "pip install pymysql, and write mysql+pymysql://"}


@dataclass(frozen=True)
class _Server:
    """How a kind of server locks: the last three statements know `:key`.

    Args:
        prepare: said once a connection; knows `:name`, of this process.
        wait: takes a lock, waiting for it.
        take: takes a lock or not, at once.
        holder: who has it.
    """

    prepare: tuple[str, ...]
    wait: str
    take: str
    holder: str


_POSTGRESQL = _Server(
    # Where a driver's machine is gone without a word, the server is to notice within two minutes, not hours.
    prepare=(
        "SET tcp_keepalives_idle = 60",
        "SET tcp_keepalives_interval = 10",
        "SET tcp_keepalives_count = 6",
        "SELECT set_config('application_name', :name, false)",
    ),
    wait="SELECT pg_advisory_lock(CAST(:key AS bigint))",
    take="SELECT pg_try_advisory_lock(CAST(:key AS bigint))",
    holder="SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND CAST(classid AS bigint) << 32 | CAST(objid AS bigint) = CAST(:key AS bigint)",
)
_MYSQL = _Server(
    prepare=("SET SESSION wait_timeout = 2147483",),  # it would close the lock's connection, which says little
    wait="SELECT GET_LOCK(:key, 120)",
    take="SELECT GET_LOCK(:key, 0)",
    holder="SELECT host FROM information_schema.processlist WHERE id = IS_USED_LOCK(:key)",
)
_SERVERS = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}


class Database:
    """A database of studies, open.

    Args:
        url: SQLAlchemy's; the password in it is not shown.
        driver_of: the study that is driven, which nobody else drives until `close`; None to read only.

    Raises:
        StudyError: it cannot be opened, or somebody else drives that study.
    """

    def __init__(self, url: str, driver_of: str | None = None) -> None:
        self._shown = without_password(url)
        self._driver_of = driver_of
        self._right: Connection | None = None
        try:
            # The connection of a right is its own: one of a pool would be handed on.
            self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            self._server = _SERVERS.get(self._engine.dialect.name)
            self.storage = self._opened(url)
        except Exception as error:  # SQLAlchemy and the database drivers share no base class
            reason = _line(error.__cause__ or error)  # Optuna's own speaks of invalid data where a table is missing
            hint = "".join(f"; {how}" for module, how in _TO_INSTALL.items() if f"No module named '{module}" in reason)
            raise StudyError(f"study database {self._shown} cannot be opened: {reason}{hint}") from error
        try:
            self._hold_right()
        except BaseException:
            self.close()
            raise

    def write(self, action: Callable[[], T]) -> T:
        """What an action of the driver gives, tried again for a while where the database does not answer.

        Raises:
            StudyError: the database does not answer, or somebody else drives the study meanwhile.
        """
        until, wait_s = time.monotonic() + ANSWER_WITHIN_S, 1.0
        while True:
            try:
                self._hold_right()
                return action()
            except (StorageInternalError, SQLAlchemyError) as error:
                if time.monotonic() + wait_s > until:
                    rest = "nothing it has is lost: lps-search resume goes on once it does"
                    raise StudyError(f"study database {self._shown} does not answer: {_line(error.__cause__ or error)}; {rest}") from error
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, 15.0)

    def close(self) -> None:
        """Give the right back, and end all connections."""
        self._give_back()
        self.storage.engine.dispose()

    def _opened(self, url: str) -> RDBStorage:
        """The storage; its tables are made for a driver, by one process at a time: two at once would fail."""
        same = {"pool_pre_ping": True}  # a connection that broke is made anew
        if self._driver_of is None or self._server is None:
            return RDBStorage(url, engine_kwargs=same, skip_table_creation=self._driver_of is None)
        with self._engine.connect() as connection:
            connection.execute(text(self._server.wait), {"key": _key(self._server, "making of tables")})
            return RDBStorage(url, engine_kwargs=same)

    def _hold_right(self) -> None:
        """Take the right to drive, or see that it is still held. Raises `StudyError` and SQLAlchemy's errors."""
        if self._server is None or self._driver_of is None:
            return
        try:
            if self._right is not None:
                self._right.execute(text("SELECT 1"))
        except SQLAlchemyError:  # the right has gone with its connection, and whoever took it meanwhile has it
            self._give_back()
        if self._right is None:
            self._right = self._taken(self._server, self._driver_of)

    def _give_back(self) -> None:
        if self._right is not None:
            with suppress(SQLAlchemyError):
                self._right.close()
        self._right = None

    def _taken(self, server: _Server, study: str) -> Connection:
        """A connection that holds the right to drive a study."""
        connection, key = self._engine.connect(), {"key": _key(server, study)}
        try:
            for statement in server.prepare:
                connection.execute(text(statement), {"name": _own_name()} if ":name" in statement else None)
            if not connection.execute(text(server.take), key).scalar():
                holder = connection.execute(text(server.holder), key).scalar() or "another process"
                raise StudyError(f"study {study} in {self._shown} is being driven by {holder}; one driver a study")
        except BaseException:
            connection.close()
            raise
        return connection


def _key(server: _Server, name: str) -> int | str:
    """What a lock is called: a number of 64 bits in PostgreSQL, a text of at most 64 characters in MySQL."""
    digest = hashlib.sha256(f"lps-search {name}".encode())
    return int.from_bytes(digest.digest()[:8], "big", signed=True) if server is _POSTGRESQL else f"lps-search {digest.hexdigest()[:40]}"


def _own_name() -> str:
    """What this process is called on the server, where a name may have 63 characters."""
    return f"lps-search {socket.gethostname()[:30]} process {os.getpid()}"


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
