"""The work of a search on a Ray cluster: trainings wherever there is room, latencies on the one node that carries `latency_target`.

A training takes its threads as CPUs and a share of a GPU. A measurement takes every CPU and GPU of its node, so that
nothing of Ray runs beside it, and the machine's lock as everywhere, so that nothing else of this project does. Trainings
keep away from that node as long as there is any other. What a task's process or node takes with it is done again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.measurement import Environment, Measurement
from latency.protocols import BackendError
from latency.worker import WorkerLost
from lpsnet.architecture import Architecture
from lpsnet.errors import TrainingFailed, UserError
from search.config import SearchConfig
from search.observer import Observer
from search.pool import Ended, train_by, with_second_tries
from search.proxy import Proxy, TrainJob
from search.ray_cluster import LOCAL, TARGET, Cluster, Lost, Node, Patience
from search.ray_tasks import CODE, Shipped, on_target, software, trained

TRIES = 3
"""How often what is lost without its node is tried: some networks kill whatever process runs them."""

_STORE_SHARE = 0.7
"""Of a node's object store, what the decoded data may take; results need some of it, too."""


@dataclass(frozen=True, kw_only=True)
class RayPlan:
    """How a search uses a cluster.

    Args:
        address: see `Cluster`.
        gpus_per_training: GPUs of one training: a share of one, or whole ones.
        wait_s: how long a node that was lost is waited for.
        limit_s: seconds a single latency may take, 0 for any.
        store: file of the latency store on the node that measures; by default that machine's own.

    Raises:
        UserError: a number of GPUs that is neither.
    """

    address: str = LOCAL
    gpus_per_training: float = 0.0
    wait_s: float = 300.0
    limit_s: float = 900.0
    store: Path | None = None

    def __post_init__(self) -> None:
        gpus = self.gpus_per_training
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise UserError(f"--gpus-per-training takes a share of a GPU, such as 0.25, or a whole number of GPUs, got {gpus:g}")


