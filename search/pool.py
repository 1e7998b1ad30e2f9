"""Trainings of candidates: one at a time in this process, or several in processes of their own, each with its data decoded once.

What a training gives does not depend on where it is done, only on its number of threads.
"""

from __future__ import annotations

import dataclasses
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from latency.protocols import is_out_of_memory
from latency.worker import Worker, WorkerLost
from lpsnet.errors import TrainingFailed
from search.config import SearchConfig
from search.observer import Observer
from search.proxy import Proxy, TrainJob

if TYPE_CHECKING:
    from lpsnet.training import Trained

HEARTBEAT_S = 2.0
"""How often it is told that trainings in other processes go on."""


@dataclass(frozen=True)
class Ended:
    """A training that is over: the job, what came of it, and the seconds it took."""

    job: TrainJob
    result: Trained | TrainingFailed
    seconds: float


def train_here(proxy: Proxy, job: TrainJob) -> Ended:
    """Train in this process."""
    start = time.perf_counter()
    result: Trained | TrainingFailed
    try:
        result = proxy.train(job)
    except TrainingFailed as failure:
        result = failure
    return Ended(job, result, time.perf_counter() - start)


class Crew(Protocol):
    """Several that train at the same time, wherever they are."""

    def room(self) -> int:
        """How many trainings more could begin now."""
        ...

    def running(self) -> int:
        """How many trainings were begun and have not been given back as ended."""
        ...

    def begin(self, job: TrainJob) -> None:
        """Begin a training; called only where there is room."""
        ...

    def ended(self, timeout_s: float) -> Ended | None:
        """A training that has ended, awaited for so many seconds. Raises what no candidate is to blame for."""
        ...


def train_by(crew: Crew, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
    """Train all jobs, the next as soon as there is room; yields each as it ends.

    Args:
        crew: who trains.
        jobs: begun in this order.
        on_start: called in this thread before each; where it raises, what runs is awaited and yielded first.
        on_wait: called now and then with the number of trainings that run.
    """
    waiting = list(jobs)
    stopped: BaseException | None = None
    while waiting or crew.running():
        while waiting and crew.room() > 0:
            try:
                on_start(waiting[0])
            except BaseException as reason:
                stopped, waiting = reason, []
                break
            crew.begin(waiting.pop(0))
        if not (waiting or crew.running()):
            break
        ended = crew.ended(HEARTBEAT_S)
        if ended is None:
            on_wait(crew.running())
        else:
            yield ended
    if stopped is not None:
        raise stopped


Train = Callable[[Sequence[TrainJob], Callable[[TrainJob], None]], Iterator[Ended]]
"""Trains jobs, telling of each before it begins."""


def with_second_tries(train: Train, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None]) -> Iterator[Ended]:
    """Train jobs; one that ran out of memory once more after all others, alone: who had the memory may have given it back."""
    short: list[Ended] = []
    for ended in train(jobs, on_start):
        if isinstance(ended.result, TrainingFailed) and is_out_of_memory(ended.result):
            short.append(ended)
        else:
            yield ended
    for first in short:
        for again in train([first.job], lambda job: None):
            yield dataclasses.replace(again, seconds=first.seconds + again.seconds)


class Pool:
    """Processes that train, kept until closed, each with its data decoded once.

    Args:
        size: number of processes.
    """

    def __init__(self, size: int) -> None:
        self._workers = [Worker(None) for _ in range(size)]
        # Threads that stay: a process ends with the thread that started it.
        self._threads = ThreadPoolExecutor(size)
        self._closed = False

    def run(
        self, config: SearchConfig, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]
    ) -> Iterator[Ended]:
        """Train all jobs under a configuration; see `train_by`."""
        yield from train_by(_Shift(self, config), jobs, on_start, on_wait)

    def _call(self, worker: Worker, job: TrainJob, config: SearchConfig, ended: queue.Queue[tuple[Worker, Ended | BaseException]]) -> None:
        start = time.perf_counter()
        outcome: Ended | BaseException
        try:
            try:
                outcome = worker.call(train_there, config, job)
            except WorkerLost:  # killed by somebody, or for want of memory that is there the next time
                if self._closed:
                    return
                outcome = worker.call(train_there, config, job)
        except WorkerLost as lost:
            outcome = Ended(job, TrainingFailed(f"its process was lost twice: {lost}"), time.perf_counter() - start)
        except BaseException as error:
            outcome = error
        ended.put((worker, outcome))

    def close(self) -> None:
        """End the processes."""
        self._closed = True
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Shift:
    """The processes of a pool at work under one configuration: a `Crew`."""

    def __init__(self, pool: Pool, config: SearchConfig) -> None:
        self._pool, self._config = pool, config
        self._idle = list(pool._workers)
        self._ended: queue.Queue[tuple[Worker, Ended | BaseException]] = queue.Queue()

    def room(self) -> int:
        """See `Crew.room`."""
        return len(self._idle)

    def running(self) -> int:
        """See `Crew.running`."""
        return len(self._pool._workers) - len(self._idle)

    def begin(self, job: TrainJob) -> None:
        """See `Crew.begin`."""
        self._pool._threads.submit(self._pool._call, self._idle.pop(), job, self._config, self._ended)

    def ended(self, timeout_s: float) -> Ended | None:
        """See `Crew.ended`."""
        try:
            worker, outcome = self._ended.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._idle.append(worker)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


_proxies: list[Proxy] = []
"""In a process that trains: its proxy, whose data stays decoded from one candidate to the next."""


def train_there(config: SearchConfig, job: TrainJob) -> Ended:
    """Train in a process that keeps its decoded data from one call to the next."""
    _proxies[:] = [_proxies[0].under(config) if _proxies else Proxy(config, Observer())]
    return train_here(_proxies[0], job)
