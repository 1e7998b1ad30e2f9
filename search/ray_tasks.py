"""What a search has done on the nodes of a Ray cluster: measurements, trainings, and what of the data travels.

Of Ray these functions know only which GPU they were given. The scheduling is in `ray_executor.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import latency
import lpsnet
import search
from latency.environment import package_version
from latency.lock import device_lock
from latency.protocols import BackendError, MeasurementFailed
from latency.worker import portable
from lpsnet.errors import UserError
from search.config import SearchConfig
from search.executor import LocalExecutor
from search.observer import Observer
from search.pool import Ended, train_here, train_there
from search.proxy import Proxy, TrainJob

if TYPE_CHECKING:
    import numpy as np

    from lpsnet.data.frames import Frames

CODE = "code of lps-search"
"""What `software` calls the code of this project."""


@lru_cache
def software() -> dict[str, str]:
    """What a training's result depends on besides its job: a digest of this code, and versions without the kind of build."""
    digest = hashlib.sha256()
    for package in (latency, lpsnet, search):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    versions = {name: (package_version(name) or "none").partition("+")[0] for name in ("torch", "numpy", "kornia")}
    return {CODE: digest.hexdigest()[:12], **versions}


def answered(expected: Mapping[str, str], function: Callable[..., Any], *arguments: Any) -> tuple[Any, Exception | None]:
    """The value of a function, or what it raised, as values: whatever else befalls a task is then the cluster's doing.

    Args:
        expected: what of `software` must be as it is on the driver.
        function: of this module.
        arguments: of the function.
    """
    try:
        here = software()
        if different := [f"{name} {here[name]}, not {version}" for name, version in expected.items() if here[name] != version]:
            host = socket.gethostname()
            raise UserError(f"node {host} has other software than the driver ({'; '.join(different)}); install the same there")
        return function(*arguments), None
    except Exception as error:
        if not isinstance(error, UserError | BackendError | MeasurementFailed):
            error.add_note(f"on node {socket.gethostname()}:\n{traceback.format_exc()}")
        return None, portable(error)


@dataclass(frozen=True)
class Elsewhere:
    """A split that was decoded on another machine: a `Source` without its files."""

    class_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def name_of(self, index: int) -> str:
        """See `Source.name_of`."""
        return f"frame {index}"

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """There is nothing to decode here."""
        raise AssertionError(f"frame {index} was to be decoded on the driver")


@dataclass(frozen=True)
class Shipped:
    """A decoded split as it travels.

    Args:
        source: what it is.
        images: (frames, 3, height, width), uint8; on a node a view of the object store that cannot be written to.
        labels: (frames, height, width), likewise.
    """

    source: Elsewhere
    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, frames: Frames) -> Shipped:
        """A split that is held."""
        source, held = frames.source, frames.held
        assert held is not None
        there = Elsewhere(source.class_names, source.colours, source.categories, len(source))
        return cls(there, held.images.numpy(), held.labels.numpy())

    def frames(self) -> Frames:
        """The split, without a copy."""
        import torch

        from lpsnet.data.frames import Batch, Frames

        frames = Frames(self.source, self.labels.shape[1:])  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to frames that are held
            frames.adopt(Batch(torch.from_numpy(self.images), torch.from_numpy(self.labels)))
        return frames


def trained(
    config: SearchConfig, job: TrainJob, training: Shipped | None, validation: Shipped | None, parent: bytes | None, state: bytes | None
) -> tuple[Ended, bytes | None]:
    """Train a candidate on this node.

    Args:
        config: the search.
        job: its files are the driver's; what they hold comes in `parent` and `state`.
        training, validation: the splits; None where this node reads the data set itself.
        parent: file of the parent's weights, where it has one.
        state: file of a training that is gone on with, where there is one yet.

    Returns:
        How it ended, the network on the CPU, and the file of its state where it is to be gone on with.
    """
    with ExitStack() as held:
        held.enter_context(device_lock(config.training_device, alone=False))
        here = job
        if job.parent or job.state:
            here = _with_files(job, Path(held.enter_context(tempfile.TemporaryDirectory(prefix="lps-search-"))), parent, state)
        if config.training_device == "cuda":
            _take_gpu()
        if training is None or validation is None:
            ended = train_there(config, here)
        else:
            ended = train_here(Proxy(config, Observer(), (training.frames(), validation.frames())), here)
        kept = here.state.read_bytes() if here.state and here.state.exists() else None
    if config.training_device == "cuda":
        _leave_gpu(ended)
    return dataclasses.replace(ended, job=job), kept


def _with_files(job: TrainJob, folder: Path, parent: bytes | None, state: bytes | None) -> TrainJob:
    """The job with its files in a folder of this node."""
    weights, going_on = folder / "parent.safetensors", folder / "state.pt"
    for path, data in ((weights, parent), (going_on, state)):
        if data is not None:
            path.write_bytes(data)
    return dataclasses.replace(job, parent=weights if job.parent else None, state=going_on if job.state else None)


def gpu_index(given: Sequence[int | str], visible: str | None) -> int:
    """Which of the GPUs that torch sees is the first of those that Ray gave, whose names are those in CUDA_VISIBLE_DEVICES, if set."""
    return visible.split(",").index(str(given[0])) if visible else int(given[0])


def _take_gpu() -> None:
    """Let "cuda" mean the GPU that Ray gave this task. Ray itself would hide the others, which binds a process to its first one."""
    import ray
    import torch

    if given := ray.get_gpu_ids():
        torch.cuda.set_device(gpu_index(given, os.environ.get("CUDA_VISIBLE_DEVICES")))


def _leave_gpu(ended: Ended) -> None:
    """Bring the network to the CPU, and give back what this process holds of the GPU's memory."""
    import torch

    from lpsnet.training import Trained

    if isinstance(ended.result, Trained):
        ended.result.network.cpu()
    torch.cuda.empty_cache()


def on_target(config: SearchConfig, store: Path | None, limit_s: float, class_names: tuple[str, ...], name: str, *arguments: Any) -> Any:
    """Have the executor of this machine, the one whose latency counts, do something.

    Args:
        config: the search.
        store: file of the latency store on this machine; by default the machine's own.
        limit_s: seconds a single latency may take.
        class_names: of the data set, which is not needed here.
        name: method of `LocalExecutor`.
        arguments: of the method.
    """
    return getattr(_measuring(config, store, limit_s, class_names), name)(*arguments)


@lru_cache(maxsize=1)
def _measuring(config: SearchConfig, store: Path | None, limit_s: float, class_names: tuple[str, ...]) -> LocalExecutor:
    """Kept from one measurement to the next, with the process it measures in."""
    from latency.store import Store, default_store_path

    return LocalExecutor(config, Store(store or default_store_path()), Observer(), limit_s=limit_s, class_names=class_names)
