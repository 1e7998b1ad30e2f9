"""Searches on a real Ray cluster of two nodes: the chain of one machine, whatever befalls workers, nodes and drivers."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latency import TimingPlan
from latency.environment import available_cores
from latency.protocols import BackendError
from lpsnet.errors import UserError
from lpsnet.training import Trained
from search.cli import run
from search.executor import current_environment
from search.observer import Observer
from search.pool import train_here
from search.proxy import Proxy, TrainJob
from search.ray_executor import RayExecutor, RayPlan
from search.run import Run
from tests.cluster import TwoNodes, documented, first_at_work, two_nodes, working
from tests.kill_driver import killed
from tests.processes import Process
from tests.tiny import TINY_OPTIONS, few_frames, fill_store, tiny_config

pytestmark = pytest.mark.alone  # Ray's own processes starve beside three other test processes on two cores

N0 = tiny_config().start_architecture
LONG = tiny_config(proxy=dataclasses.replace(tiny_config().proxy, iterations=100), plan=TimingPlan(min_s=1.0, max_s=2.0))
"""Trainings and latencies that take long enough to be struck."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LOCKS", "STORE", "CACHE"):  # of the nodes
            patch.setenv(f"LPS_SEARCH_{name}", str(tmp_path_factory.mktemp("node") / name))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", os.urandom(16).hex())
        with two_nodes() as nodes:
            yield nodes
    assert not working("")


@pytest.fixture(autouse=True)
def fewer_frames(whole_synthetic_splits: None) -> None:
    few_frames()