class RayExecutor:
    """Measures and trains on a Ray cluster: an `Executor`.

    Args:
        config: the search.
        plan: which cluster, and how it is used.
        observer: told of progress, and of what was lost.

    Raises:
        UserError: no such cluster, or it has no node to measure on or to train on.
        DataError: the data set, which this process reads, is not as expected.
    """

    def __init__(self, config: SearchConfig, plan: RayPlan, observer: Observer) -> None:
        if (plan.gpus_per_training > 0) != (config.training_device == "cuda"):
            raise UserError(f"--gpus-per-training {plan.gpus_per_training:g} does not go with --training-device {config.training_device}")
        self._config, self._plan, self._observer = config, plan, observer
        self._class_names = Proxy(config, observer).class_names
        self._splits: tuple[Any, Any] | None = None
        self._target_patience = Patience(plan.wait_s, observer)
        self._training_patience = Patience(plan.wait_s, observer)
        self._measured_by: tuple[str, Environment] | None = None
        self._cluster = Cluster(plan.address)
        try:
            self._slots()
            self.environment()
        except BaseException:
            self.close()
            raise

    @property
    def class_names(self) -> tuple[str, ...]:
        """See `Executor.class_names`."""
        return self._class_names

    def close(self) -> None:
        """See `Executor.close`."""
        self._cluster.close()

    def environment(self) -> Environment:
        """That of the node that measures; see `Executor.environment`."""
        tries = 0
        while True:
            target = self._target()
            if self._measured_by and self._measured_by[0] == target.id:
                return self._measured_by[1]
            try:
                found: Environment = self._ask(target, "environment")
            except Lost as lost:
                tries += not lost.with_node
                if tries == TRIES:
                    raise BackendError(f"the process on {target.host}, the node with {TARGET}, was lost {TRIES} times: {lost}") from None
                continue
            except BackendError as error:
                raise BackendError(f"{target.host}, the node with {TARGET}: {error}") from error
            if self._measured_by and (different := found.differences(self._measured_by[1])):
                raise UserError(f"the node with {TARGET} came back as another one ({'; '.join(different)}); go on with the first one")
            self._measured_by = (target.id, found)

    def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
        """See `Executor.measure`."""
        found: Measurement = self._on_target("measure", architecture, boundary)
        return found

    def compare(self, first: Architecture, second: Architecture) -> Measurement:
        """See `Executor.compare`."""
        found: Measurement = self._on_target("compare", first, second)
        return found

    def holds(self, name: str, boundary: str) -> bool:
        """See `Executor.holds`."""
        return bool(self._on_target("holds", name, boundary))

    def train(self, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
        """See `Executor.train`; as many at a time as the cluster has room for. What ran out of memory is tried once more."""
        yield from with_second_tries(lambda some, told: train_by(_Tasks(self, self._shipped(), some), some, told, on_wait), jobs, on_start)

    def _on_target(self, name: str, *arguments: Any) -> Any:
        """What the node that measures answers; asked again where the answer is lost."""
        tries = 0
        while True:
            self.environment()
            target = self._target()
            try:
                return self._ask(target, name, *arguments)
            except Lost as lost:
                tries += not lost.with_node
                if tries == TRIES:
                    raise WorkerLost(f"its process on {target.host} was lost {TRIES} times: {lost}") from None
                self._observer.note(f"{name} on {target.host} is done again: {lost}")

    def _target_options(self, target: Node) -> dict[str, Any]:
        """What a measurement takes: all of its node."""
        options: dict[str, Any] = {"name": "lps-search latency", "resources": {TARGET: 1}, "num_cpus": target.cpus}
        return {**options, "num_gpus": target.gpus} if target.gpus else options

    def _ask(self, target: Node, name: str, *arguments: Any) -> Any:
        same_code = {CODE: software()[CODE]}
        plan, names = self._plan, self._class_names
        reference = self._cluster.submit(
            self._target_options(target), same_code, on_target, self._config, plan.store, plan.limit_s, names, name, *arguments
        )
        return self._cluster.answer_from(target, reference)

    def _target(self) -> Node:
        """The node that measures, waited for where it was lost. Raises `UserError`."""
        while True:
            targets = [node for node in self._cluster.nodes() if node.is_target]
            if len(targets) > 1:
                hosts = ", ".join(sorted(node.host for node in targets))
                raise UserError(f"{len(targets)} nodes carry {TARGET} ({hosts}): latencies of one search are measured on one device")
            if targets:
                self._target_patience.found()
                return targets[0]
            self._target_patience.missing(
                f"no node of the Ray cluster carries {TARGET}; start one on the device with: "
                f"ray start --address={self._plan.address} --resources='{{\"{TARGET}\": 1}}'"
            )
            time.sleep(1.0)

    def _slots(self) -> int:
        """How many trainings the cluster has room for in all; 0 while what was lost is waited for. Raises `UserError`."""
        threads, gpus = self._config.training_threads, self._plan.gpus_per_training
        slots = sum(_slots_of(node, threads, gpus) for node in self._training_nodes())
        if slots:
            self._training_patience.found()
        else:
            needed = f"{threads} CPU{'s' * (threads > 1)}" + (
                f" and {gpus:g} of a GPU" if 0 < gpus < 1 else f" and {gpus:g} GPUs" if gpus else ""
            )
            self._training_patience.missing(
                f"no node of the Ray cluster has {needed} for a training; start one with: ray start --address={self._plan.address}"
            )
        return slots

    def _training_nodes(self) -> list[Node]:
        """Every node but the one that measures, where there is another."""
        nodes = self._cluster.nodes()
        return [node for node in nodes if not node.is_target] or nodes

    def _training_options(self) -> dict[str, Any]:
        """What a training takes, and where it may run."""
        options: dict[str, Any] = {"name": "lps-search training", "num_cpus": self._config.training_threads}
        if self._plan.gpus_per_training:
            options["num_gpus"] = self._plan.gpus_per_training
        kept_free = {node.id for node in self._cluster.nodes()} - {node.id for node in self._training_nodes()}
        if kept_free:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(kept_free))})"}
        return options

    def _shipped(self) -> tuple[Any, Any]:
        """The decoded splits in the object store, or None and None where every node reads the data set itself."""
        if self._splits is None:
            proxy = Proxy(self._config, self._observer)
            frames = (proxy.training, proxy.validation)
            size, room = sum(one.bytes for one in frames), min((node.store_bytes for node in self._training_nodes()), default=0.0)
            if all(one.in_memory for one in frames) and size <= _STORE_SHARE * room:
                proxy.hold()
                self._splits = tuple(self._cluster.put(Shipped.of(one)) for one in frames)
            else:
                sizes = f"{size / 1e9:.1f} GB decoded, of {room / 1e9:.1f} GB of an object store"
                self._observer.note(f"the data set does not travel ({sizes}): every node reads {self._config.data} itself")
                self._splits = (None, None)
        assert self._splits is not None
        return self._splits


