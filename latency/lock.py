"""One measurement at a time on a device, and no training beside it, across the processes of a machine.

Measuring takes the device alone; trainings share it among themselves. The lock goes with the process that holds it.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def lock_folder() -> Path:
    """Where the locks of this machine lie: `$LPS_SEARCH_LOCKS`, else a folder of this user below the temporary one."""
    named = os.environ.get("LPS_SEARCH_LOCKS")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"lps-search-{os.getuid()}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def device_lock(device: str, *, alone: bool, tell: Callable[[str], None] = _tell) -> Iterator[None]:
    """Hold "cpu" or "cuda", waiting for whoever holds it; `tell` hears of a wait.

    Args:
        device: which.
        alone: to measure; else to train, which others may do at the same time.
        tell: is given one line where there is somebody to wait for.
    """
    path = lock_folder() / f"{device}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:  # nobody can be kept out then; the verdict on other work still tells
        tell(f"no lock on {device}: {error}; LPS_SEARCH_LOCKS names another folder")
        yield
        return
    with file:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting: another process {'uses' if alone else 'measures on'} this machine's {device} ({path})")
            fcntl.flock(file, kind)
        yield
