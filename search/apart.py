"""Calls that take long, each in a process of its own, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from latency.worker import Worker, WorkerLost

HEARTBEAT_S = 2.0


@dataclass(frozen=True)
class Call:
    """A function and its arguments, all picklable."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_here(calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
    """Make calls one after the other in this process; yields the number of each and what it gave, or the exception it raised."""
    for number, call in enumerate(calls):
        try:
            value = call.function(*call.arguments)
        except Exception as error:
            value = error
        yield number, value


def run_apart(calls: Sequence[Call], parallel: int, tick: Callable[[], None]) -> Iterator[tuple[int, Any]]:
    """As `run_here`, in processes of their own, in the order they end.

    Args:
        calls: begun in this order.
        parallel: how many run at a time.
        tick: called now and then.
    """
    workers: list[Worker] = []
    closed = False

    def made(call: Call) -> Any:
        worker = Worker(None)
        workers.append(worker)
        if closed:
            raise WorkerLost("not begun any more")
        try:
            return worker.call(call.function, *call.arguments)
        finally:
            worker.close()

    with ThreadPoolExecutor(parallel) as threads:
        numbers = {threads.submit(made, call): number for number, call in enumerate(calls)}
        waiting = set(numbers)
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=HEARTBEAT_S, return_when=FIRST_COMPLETED)
                tick()
                for future in ended:
                    yield numbers[future], future.exception() or future.result()
        finally:  # where the caller was interrupted, the processes end with it
            closed = True
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()