class Noting(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def struck(fault: Callable[[], None]) -> threading.Thread:
    """Have something happen while the test goes on."""
    thread = threading.Thread(target=fault)
    thread.start()
    return thread


def where_am_i() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


class TestExecutor:
    """One driver of the cluster throughout."""

    @pytest.fixture(scope="class")
    @classmethod
    def noting(cls) -> Noting:
        return Noting()

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, cluster: TwoNodes, noting: Noting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
        few_frames()
        plan = RayPlan(address=cluster.address, store=tmp_path_factory.mktemp("target") / "store.sqlite")
        opened = RayExecutor(LONG, plan, noting)
        yield opened
        opened.close()

    def test_trainings_keep_off_the_node_that_is_measured_and_a_latency_has_all_of_it(self, executor: RayExecutor) -> None:
        ray, (target,) = executor._cluster, [node.id for node in executor._cluster.nodes() if node.is_target]
        trainings = [ray.submit(executor._training_options(), {}, where_am_i) for _ in range(6)]
        assert target not in {ray.answer(reference) for reference in trainings}
        assert executor._slots() == 2
        latency = executor._target_options(executor._target())
        assert ray.answer(ray.submit(latency, {}, where_am_i)) == target
        assert latency["num_cpus"] == 1 and latency["resources"] == {"latency_target": 1}

    def test_a_worker_killed_in_training_costs_a_repetition_and_changes_nothing(self, executor: RayExecutor, noting: Noting) -> None:
        jobs = [TrainJob(architecture=N0, seed=seed) for seed in (0, 1, 2)]
        begun: list[TrainJob] = []
        fault = struck(lambda: first_at_work("training").kill())
        ended = {one.job: one.result for one in executor.train(jobs, begun.append, lambda running: None)}
        fault.join()
        here = Proxy(LONG, Observer())
        for job in jobs:
            one, other = ended[job], train_here(here, job).result
            assert isinstance(one, Trained) and isinstance(other, Trained)
            assert one.scores == other.scores and one.curve == other.curve
            weights = other.network.state_dict()
            assert all(torch.equal(value, weights[name]) for name, value in one.network.state_dict().items())
        assert begun == jobs
        assert [note for note in noting.notes if note.endswith("is repeated: its process was lost")]

    def test_a_measured_node_that_is_lost_in_a_measurement_is_waited_for(
        self, cluster: TwoNodes, executor: RayExecutor, noting: Noting
    ) -> None:
        def power_cut() -> None:
            first_at_work("latency")
            cluster.kill_target()
            cluster.start_target()

        fault = struck(power_cut)
        found = executor.measure(N0)
        fault.join()
        assert found.latency_ms > 0 and found.environment == executor.environment()
        assert executor.holds(found.subject, "scores") and executor.measure(N0) == found  # it lies in that node's store
        assert f"measure on {os.uname().nodename} is done again: its node was lost" in noting.notes
        turns = executor.compare(N0, N0)
        assert len(turns.found["second_ms"]) == len(turns.samples_ms)

    def test_what_a_file_is_to_blame_for_is_said_as_on_one_machine(self, executor: RayExecutor, tmp_path: Path) -> None:
        (tmp_path / "parent.safetensors").write_bytes(b"nothing")
        job = TrainJob(architecture=N0, seed=0, parent=tmp_path / "parent.safetensors")
        with pytest.raises(UserError, match=r"parent\.safetensors"):
            list(executor.train([job], lambda job: None, lambda running: None))


def test_a_search_by_the_documented_commands_whose_driver_is_killed_is_that_of_one_machine(
    cluster: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its latencies are answered from a store that the measured node and this machine share."""
    store = ["--store", str(tmp_path / "store.sqlite")]
    fill_store(tmp_path / "store.sqlite", tiny_config())
    monkeypatch.chdir(tmp_path)
    race = shlex.split(f"--steps 1 {TINY_OPTIONS} --set iterations=4 --rungs 2 --inherit")
    commands = [command.replace("HOST:6379", cluster.address) for command in documented("lps-search") if "--ray-address" in command]
    expand, resume = [shlex.split(command)[1:] for command in commands]

    process = Process(killed, "journal:after", 50, [*expand, *race, *store], output=tmp_path / "printed")
    assert process.ends() == -signal.SIGKILL, process.printed()
    first = finished(tmp_path / "runs" / "cluster")
    assert run([*resume, *store]) == 0
    assert run(["expand", *race, *store, "--out", "here"]) == 0
    assert files(tmp_path / "runs" / "cluster") == files(tmp_path / "here")
    last = finished(tmp_path / "runs" / "cluster")
    assert first and last[: len(first)] == first
    assert len(last) == len(set(last)) and sorted(last) == sorted(finished(tmp_path / "here"))


def files(folder: Path) -> tuple[str, dict[str, bytes]]:
    """The chain and its weights."""
    return (folder / "family.csv").read_text(), {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}


def finished(folder: Path) -> list[str]:
    """The key of every training that came to an end, in the order begun."""
    with Run.read(folder) as opened:
        trials = [trial for step in (0, 1) for trial in opened.study.trials(step) if trial.state.name == "COMPLETE"]
        return [trial.user_attrs["key"] for trial in trials]


def test_a_cluster_that_begins_here_has_this_machine_measure_and_train_and_ends_here(cluster: TwoNodes) -> None:
    opened = RayExecutor(tiny_config(), RayPlan(), Noting())
    try:
        assert opened.environment() == current_environment(tiny_config()) and opened._slots() == available_cores()
        assert opened._cluster.address != cluster.address and "label_selector" not in opened._training_options()
    finally:
        opened.close()


def test_what_a_cluster_lacks_is_one_line(cluster: TwoNodes) -> None:
    cases: list[tuple[dict[str, Any], float, type[Exception], str]] = [
        ({"threads": 16}, 0.0, UserError, "no node of the Ray cluster has 16 CPUs for a training; start one with: ray start"),
        ({"training_device": "cuda"}, 0.25, UserError, "has 1 CPU and 0.25 of a GPU for a training"),
        ({"device": "cuda", "backend": "torch"}, 0.0, BackendError, "the node with latency_target: backend 'torch' cannot be used on cuda"),
    ]
    for changes, gpus, kind, told in cases:
        with pytest.raises(kind, match=told):
            RayExecutor(tiny_config(**changes), RayPlan(address=cluster.address, gpus_per_training=gpus), Noting())
