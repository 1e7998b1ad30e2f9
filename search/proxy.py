"""Perf(.) of Algorithm 1: a candidate trained shortly under the proxy recipe and scored on the validation split."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency.protocols import is_out_of_memory
from lpsnet.architecture import Architecture
from lpsnet.data import DataSpec, open_split
from lpsnet.errors import TrainingFailed, UserError
from search.config import SearchConfig
from search.observer import Observer

if TYPE_CHECKING:
    from lpsnet.data.frames import Frames
    from lpsnet.training import Trained

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for the next iteration instead of giving it back each time.

    Asking the system for the same pages again costs a CPU training time. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """A training of one candidate.

    Args:
        architecture: the network.
        seed: of weights, order of frames and augmentation.
        rung: iterations after which to score it, leaving its state in `state` to go on from; 0 for the whole recipe.
        parent: weights of the network it starts from; None for random ones.
        state: file of a training that is gone on with; None where it is done in one piece.
    """

    architecture: Architecture
    seed: int
    rung: int = 0
    parent: Path | None = None
    state: Path | None = None


class Proxy:
    """Trains candidates of one search; the frames are decoded once, when the first candidate needs them.

    Args:
        config: the search.
        observer: told of progress.
        splits: the frames to train and to score on, where they are at hand; by default those of the configuration.

    Raises:
        DataError: the data set is not laid out as expected.
    """

    def __init__(self, config: SearchConfig, observer: Observer, splits: tuple[Frames, Frames] | None = None) -> None:
        self._config = config
        self._observer = observer
        self.training, self.validation = splits or _splits(config)

    def under(self, config: SearchConfig) -> Proxy:
        """A proxy of another configuration, which keeps these frames where it wants the same."""
        same = all(getattr(config, name) == getattr(self._config, name) for name in ("data", "size", "validation_frames"))
        return Proxy(config, self._observer, (self.training, self.validation) if same else None)

    def hold(self) -> None:
        """Decode all frames now, unless that is done."""
        for frames in (self.training, self.validation):
            frames.hold(lambda done, total: self._observer.work("frames", done, total))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.training.class_names

    def train(self, job: TrainJob) -> Trained:
        """Train and score a candidate: on a CPU the same config and number of threads give the same result.

        Raises:
            TrainingFailed: the candidate cannot be trained: not finite, out of memory, or the input is too small.
        """
        import torch

        from lpsnet.checkpoint import load
        from lpsnet.network import LPSNet
        from lpsnet.resume import Keeper
        from lpsnet.training import train

        parent = load(job.parent) if job.parent else None
        assert parent is None or isinstance(parent, LPSNet)
        keep_freed_memory()
        torch.set_num_threads(self._config.training_threads)
        identity = {"architecture": str(job.architecture), "seed": job.seed, "parent": job.parent is not None}
        keeper = Keeper(job.state, identity, every_s=math.inf) if job.state else None
        self.hold()
        try:
            return train(
                job.architecture,
                self.training,
                self.validation,
                self._config.proxy,
                seed=job.seed,
                device=self._config.training_device,
                precision=self._config.precision,
                parent=parent,
                keeper=keeper,
                until=job.rung,
                on_progress=self._observer.work,
            )
        except UserError:
            raise
        except (ValueError, MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):  # torch raises no type of its own for a full host memory
                raise TrainingFailed(f"out of memory: {error}") from error
            if isinstance(error, ValueError):
                raise TrainingFailed(f"{type(error).__name__}: {error}") from error
            raise


def _splits(config: SearchConfig) -> tuple[Frames, Frames]:
    """What a search trains and scores on. Raises `DataError`."""
    from lpsnet.data.joined import thinned

    spec = DataSpec.parse(config.data)
    return open_split(spec, "train", config.size), thinned(open_split(spec, "val", config.size), config.validation_frames)
