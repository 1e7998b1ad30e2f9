"""Where the work of a search is done: what a search asks for, and this machine, where nothing runs beside a latency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from latency.lock import device_lock
from latency.measure import measure_steady
from latency.measurement import Conditions, Environment, Measurement
from latency.store import Store
from latency.worker import Worker
from lpsnet.architecture import Architecture
from search.config import SearchConfig
from search.observer import Observer
from search.pool import Ended, Pool, train_here, with_second_tries
from search.proxy import Proxy, TrainJob

ATTEMPTS = 2
"""How often an unstable latency is taken anew: the largest of a step's is its target, so that a single outlier misleads all of it."""


def subject(architecture: Architecture, num_classes: int) -> str:
    """What a network is called in the latency store: its latency depends on the number of classes, too."""
    return f"{architecture} classes={num_classes}"


def conditions(config: SearchConfig, boundary: str | None = None) -> Conditions:
    """The conditions a search measures under, at its own or at another boundary."""
    return Conditions(
        backend=config.backend,
        device=config.device,
        shape=(1, 3, *config.size),
        boundary=boundary or config.boundary,
        threads=config.threads,
        plan=config.plan,
    )


def current_environment(config: SearchConfig) -> Environment:
    """The environment a search of this configuration measures in on this machine.

    Raises:
        BackendError: the backend is unknown or cannot be used here.
    """
    from latency.backends import usable_backend
    from latency.environment import environment

    return environment(usable_backend(config.backend, config.device), config.device)


class Executor(Protocol):
    """Measures and trains for a search. What it gives depends on where that is done only as a latency does."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the data set's classes. Raises `DataError` for data that is not as expected."""
        ...

    def environment(self) -> Environment:
        """What latencies are measured in. Raises `BackendError`."""
        ...

    def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
        """Latency of the deployed network with the data set's classes, taken anew while it is unstable. Raises `MeasurementFailed`."""
        ...

    def compare(self, first: Architecture, second: Architecture) -> Measurement:
        """Two networks in turns, at the search's boundary; `latency.compare.comparison` reads it. Raises `MeasurementFailed`."""
        ...

    def holds(self, name: str, boundary: str) -> bool:
        """Whether the store of the device's machine has a row of that name already, so that nothing need be measured."""
        ...

    def train(self, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
        """Train candidates, several at a time where there is room; yields each as it ends.

        Args:
            jobs: begun in this order.
            on_start: called before each; what it raises ends the work once what runs has ended.
            on_wait: called now and then with the number of trainings that run elsewhere.
        """
        ...

    def close(self) -> None:
        """End what was started for this."""
        ...


class LocalExecutor:
    """Measures and trains in this process: the `Executor` of one machine.

    Args:
        config: the search.
        store: this machine's latency store; what it holds is not measured again.
        observer: told of the progress of each training.
        limit_s: seconds a single latency may take, in a process of its own; 0 to measure in this one, without a limit.
        class_names: of the data set, where they are known; it is not opened for them then.
    """

    def __init__(
        self, config: SearchConfig, store: Store, observer: Observer, *, limit_s: float = 0.0, class_names: tuple[str, ...] = ()
    ) -> None:
        self._config = config
        self._class_names = class_names
        self._store = store
        self._observer = observer
        self._worker = Worker(limit_s) if limit_s else None
        self._proxy: Proxy | None = None
        self._pool: Pool | None = None

    @property
    def proxy(self) -> Proxy:
        """The proxy, opened on first use. Raises `DataError` for data that is not as expected."""
        if self._proxy is None:
            self._proxy = Proxy(self._config, self._observer)
        return self._proxy

    @property
    def class_names(self) -> tuple[str, ...]:
        """See `Executor.class_names`."""
        return self._class_names or self.proxy.class_names

    def environment(self) -> Environment:
        """See `Executor.environment`."""
        return current_environment(self._config)

    def close(self) -> None:
        """End the processes that measure and train, where there are any."""
        if self._worker is not None:
            self._worker.close()
        if self._pool is not None:
            self._pool.close()

    def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
        """See `Executor.measure`."""
        from latency.protocols import MeasurementFailed
        from lpsnet.network import LPSNet

        at = conditions(self._config, boundary)
        classes = len(self.class_names)
        try:
            network = LPSNet(architecture, classes, deployed=True)
        except (MemoryError, RuntimeError) as error:
            raise MeasurementFailed(f"the network cannot be built: {error}") from error
        return measure_steady(
            network,
            attempts=ATTEMPTS,
            size=self._config.size,
            backend=at.backend,
            device=at.device,
            boundary=at.boundary,
            threads=at.threads,
            plan=at.plan,
            subject=subject(architecture, classes),
            store=self._store,
            worker=self._worker,
        )

    def compare(self, first: Architecture, second: Architecture) -> Measurement:
        """See `Executor.compare`."""
        from latency.compare import compare
        from lpsnet.network import LPSNet

        classes = len(self.class_names)
        return compare(
            LPSNet(first, classes, deployed=True),
            LPSNet(second, classes, deployed=True),
            conditions(self._config),
            subjects=(subject(first, classes), subject(second, classes)),
            store=self._store,
            reason=f"single latencies within {self._config.noise:.1%} of each other",
            worker=self._worker,
        )

    def holds(self, name: str, boundary: str) -> bool:
        """See `Executor.holds`."""
        at = conditions(self._config, boundary)
        return self._store.find(name, at, current_environment(self._config)) is not None

    def train(self, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
        """See `Executor.train`; several at a time where the configuration says so. What ran out of memory is tried once more."""
        with device_lock(self._config.training_device, alone=False):
            yield from with_second_tries(lambda some, told: self._trained(some, told, on_wait), jobs, on_start)

    def _trained(self, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
        if self._config.parallel > 1:
            self._pool = self._pool or Pool(self._config.parallel)
            yield from self._pool.run(self._config, jobs, on_start, on_wait)
            return
        for job in jobs:
            on_start(job)
            yield train_here(self.proxy, job)
