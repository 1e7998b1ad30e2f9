"""Which exceptions are a user's mistake: what to say and which exit code is decided in one place."""

from __future__ import annotations

from latency.protocols import BackendError
from latency.store import StoreError
from lpsnet.architecture import ArchitectureError
from lpsnet.errors import UserError

USER_ERRORS = (UserError, ArchitectureError, BackendError, StoreError)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch's allocators say so by a RuntimeError."""
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in ("can't allocate memory", "out of memory"))
    return isinstance(error, MemoryError) or told


def is_usage_error(error: Exception) -> str | None:
    """The message of the command-line parser's own errors, None for anything else.

    The parser's exception types are known by their method, because typer does not export them.
    """
    format_message = getattr(error, "format_message", None)
    if not callable(format_message):
        return None
    return f"{format_message()} (see --help)"
