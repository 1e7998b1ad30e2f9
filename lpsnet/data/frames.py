"""Images with labels, decoded once and kept in memory when they fit, whatever data set they come from.

A data set describes itself as a `Source`: how many frames, and how to decode one. `Frames` adds the input size, the
memory and the checks that hold for every data set. No augmentation here (`augment.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lpsnet.errors import UserError

IGNORE_INDEX = 255
"""Label of pixels that count neither in the loss nor in a score."""


class DataError(UserError):
    """A data set that is not there, is not laid out as expected, or holds a frame that cannot be used."""


class Source(Protocol):
    """One split of a data set."""

    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of frames, at least 1."""
        ...

    def name_of(self, index: int) -> str:
        """What to call frame `index` in a message."""
        ...

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and label (H, W), both uint8 and at the frame's own size. Raises `DataError`."""
        ...


@dataclass(frozen=True)
class Batch:
    """Frames on the host: images (N, 3, H, W) and labels (N, H, W), both uint8."""

    images: Tensor
    labels: Tensor


class Frames:
    """A split at one input size.

    Args:
        source: the split.
        size: (height, width) every frame is resized to where its own differs: images bilinearly, labels by nearest.
        memory_share: decode into memory once if that takes at most this share of the memory that is free now.

    Raises:
        DataError: a frame that cannot be decoded, whose label has another size, or holds a value outside the classes.
    """

    def __init__(self, source: Source, size: tuple[int, int], *, memory_share: float = 0.4) -> None:
        self.source = source
        self.size = size
        self.class_names = source.class_names
        self.in_memory = len(source) * size[0] * size[1] * 4 <= memory_share * _free_memory_bytes()
        self._held: Batch | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_classes(self) -> int:
        """Number of classes; label values lie below it or equal `IGNORE_INDEX`."""
        return len(self.class_names)

    def hold(self, on_frame: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Decode every frame into memory now, when they fit; `on_frame(done, total)` reports progress."""
        if self._held is not None or not self.in_memory:
            return
        images = torch.empty(len(self), 3, *self.size, dtype=torch.uint8)
        labels = torch.empty(len(self), *self.size, dtype=torch.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for index, (image, label) in enumerate(pool.map(self._frame, range(len(self)))):
                images[index], labels[index] = image, label
                on_frame(index + 1, len(self))
        self._held = Batch(images, labels)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The frames at `indices`, in that order."""
        self.hold()
        if self._held is not None:
            chosen = torch.as_tensor(indices, dtype=torch.long)
            return Batch(self._held.images[chosen], self._held.labels[chosen])
        pairs = [self._frame(index) for index in indices]
        return Batch(torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs]))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All frames once, in order, `batch_size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.batch(range(start, min(start + batch_size, len(self))))

    def _frame(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.source.decode(index)
        check_frame(self.source.name_of(index), image, label, len(self.class_names))
        if label.shape != self.size:
            width_height = (self.size[1], self.size[0])
            image = np.asarray(Image.fromarray(image).resize(width_height, Image.Resampling.BILINEAR))
            label = np.asarray(Image.fromarray(label).resize(width_height, Image.Resampling.NEAREST))
        return torch.from_numpy(image.copy()).permute(2, 0, 1), torch.from_numpy(label.copy())


def check_frame(name: str, image: np.ndarray, label: np.ndarray, num_classes: int) -> None:
    """Refuse a frame whose label has another size than its image or a value that is no class.

    Raises:
        DataError: names the frame, and the sizes or the first wrong value and its pixel.
    """
    if image.shape[:2] != label.shape:
        height, width = image.shape[:2]
        raise DataError(f"{name}: the label is {label.shape[1]}x{label.shape[0]} but the image is {width}x{height}; they must be equal")
    wrong = (label >= num_classes) & (label != IGNORE_INDEX)
    if wrong.any():
        row, column = (int(axis[0]) for axis in np.nonzero(wrong))
        raise DataError(
            f"{name}: label value {int(label[row, column])} at row {row}, column {column} is no class; "
            f"expected 0 to {num_classes - 1}, or {IGNORE_INDEX} to ignore"
        )


def _free_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
