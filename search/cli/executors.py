"""Where a search's work is done, as options of the verbs that search: on this machine, or on a Ray cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpsnet.errors import UserError
from search.cli.options import resolve_device

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.executor import Executor
    from search.observer import Observer

EXECUTORS = ("local", "ray")

ExecutorName = Annotated[str, typer.Option("--executor", help="Where the work is done: local, or ray (docs/cluster.md).")]
RayAddress = Annotated[str, typer.Option(help="With ray: HOST:PORT of a cluster, or auto. Default: one that begins and ends here.")]
GpusPerTraining = Annotated[float | None, typer.Option(help="With ray: GPUs of one training, such as 0.25. Default: 1 on cuda.", min=0.0)]
RayWait = Annotated[float | None, typer.Option(help="With ray: seconds to wait for a node that was lost. Default: 300.", min=0.0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be spent: seconds on a single latency (0 for no limit), hours until nothing new begins; and the file of the store."""

    latency_s: float
    max_hours: float | None
    store: Path | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """Which executor, and what it is told; `address`, `gpus_per_training` and `wait_s` are for ray.

    Raises:
        UserError: an unknown executor, or an option of ray for another one.
    """

    executor: str
    address: str
    gpus_per_training: float | None
    wait_s: float | None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UserError(f"unknown executor {self.executor!r}; there are: {', '.join(EXECUTORS)}")
        if self.executor != "ray":
            given = {"--ray-address": self.address or None, "--gpus-per-training": self.gpus_per_training, "--ray-wait": self.wait_s}
            for name, value in given.items():
                if value is not None:
                    raise UserError(f"{name} {value} goes with --executor ray")

    def require_local(self, what: str) -> None:
        """Raises `UserError` for any other executor than local."""
        if self.executor != "local":
            raise UserError(f"{what} does not go with --executor {self.executor}")

    def training_device(self, name: str) -> str:
        """Where candidates are trained: what torch sees here says nothing of a cluster, so there "auto" is a GPU where one is asked for."""
        if self.executor == "ray" and name in ("auto", "cuda"):
            return "cuda" if name == "cuda" or self.gpus_per_training else "cpu"
        return resolve_device(name, "--training-device")


def open_executor(where: Where, config: SearchConfig, limits: Limits, observer: Observer) -> Executor:
    """The executor that is asked for. Raises `UserError`, `DataError` and `BackendError` for what it lacks."""
    if where.executor == "ray":
        from search.ray_executor import RayExecutor, RayPlan

        gpus = where.gpus_per_training
        plan = RayPlan(
            address=where.address,
            gpus_per_training=float(config.training_device == "cuda") if gpus is None else gpus,
            **({} if where.wait_s is None else {"wait_s": where.wait_s}),
            limit_s=limits.latency_s,
            store=limits.store,
        )
        return RayExecutor(config, plan, observer)
    from latency.store import Store, default_store_path
    from search.executor import LocalExecutor

    return LocalExecutor(config, Store(limits.store or default_store_path()), observer, limit_s=limits.latency_s)
