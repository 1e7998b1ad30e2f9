"""Perf(.) of Algorithm 1: a candidate trained shortly under the proxy recipe and scored on the validation split."""

from __future__ import annotations

import ctypes

from latency.protocols import is_out_of_memory
from lpsnet.architecture import Architecture
from lpsnet.data import DataSpec, open_split
from lpsnet.errors import UserError
from lpsnet.training import Trained, TrainingFailed, train
from search.config import SearchConfig
from search.observer import Observer

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


class Proxy:
    """Trains candidates of one search; the frames are decoded once, when the first candidate needs them.

    Raises:
        DataError: the data set is not laid out as expected.
    """

    def __init__(self, config: SearchConfig, observer: Observer) -> None:
        spec = DataSpec.parse(config.data)
        self._config = config
        self._observer = observer
        self.training = open_split(spec, "train", config.size)
        self.validation = open_split(spec, "val", config.size)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.training.class_names

    def score(self, architecture: Architecture) -> Trained:
        """Train and score a candidate: on a CPU the same config and number of threads give the same result.

        Raises:
            TrainingFailed: the candidate cannot be trained: not finite, out of memory, or the input is too small.
        """
        import torch

        keep_freed_memory()
        torch.set_num_threads(self._config.threads)
        for frames in (self.training, self.validation):
            frames.hold(lambda done, total: self._observer.work("frames", done, total))
        try:
            return train(
                architecture,
                self.training,
                self.validation,
                self._config.proxy,
                seed=self._config.seed,
                device=self._config.training_device,
                on_progress=self._observer.work,
            )
        except UserError:
            raise
        except (ValueError, MemoryError, torch.OutOfMemoryError) as error:
            raise TrainingFailed(f"{type(error).__name__}: {error}") from error
        except RuntimeError as error:
            if is_out_of_memory(error):  # torch raises no type of its own for a full host memory
                raise TrainingFailed(f"out of memory: {error}") from error
            raise
