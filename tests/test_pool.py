"""Trainings of candidates in processes of their own: the same results as in this one, and what befalls a process costs nothing else."""

from __future__ import annotations

import dataclasses
import os
import queue
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latency.worker import WorkerLost
from lpsnet.data.frames import DataError
from lpsnet.errors import TrainingFailed
from search.config import SearchConfig
from search.observer import Observer
from search.pool import Ended, Pool, train_here
from search.proxy import Proxy, TrainJob
from search.space import OPERATIONS, expansion
from tests.processes import quick_workers
from tests.tiny import tiny_config, write_camvid

N0 = tiny_config().start_architecture
JOBS = [TrainJob(architecture=expansion(N0, operation, 1), seed=seed) for operation in (OPERATIONS[2], OPERATIONS[6]) for seed in (0, 1)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SearchConfig:
    root = write_camvid(tmp_path_factory.mktemp("data") / "camvid", {"train": 4, "val": 2}, (64, 96))
    return tiny_config(data=f"camvid:{root}", parallel=2, threads=2, height=64, width=96)


@pytest.fixture(scope="module", autouse=True)
def forked() -> Iterator[None]:
    with quick_workers():
        yield


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


class Doomed:
    """A process that is lost whenever it is called."""

    calls = 0

    def call(self, *arguments: object) -> Ended:
        self.calls += 1
        raise WorkerLost("the process was ended by SIGKILL")


def started(job: TrainJob) -> None:
    """Nothing to do."""


def waited(running: int) -> None:
    """Nothing to do."""


def by_job(ended: list[Ended]) -> dict[TrainJob, Any]:
    return {one.job: one.result for one in ended}


def same(one: Any, other: Any) -> bool:
    weights = one.network.state_dict(), other.network.state_dict()
    return one.scores == other.scores and one.curve == other.curve and all(torch.equal(v, weights[1][n]) for n, v in weights[0].items())


def test_what_a_training_gives_does_not_depend_on_where_it_runs(pool: Pool, config: SearchConfig) -> None:
    begun: list[TrainJob] = []
    found = by_job(list(pool.run(config, JOBS, begun.append, waited)))
    proxy = Proxy(config, Observer())
    here = by_job([train_here(proxy, job) for job in JOBS])
    assert begun == JOBS and set(found) == set(JOBS)
    assert all(same(found[job], here[job]) for job in JOBS)
    assert not same(found[JOBS[0]], found[JOBS[1]])


def test_a_process_lives_from_one_training_to_the_next(pool: Pool, config: SearchConfig) -> None:
    list(pool.run(config, JOBS[:2], started, waited))
    before = {worker._process.pid for worker in pool._workers}
    list(pool.run(config, JOBS, started, waited))
    assert {worker._process.pid for worker in pool._workers} == before


def test_a_process_that_is_killed_is_replaced_and_its_training_repeated(pool: Pool, config: SearchConfig) -> None:
    expected = by_job(list(pool.run(config, JOBS[:2], started, waited)))
    killed = [worker._process.pid for worker in pool._workers]
    for process in killed:
        os.kill(process, signal.SIGKILL)
    found = by_job(list(pool.run(config, JOBS[:2], started, waited)))
    assert all(same(found[job], expected[job]) for job in expected)
    assert not set(killed) & {worker._process.pid for worker in pool._workers}


def test_a_training_whose_process_is_lost_twice_is_a_failed_candidate(config: SearchConfig) -> None:
    doomed, ended = Doomed(), queue.Queue()  # type: ignore[var-annotated]
    idle = Pool(1)
    idle._call(doomed, JOBS[0], config, ended)  # type: ignore[arg-type]
    _, outcome = ended.get_nowait()
    assert doomed.calls == 2
    assert isinstance(outcome.result, TrainingFailed) and "lost twice: the process was ended by SIGKILL" in str(outcome.result)


def test_a_pool_that_is_closed_starts_no_process_again(config: SearchConfig) -> None:
    lost, ended, pool = Doomed(), queue.Queue(), Pool(1)  # type: ignore[var-annotated]
    pool.close()
    pool._call(lost, JOBS[0], config, ended)  # type: ignore[arg-type]
    assert lost.calls == 1 and ended.empty()


def test_what_on_start_raises_ends_the_work_after_what_runs_has_ended(pool: Pool, config: SearchConfig) -> None:
    class TimeIsUp(Exception):
        pass

    def begin(job: TrainJob) -> None:
        if job == JOBS[1]:
            raise TimeIsUp

    found: list[Ended] = []
    with pytest.raises(TimeIsUp):
        found.extend(pool.run(config, JOBS, begin, waited))
        pytest.fail("it was not raised")
    ended = []
    running = pool.run(config, JOBS, begin, waited)
    ended.append(next(running))
    with pytest.raises(TimeIsUp):
        next(running)
    assert [one.job for one in ended] == JOBS[:1]


def test_data_that_is_not_there_is_no_failed_candidate(config: SearchConfig, tmp_path: Path) -> None:
    lost = Pool(1)
    try:
        with pytest.raises(DataError, match="train"):
            list(lost.run(dataclasses.replace(config, data=f"camvid:{tmp_path}"), JOBS[:1], started, waited))
    finally:
        lost.close()


def test_frames_stay_decoded_from_one_recipe_to_the_next(config: SearchConfig) -> None:
    proxy = Proxy(config, Observer())
    other = dataclasses.replace(config, proxy=dataclasses.replace(config.proxy, iterations=1))
    assert proxy.under(other).training is proxy.training
    assert proxy.under(dataclasses.replace(config, height=32)).training is not proxy.training
