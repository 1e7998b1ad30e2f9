"""Calls in a process of their own, with a time limit: a backend that hangs or crashes costs one call, not the caller.

Native code that hangs cannot be interrupted from Python; its process can be ended. Nothing here knows what is called.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from latency.protocols import MeasurementFailed, is_out_of_memory

_PR_SET_PDEATHSIG = 1
_LEAVING_S = 3.0
_STARTING_S = 120.0


class WorkerLost(MeasurementFailed):
    """The process gave no answer in time, or ended. That may say as much about the moment as about the network."""


class WorkerEnded(WorkerLost):
    """The process ended: it was killed, or what it ran crashed."""


class Worker:
    """A process that is started at the first call, kept between calls, and started anew after it was lost.

    On Linux it ends with the thread that made the first call, so that a killed caller leaves nothing behind.

    Args:
        limit_s: seconds a call may take, None for any; the start of the process is no part of them.
    """

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self._process: Any = None
        self._connection: Connection | None = None
        self._lost = False
        self._changing = threading.Lock()  # a pool may close while the thread of a call starts a process, or finds it gone

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The value of `function(*arguments)`, all of which must be picklable.

        Raises:
            WorkerLost: no answer in time, or the process ended.
            Exception: whatever the function raised.
        """
        connection = self._connected()
        try:
            connection.send_bytes(pickle.dumps((function, arguments)))
            answered = connection.poll(self.limit_s)
            value, error = pickle.loads(connection.recv_bytes()) if answered else (None, None)
        except (EOFError, OSError):
            raise WorkerEnded(f"the process {self._ending()}") from None
        except BaseException:  # an interrupt: what would come now belongs to no call
            self.close()
            raise
        if not answered:
            self._lost = True
            self.close()
            raise WorkerLost(f"no answer within {self.limit_s:g} s; the process was ended")
        if error is not None:
            raise error
        return value

    def call_twice(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `call`, and once more where the process ended: killed by somebody, or for want of memory that is there the next time."""
        try:
            return self.call(function, *arguments)
        except WorkerEnded:
            return self.call(function, *arguments)

    def close(self) -> None:
        """End the process: it leaves by itself when nobody calls, and is killed where it does not."""
        with self._changing:
            process, connection, lost = self._process, self._connection, self._lost
            self._process, self._connection, self._lost = None, None, False
        if connection is not None:
            connection.close()
        if process is not None:
            process.join(0 if lost else _LEAVING_S)
            process.kill()
            process.join()

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is None:
            connection = self._started()
            try:
                ready = connection.poll(_STARTING_S)
                if ready:
                    connection.recv_bytes()
            except (EOFError, OSError):
                raise WorkerEnded(f"the process {self._ending()}") from None
            if not ready:
                self._lost = True
                self.close()
                raise WorkerLost(f"the process did not start within {_STARTING_S:g} s")
        return connection

    def _started(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork would share OpenMP's and CUDA's threads, which do not survive it
        with self._changing:
            connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._process, self._connection = process, connection
        return connection

    def _ending(self) -> str:
        process = self._process
        if process is None:
            return "was closed"
        process.join(5)
        code = process.exitcode
        self.close()
        return f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with exit code {code}"


def _serve(connection: Connection) -> None:
    """Answer calls until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what an interrupt means
    if sys.platform == "linux":  # a caller that is killed takes even a hanging process with it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answered = b"ready"
    while True:
        try:
            connection.send_bytes(answered)
            asked = connection.recv_bytes()
        except (EOFError, OSError):  # the caller has gone, perhaps without reading the last answer
            return
        function, arguments = pickle.loads(asked)
        answer: tuple[Any, Exception | None]
        try:
            answer = (function(*arguments), None)
        except Exception as error:
            answer = (None, portable(error))
        try:
            answered = pickle.dumps(answer)
        except Exception as error:
            answered = pickle.dumps((None, MeasurementFailed(f"the answer cannot be passed on: {type(error).__name__}: {error}")))


def portable(error: Exception) -> Exception:
    """The error as it can travel: its cause stays behind, so that memory ran out must stand in the text."""
    if isinstance(error, MeasurementFailed) and is_out_of_memory(error):
        return MeasurementFailed(f"{error} (out of memory)")
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
