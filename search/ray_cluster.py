"""A Ray cluster as a search needs it: its nodes, tasks on them, and what is lost told apart from what failed.

ray is imported when a cluster is joined, not before. What is done on the nodes is in `ray_tasks.py`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from latency.environment import available_cores
from lpsnet.errors import UserError
from search.observer import Observer
from search.pool import HEARTBEAT_S
from search.ray_tasks import answered

TARGET = "latency_target"
"""The custom resource of the node whose latency is searched by."""

LOCAL = ""
"""Address of a cluster that is begun on this machine and ends with this process."""

_CONNECTING_S = 5.0

_STARTS = 3
"""How often a cluster is begun here: Ray gives a node 30 s to come up, which it may miss on a busy machine."""


class Lost(Exception):
    """A task gave no answer, which may say nothing about what it did.

    Args:
        reason: for a reader.
        with_node: whether the whole node was lost.
    """

    def __init__(self, reason: str, *, with_node: bool) -> None:
        super().__init__(reason)
        self.with_node = with_node


@dataclass(frozen=True)
class Node:
    """A node that is alive: its identity, its host, and what it offers in all."""

    id: str
    host: str
    cpus: float
    gpus: float
    store_bytes: float
    is_target: bool


class Cluster:
    """This process as a driver of a cluster; one at a time.

    Args:
        address: HOST:PORT, "auto" for the one that runs on this machine, `LOCAL` to begin one here.

    Raises:
        UserError: ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str) -> None:
        if find_spec("ray") is None:
            raise UserError("--executor ray needs Ray, which is not installed: pip install 'lps-search[ray]'")
        self.address = address
        self._ray = _joined(address)
        self._own = str(self._ray.get_runtime_context().get_node_id())
        self._task = self._ray.remote(max_retries=0)(answered)

    def close(self) -> None:
        """Leave the cluster, which ends this process's tasks; one that was begun here ends."""
        self._ray.shutdown()

    def nodes(self) -> list[Node]:
        """The nodes that are alive.

        Raises:
            UserError: that of this machine is not, without which a driver would wait for ever. (A cluster that is lost as a whole
                ends this process: Ray does so after a minute.)
        """
        nodes = [_node(values) for values in self._ray.nodes() if values["Alive"]]
        if self._own not in {node.id for node in nodes}:
            raise UserError("the Ray node of this machine was lost; nothing that was computed is: start it again, then lps-search resume")
        return nodes

    def put(self, value: Any) -> Any:
        """A reference to a value in the object store, to give to `submit` in the value's place."""
        return self._ray.put(value)

    def submit(self, options: Mapping[str, Any], expected: Mapping[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a function of `ray_tasks` called on a node; returns a reference to its answer.

        Args:
            options: Ray's, which say what the task takes and where.
            expected: the software that the node must have, see `answered`.
            function: what to call.
            arguments: its arguments, or references to them.
        """
        return self._task.options(**options).remote(expected, function, *arguments)

    def first(self, references: Sequence[Any], timeout_s: float) -> Any | None:
        """One of these whose answer is there, awaited for so many seconds."""
        done, _ = self._ray.wait(list(references), timeout=timeout_s)
        return done[0] if done else None

    def answer(self, reference: Any) -> Any:
        """What a task gave, once it is there.

        Raises:
            Lost: it gave nothing.
            UserError: the node cannot run this software.
            Exception: whatever the function raised.
        """
        errors = self._ray.exceptions
        try:
            value, error = self._ray.get(reference)
        except errors.RayTaskError as unable:  # `answered` lets nothing out: the node could not even call it
            cause = unable.cause if isinstance(unable.cause, BaseException) else unable
            raise UserError(f"a node of the Ray cluster cannot run lps-search: {_line(cause)}; install the same version there") from None
        except errors.RuntimeEnvSetupError as unable:
            raise UserError(f"a node of the Ray cluster cannot begin a task: {_line(unable)}") from None
        except (errors.NodeDiedError, errors.LocalRayletDiedError, errors.ObjectLostError, errors.TaskUnschedulableError):
            raise Lost("its node was lost", with_node=True) from None
        except errors.WorkerCrashedError:
            raise Lost("its process was lost", with_node=False) from None
        except errors.RayError as lost:  # Ray ended it for want of memory, for one
            raise Lost(f"{type(lost).__name__}: {_line(lost)}", with_node=False) from None
        if error is not None:
            raise error
        return value

    def answer_from(self, node: Node, reference: Any) -> Any:
        """What a task that only this node can do gives; see `answer`. It is lost with the node."""
        while self.first([reference], HEARTBEAT_S) is None:
            if node.id not in {other.id for other in self.nodes()}:
                self._ray.cancel(reference, force=True)
                raise Lost("its node was lost", with_node=True)
        return self.answer(reference)


class Patience:
    """How long something that was lost is waited for. What was never there is not waited for.

    Args:
        limit_s: seconds.
        observer: told of the wait.
    """

    def __init__(self, limit_s: float, observer: Observer) -> None:
        self._limit_s, self._observer = limit_s, observer
        self._seen = False
        self._since: float | None = None

    def found(self) -> None:
        """It is there."""
        self._seen, self._since = True, None

    def missing(self, message: str) -> None:
        """It is not there; to be called again and again. Raises `UserError` with the message when that was so for too long."""
        if not self._seen:
            raise UserError(message)
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._observer.note(f"{message}; waiting up to {self._limit_s:g} s for one")
        elif now - self._since >= self._limit_s:
            raise UserError(f"{message}; waited {self._limit_s:g} s. Nothing that was computed is lost: lps-search resume goes on")


def _joined(address: str) -> Any:
    """The module ray, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    # Ray has no setting for it: it prints what befalls workers to stdout, where results go. They are told by this project.
    vars(ray._private.worker)["_worker_logs_enabled"] = False
    same: dict[str, Any] = {
        "logging_level": "ERROR",
        "log_to_driver": False,
        # Ray hides GPUs from a task that asks for none, and binds a process to the first it was given; see `ray_tasks.gpu_index`.
        "runtime_env": {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}},
    }
    try:
        if address == LOCAL:
            _begin(ray, {"num_cpus": available_cores(), "resources": {TARGET: 1}, "include_dashboard": False, **same})
        else:
            _check_reachable(address)
            ray.init(address, **same)
    except UserError:
        raise
    except Exception as error:  # whatever a part of Ray raises: no connection, another version, a process that did not start
        if address == LOCAL:
            raise UserError(f"Ray cannot be started here: {_line(error)}") from error
        hint = f"this machine must be a node of it (ray start --address={address}) and have its token (docs/cluster.md)"
        raise UserError(f"the Ray cluster at {address} cannot be joined: {_line(error)}; {hint}") from error
    return ray


def _begin(ray: Any, options: Mapping[str, Any]) -> None:
    """Begin a cluster on this machine."""
    for start in range(1, _STARTS + 1):
        try:
            ray.init("local", **options)
            return
        except Exception:  # Ray has no type for it
            ray.shutdown()
            if start == _STARTS:
                raise


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens, which Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UserError(f"--ray-address takes HOST:PORT, such as 10.0.0.1:6379, or auto, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTING_S).close()
    except (OSError, OverflowError) as error:
        hint = "start one with: ray start --head --port=6379, or leave out --ray-address"
        raise UserError(f"no Ray cluster answers at {address}: {error}; {hint}") from None


def _node(values: Mapping[str, Any]) -> Node:
    offers = values["Resources"]
    return Node(
        id=values["NodeID"],
        host=values["NodeManagerHostname"],
        cpus=offers.get("CPU", 0.0),
        gpus=offers.get("GPU", 0.0),
        store_bytes=offers.get("object_store_memory", 0.0),
        is_target=offers.get(TARGET, 0.0) >= 1,
    )


def _line(error: BaseException) -> str:
    """The first line of an error, or its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