def _slots_of(node: Node, threads: int, gpus: float) -> int:
    """How many trainings fit on a node; several share a GPU, but none takes parts of two."""
    by_cpu = int(node.cpus // threads)
    if not gpus:
        return by_cpu
    return min(by_cpu, int(node.gpus // gpus) if gpus >= 1 else int(node.gpus) * int(1 / gpus + 1e-9))


@dataclass(frozen=True)
class _Attempt:
    """A training that was begun: its job, and how often it was lost by itself."""

    job: TrainJob
    lost: int = 0


class _Tasks:
    """Trainings as tasks of a cluster: a `Crew`."""

    def __init__(self, executor: RayExecutor, splits: tuple[Any, Any], jobs: Sequence[TrainJob]) -> None:
        self._executor, self._splits = executor, splits
        self._cluster = executor._cluster
        self._running: dict[Any, _Attempt] = {}
        self._parents = {path: self._cluster.put(path.read_bytes()) for path in {job.parent for job in jobs} if path is not None}

    def room(self) -> int:
        """See `Crew.room`."""
        return self._executor._slots() - len(self._running)

    def running(self) -> int:
        """See `Crew.running`."""
        return len(self._running)

    def begin(self, job: TrainJob) -> None:
        """See `Crew.begin`."""
        self._submit(_Attempt(job))

    def ended(self, timeout_s: float) -> Ended | None:
        """See `Crew.ended`; a training that is lost is begun anew."""
        if not self._running:
            time.sleep(timeout_s)
            return None
        reference = self._cluster.first(list(self._running), timeout_s)
        if reference is None:
            self._executor._slots()  # where nobody is left to train, that is told
            return None
        attempt = self._running.pop(reference)
        try:
            ended, state = self._cluster.answer(reference)
        except Lost as lost:
            return self._again(attempt, lost)
        if state is not None:
            _keep(attempt.job, state)
        found: Ended = ended
        return found

    def _again(self, attempt: _Attempt, lost: Lost) -> Ended | None:
        attempt = dataclasses.replace(attempt, lost=attempt.lost + (not lost.with_node))
        if attempt.lost == TRIES:
            return Ended(attempt.job, TrainingFailed(f"its process was lost {TRIES} times: {lost}"), 0.0)
        self._executor._observer.note(f"the training of {attempt.job.architecture} is repeated: {lost}")
        self._submit(attempt)
        return None

    def _submit(self, attempt: _Attempt) -> None:
        job = attempt.job
        state = job.state.read_bytes() if job.state and job.state.exists() else None
        parent = self._parents[job.parent] if job.parent else None
        arguments = (self._executor._config, job, *self._splits, parent, state)
        self._running[self._cluster.submit(self._executor._training_options(), software(), trained, *arguments)] = attempt


def _keep(job: TrainJob, state: bytes) -> None:
    from lpsnet.checkpoint import write_atomic

    assert job.state is not None
    write_atomic(job.state, state)
