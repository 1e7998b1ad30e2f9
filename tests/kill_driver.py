"""Runs `lps-search` in a process of its own and kills that with SIGKILL at a chosen place."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from tests.tiny import few_frames


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(place: str, count: int, arguments: list[str]) -> None:
    """Run the command line and die at the count-th time that a place is reached; else exit with its code.

    Args:
        place: a kind of write with `:before`, `:middle` or `:after`, or `work` for a sign of progress.
        count: from 1 on.
        arguments: of `lps-search`.
    """
    few_frames()
    remaining = [count]

    def strike() -> None:
        remaining[0] -= 1
        if remaining[0] == 0:
            die()

    def around(owner: Any, name: str, when: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def replaced(*args: Any, **kwargs: Any) -> Any:
            if when == "before":
                strike()
            result = original(*args, **kwargs)
            if when == "after":
                strike()
            return result

        setattr(owner, name, replaced)

    import optuna.storages.journal._file as journal

    import lpsnet.checkpoint
    import search.compare_record
    import search.report
    import search.run
    import search.runner
    from latency.store import Store
    from search.observer import Observer

    what, _, when = place.partition(":")
    if what == "work":
        from search.cli.console import Live

        around(Live, "work", "before")
        around(Observer, "work", "before")
    elif what == "json":
        around(search.run, "write_json", when)
    elif what == "record":
        around(search.compare_record.Record, "add", when)
    elif what == "store":
        around(Store, "_insert", when)
    elif what == "journal" and when == "middle":
        original = journal.JournalFileBackend.append_logs

        def torn(self: Any, logs: list[dict[str, Any]]) -> None:
            if remaining[0] == 1:
                with open(self._file_path, "ab") as file:
                    file.write(b'{"op_code": 8, "worker_id": "torn')
            strike()
            original(self, logs)

        journal.JournalFileBackend.append_logs = torn  # type: ignore[method-assign]
    elif what == "journal":
        around(journal.JournalFileBackend, "append_logs", when)
    elif what == "lock":  # dies holding the journal's own lock
        around(journal.JournalFileSymlinkLock, "acquire", "after")
    elif what == "checkpoint" and when == "middle":
        around(lpsnet.checkpoint.os, "fsync", "after")
    elif what == "checkpoint":
        around(lpsnet.checkpoint, "write_atomic", when)
    elif what == "report" and when == "middle":
        around(search.report, "write_trajectory", "before")
    elif what == "report":
        around(search.report, "write_report", when)
    elif what == "settle":
        around(search.runner._Answerer, "settle", when)
    else:
        raise SystemExit(f"no such place: {place}")

    from search.cli import run

    sys.exit(run(arguments))
