"""Runs `lps-search` in a process of its own and kills that with SIGKILL at a chosen place."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import optuna.storages.journal._file as journal

import lpsnet.checkpoint
import search.compare_record
import search.report
import search.run
import search.runner
from latency.store import Store
from search.cli import run
from search.cli.console import Live
from search.observer import Observer
from tests.tiny import few_frames


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Kills this process at the count-th strike."""

    def __init__(self, count: int) -> None:
        self.left = count

    def strike(self) -> None:
        self.left -= 1
        if self.left == 0:
            die()

    def around(self, owner: Any, name: str, when: str) -> None:
        """Strike `before` or `after` each call of a function."""
        original: Callable[..., Any] = getattr(owner, name)

        def replaced(*args: Any, **kwargs: Any) -> Any:
            if when == "before":
                self.strike()
            result = original(*args, **kwargs)
            if when == "after":
                self.strike()
            return result

        setattr(owner, name, replaced)

    def tear_journal(self) -> None:
        """Strike in the middle of an append: part of a line is there."""
        original = journal.JournalFileBackend.append_logs

        def torn(backend: Any, logs: list[dict[str, Any]]) -> None:
            if self.left == 1:
                with open(backend._file_path, "ab") as file:
                    file.write(b'{"op_code": 8, "worker_id": "torn')
            self.strike()
            original(backend, logs)

        journal.JournalFileBackend.append_logs = torn  # type: ignore[method-assign]


PLACES: dict[str, tuple[Any, str]] = {
    "json": (search.run, "write_json"),
    "record": (search.compare_record.Record, "add"),
    "store": (Store, "_insert"),
    "journal": (journal.JournalFileBackend, "append_logs"),
    "lock": (journal.JournalFileSymlinkLock, "acquire"),  # after it: dies holding the journal's own lock
    "checkpoint": (lpsnet.checkpoint, "write_atomic"),
    "report": (search.report, "write_report"),
    "settle": (search.runner._Answerer, "settle"),
}
"""What may be struck `:before` or `:after`."""

MIDDLES: dict[str, tuple[Any, str, str]] = {
    "checkpoint:middle": (lpsnet.checkpoint.os, "fsync", "after"),
    "report:middle": (search.report, "write_trajectory", "before"),
}


def killed(place: str, count: int, arguments: list[str]) -> None:
    """Run the command line and die at the count-th time that a place is reached; else exit with its code.

    Args:
        place: one of `PLACES` with `:before` or `:after`, one of `MIDDLES`, `journal:middle`, or `work` for a sign of progress.
        count: from 1 on.
        arguments: of `lps-search`.
    """
    few_frames()
    countdown = Countdown(count)
    what, _, when = place.partition(":")
    if place == "work":
        countdown.around(Live, "work", "before")
        countdown.around(Observer, "work", "before")
    elif place == "journal:middle":
        countdown.tear_journal()
    elif place in MIDDLES:
        countdown.around(*MIDDLES[place])
    else:
        countdown.around(*PLACES[what], when)
    sys.exit(run(arguments))
