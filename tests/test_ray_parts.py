"""What of a search on Ray needs no cluster: what travels, who is to blame, how many trainings fit, and mistakes of the user."""

from __future__ import annotations

import dataclasses
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latency.protocols import BackendError, MeasurementFailed
from lpsnet.errors import TrainingFailed, UserError
from lpsnet.training import Trained
from search import ray_cluster, ray_executor
from search.cli import run
from search.observer import Observer
from search.pool import Ended, train_by, train_here
from search.proxy import Proxy, TrainJob
from search.ray_cluster import Cluster, Lost, Node, Patience
from search.ray_executor import TRIES, RayExecutor, RayPlan, _slots_of, _Tasks
from search.ray_tasks import CODE, Shipped, answered, gpu_index, software, trained
from tests.tiny import TINY_OPTIONS, few_frames, tiny_config

JOB = TrainJob(architecture=tiny_config().start_architecture, seed=0)


@pytest.fixture(autouse=True)
def fewer_frames(whole_synthetic_splits: None) -> None:
    few_frames()


def travelled(value: Any) -> Any:
    """A value after Ray's way of sending it: arrays stay where they are, and cannot be written to."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[memoryview(buffer).toreadonly() for buffer in buffers])


def shipped() -> tuple[Proxy, list[Shipped]]:
    proxy = Proxy(tiny_config(), Observer())
    proxy.hold()
    return proxy, [Shipped.of(proxy.training), Shipped.of(proxy.validation)]


def test_decoded_frames_travel_without_a_copy_and_without_their_files() -> None:
    proxy, sent = shipped()
    for split, original in zip(sent, (proxy.training, proxy.validation), strict=True):
        arrived = travelled(split)
        frames = arrived.frames()
        assert (len(frames), frames.size, frames.class_names) == (len(original), original.size, original.class_names)
        assert torch.equal(frames.batch([0, 1]).images, original.batch([0, 1]).images)
        assert frames.held is not None and frames.held.images.data_ptr() == arrived.images.ctypes.data
        assert not arrived.images.flags.writeable
        with pytest.raises(AssertionError):
            frames.source.decode(0)


def test_a_training_on_a_node_is_that_of_this_process_with_its_parent_and_state_in_and_out(tmp_path: Path) -> None:
    proxy, splits = shipped()
    config = tiny_config(proxy=dataclasses.replace(tiny_config().proxy, iterations=4))
    here, (training, validation) = Proxy(config, Observer(), (proxy.training, proxy.validation)), travelled(splits)
    paused = TrainJob(architecture=JOB.architecture, seed=0, rung=2, state=tmp_path / "state.pt")
    first, state = trained(config, paused, training, validation, None, None)
    assert first.job == paused and state is not None and not (tmp_path / "state.pt").exists()
    second, after = trained(config, dataclasses.replace(paused, rung=0), training, validation, None, state)
    whole = train_here(here, TrainJob(architecture=JOB.architecture, seed=0)).result
    assert isinstance(second.result, Trained) and isinstance(whole, Trained) and after is not None
    assert second.result.scores == whole.scores and second.result.curve == whole.curve


def test_what_a_function_raises_comes_back_as_a_value_with_where_it_was() -> None:
    def fails(error: Exception) -> None:
        raise error

    assert answered({}, int, "7") == (7, None)
    _, mistake = answered(software(), fails, UserError("no such folder"))
    assert isinstance(mistake, UserError) and str(mistake) == "no such folder"
    _, bug = answered({}, fails, KeyError("x"))
    assert isinstance(bug, KeyError) and f"on node {socket.gethostname()}" in bug.__notes__[0] and "in fails" in bug.__notes__[0]
    _, failed = answered({}, fails, MeasurementFailed("it hangs"))
    assert isinstance(failed, MeasurementFailed)


def test_a_node_with_other_software_is_refused_by_name() -> None:
    assert set(software()) == {CODE, "torch", "numpy", "kornia"} and software()["numpy"] == np.__version__
    value, refused = answered({**software(), "torch": "1.0"}, int, "7")
    assert value is None and isinstance(refused, UserError)
    assert f"torch {software()['torch']}, not 1.0" in str(refused) and CODE not in str(refused)


@pytest.mark.parametrize(
    ("cpus", "gpus", "threads", "share", "slots"),
    [(4, 0, 1, 0, 4), (4, 0, 3, 0, 1), (0, 0, 1, 0, 0), (16, 1, 2, 0.25, 4), (4, 1, 2, 0.25, 2), (16, 2, 1, 0.3, 6), (16, 3, 1, 2, 1),
     (16, 0, 1, 0.25, 0), (16, 1, 1, 1, 1), (16, 1, 1, 0.1, 10)],
)  # fmt: skip
def test_how_many_trainings_fit_on_a_node(cpus: float, gpus: float, threads: int, share: float, slots: int) -> None:
    assert _slots_of(Node("id", "host", cpus, gpus, 0.0, False), threads, share) == slots


def test_the_gpu_that_is_given_is_found_among_those_that_are_visible() -> None:
    assert gpu_index([2], None) == 2 and gpu_index(["1", "0"], "") == 1 and gpu_index([3], "2,3") == 1


@pytest.mark.parametrize("gpus", [-1.0, 1.5])
def test_a_training_takes_a_share_of_a_gpu_or_whole_ones(gpus: float) -> None:
    with pytest.raises(UserError, match=r"a share of a GPU, such as 0\.25"):
        RayPlan(gpus_per_training=gpus)
    assert RayPlan(gpus_per_training=2).gpus_per_training == 2


def test_what_was_never_there_is_not_waited_for_and_what_was_lost_is() -> None:
    with pytest.raises(UserError, match=r"^no node$"):
        Patience(100.0, Observer()).missing("no node")
    patience = Patience(0.0, Observer())
    patience.found()
    patience.missing("no node")
    with pytest.raises(UserError, match=r"no node; waited 0 s.*lps-search resume"):
        patience.missing("no node")


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (
            0,
            r"no node of the Ray cluster carries latency_target; .*: ray start --address=h:1 --resources='{\"latency_target\": 1}'$",
        ),
        (2, r"2 nodes carry latency_target \(host0, host1\): latencies of one search are measured on one device"),
    ],
)
def test_a_cluster_has_one_node_that_is_measured(targets: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        def __init__(self, address: str) -> None:
            assert address == "h:1"

        def nodes(self) -> list[Node]:
            return [Node(str(index), f"host{index}", 2.0, 0.0, 0.0, index < targets) for index in range(3)]

        def close(self) -> None:
            closed.append(self)

    closed: list[Made] = []
    monkeypatch.setattr(ray_executor, "Cluster", Made)
    with pytest.raises(UserError, match=told):
        RayExecutor(tiny_config(), RayPlan(address="h:1"), Observer())
    assert len(closed) == 1


class Unlucky:
    """A cluster that loses every training, with its node or without."""

    def __init__(self, lost: list[bool]) -> None:
        self.left, self.submitted = lost, 0

    def put(self, value: object) -> object:
        return value

    def submit(self, *arguments: object) -> int:
        self.submitted += 1
        return self.submitted

    def first(self, references: list[int], timeout_s: float) -> int:
        return references[0]

    def answer(self, reference: int) -> Any:
        if self.left:
            raise Lost("its process was lost", with_node=self.left.pop(0))
        return Ended(JOB, TrainingFailed("nothing to tell"), 1.0), None


class Lender:
    """What `_Tasks` needs of an executor."""

    def __init__(self, cluster: Unlucky) -> None:
        self._cluster, self._config, self._observer = cluster, tiny_config(), Observer()

    def _slots(self) -> int:
        return 1

    def _training_options(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ([False] * TRIES, f"lost {TRIES} times: its process was lost"),
        ([True] * 9, "nothing to tell"),
        ([False, True, False], "nothing to tell"),
    ],
)
def test_a_candidate_fails_where_its_process_is_lost_often_and_not_where_nodes_are(lost: list[bool], told: str) -> None:
    cluster = Unlucky(list(lost))
    tasks = _Tasks(Lender(cluster), (None, None), [JOB])  # type: ignore[arg-type]
    (ended,) = train_by(tasks, [JOB], lambda job: None, lambda running: None)
    assert isinstance(ended.result, TrainingFailed) and told in str(ended.result)
    assert cluster.submitted == len(lost) + (told == "nothing to tell")


def test_a_candidate_that_ran_out_of_memory_on_the_cluster_is_trained_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [TrainingFailed("out of memory: 3 GB asked for"), TrainingFailed("nothing to tell")]
    cluster = Unlucky([])
    monkeypatch.setattr(cluster, "answer", lambda reference: (Ended(JOB, results[reference - 1], 1.0), None))
    executor = RayExecutor.__new__(RayExecutor)
    for name, value in {"_cluster": cluster, "_config": tiny_config(), "_observer": Observer(), "_splits": (None, None)}.items():
        setattr(executor, name, value)
    monkeypatch.setattr(executor, "_slots", lambda: 1)
    monkeypatch.setattr(executor, "_training_options", dict)
    begun: list[TrainJob] = []
    (ended,) = executor.train([JOB], begun.append, lambda running: None)
    assert (ended.result, ended.seconds, begun, cluster.submitted) == (results[1], 2.0, [JOB], 2)


def test_a_node_whose_process_is_lost_at_once_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Made:
        def __init__(self, address: str) -> None: ...

        def nodes(self) -> list[Node]:
            return [Node("id", "jetson", 2.0, 0.0, 0.0, True)]

        def submit(self, *arguments: object) -> int:
            asked.append(1)
            return len(asked)

        def answer_from(self, target: Node, reference: int) -> Any:
            raise Lost("its process was lost", with_node=False)

        def close(self) -> None: ...

    monkeypatch.setattr(ray_executor, "Cluster", Made)
    with pytest.raises(BackendError, match=f"the process on jetson, the node with latency_target, was lost {TRIES} times"):
        RayExecutor(tiny_config(), RayPlan(address="h:1"), Observer())
    assert len(asked) == TRIES


def test_ray_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lps-search\[ray\]'"):
        Cluster("")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--executor", "slurm"], "unknown executor 'slurm'; there are: local, ray"),
        (["--ray-address", "host:1"], "--ray-address host:1 goes with --executor ray"),
        (["--gpus-per-training", "0.5"], "--gpus-per-training 0.5 goes with --executor ray"),
        (["--ray-wait", "5"], "--ray-wait 5.0 goes with --executor ray"),
        (["--executor", "ray", "--dry-run"], "--dry-run, which tries this machine, does not go with --executor ray"),
        (["--executor", "ray", "--ray-address", "host"], "--ray-address takes HOST:PORT, such as 10.0.0.1:6379, or auto, got 'host'"),
        (
            ["--executor", "ray", "--ray-address", "127.0.0.1:1"],
            "no Ray cluster answers at 127.0.0.1:1: [Errno 111] Connection refused; start",
        ),
        (
            ["--executor", "ray", "--gpus-per-training", "1.5"],
            "--gpus-per-training takes a share of a GPU, such as 0.25, or a whole number",
        ),
        (
            ["--executor", "ray", "--gpus-per-training", "0.5", "--training-device", "cpu"],
            "--gpus-per-training 0.5 does not go with --training-device cpu",
        ),
    ],
)
def test_mistakes_are_one_line(options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["expand", *TINY_OPTIONS.split(), "--out", str(tmp_path / "run"), *options]) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and told in err
    assert not (tmp_path / "run").exists()
