"""A real PostgreSQL server for tests, in a folder of its own, on a port of its own; it ends with the test process."""

from __future__ import annotations

import ctypes
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def die_with_parent() -> None:
    """In a child process before it becomes another program: a killed test leaves nothing behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str | None:
    debian = sorted(str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (debian[-1] if debian else None)


def _user() -> str:
    """Whom the server runs as: it refuses to run as root."""
    if os.geteuid():
        return getpass.getuser()
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


class Server:
    """A server that is started and stopped at will."""

    def __init__(self, folder: Path, user: str) -> None:
        self._folder, self._user = folder, user
        self.port = free_port()
        self.url = f"postgresql://{user}@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [_program("postgres"), "-D", "data", "-k", str(self._folder), "-h", "127.0.0.1", "-p", str(self.port), "-F"]
        self._process = self._run(command)
        ready = [_program("pg_ctl"), "-D", "data", "-t", "60", "status"]
        for _ in range(600):
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and (self._folder / f".s.PGSQL.{self.port}").exists():
                    break
            assert self._process.poll() is None, (self._folder / "log").read_text()
            signal.sigtimedwait([], 0.1)
        assert self._run(ready).wait() == 0

    def stop(self) -> None:
        """Stop it at once; connections are cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def _run(self, command: list[str | None]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [part for part in command if part is not None],
                cwd=self._folder,
                env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
                user=self._user if not os.geteuid() else None,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )


@contextmanager
def postgres() -> Iterator[Server]:
    """A running server with an empty database; skips where PostgreSQL is not installed."""
    if not (_program("initdb") and _program("postgres") and _program("pg_ctl")):
        pytest.skip("no PostgreSQL server here: initdb, postgres and pg_ctl are not on the path")
    folder, user = Path(tempfile.mkdtemp(prefix="lps-pg-", dir="/tmp")), _user()
    server = Server(folder, user)
    try:
        shutil.chown(folder, user)
        initialised = server._run([_program("initdb"), "-D", "data", "-U", user, "--auth=trust", "--encoding=UTF8", "--no-sync"]).wait()
        assert initialised == 0, (folder / "log").read_text()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
