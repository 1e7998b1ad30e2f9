"""Trainings of candidates: one at a time in this process, or several in processes of their own, each with its data decoded once.

What a training gives does not depend on which of the two it is done in, only on its number of threads.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        """Train all jobs, the next as soon as a process is free; yields each as it ends.

        Args:
            config: of the trainings.
            jobs: begun in this order.
            on_start: called in this thread before each; where it raises, what runs is awaited and yielded first.
            on_wait: called now and then with the number of trainings that run.
        """
        waiting, idle = list(jobs), list(self._workers)
        ended: queue.Queue[tuple[Worker, Ended | BaseException]] = queue.Queue()
        stopped: BaseException | None = None
        while waiting or len(idle) < len(self._workers):
            while waiting and idle and stopped is None:
                try:
                    on_start(waiting[0])
                except BaseException as reason:
                    stopped, waiting = reason, []
                    break
                self._threads.submit(self._call, idle.pop(), waiting.pop(0), config, ended)
            if len(idle) == len(self._workers):
                break
            try:
                worker, outcome = ended.get(timeout=HEARTBEAT_S)
            except queue.Empty:
                on_wait(len(self._workers) - len(idle))
                continue
            idle.append(worker)
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
        if stopped is not None:
            raise stopped

    def _call(self, worker: Worker, job: TrainJob, config: SearchConfig, ended: queue.Queue[tuple[Worker, Ended | BaseException]]) -> None:
        start = time.perf_counter()
        outcome: Ended | BaseException
        try:
            try:
                outcome = worker.call(_train, config, job)
            except WorkerLost:  # killed by somebody, or for want of memory that is there the next time
                if self._closed:
                    return
                outcome = worker.call(_train, config, job)
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


_proxies: list[Proxy] = []
"""In a process that trains: its proxy, whose data stays decoded from one candidate to the next."""


def _train(config: SearchConfig, job: TrainJob) -> Ended:
    _proxies[:] = [_proxies[0].under(config) if _proxies else Proxy(config, Observer())]
    return train_here(_proxies[0], job)
