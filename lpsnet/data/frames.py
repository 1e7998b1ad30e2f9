"""Images with labels, decoded once and kept in memory or in a mapped file, whatever data set they come from.

A data set describes itself as a `Source`: how many frames, and how to decode one. `Frames` adds the input size, the
memory and the checks that hold for every data set. No augmentation here (`augment.py`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
    colours: tuple[tuple[int, int, int], ...]
    """RGB of each class, for pictures."""
    categories: tuple[str, ...]
    """Category of each class; empty where the data set has none."""

    def __len__(self) -> int:
        """Number of frames, at least 1."""
        ...

    def name_of(self, index: int) -> str:
        """What to call frame `index` in a message."""
        ...

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and label (H, W), both uint8 and at the frame's own size. Raises `DataError`.

        A source of files also offers `files(index)`, their paths: a cache of decoded frames is made anew when they change.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """Frames on the host: images (N, 3, H, W) and labels (N, H, W), both uint8."""

    images: Tensor
    labels: Tensor


class Frames:
    """A split at one input size, decoded once: into memory where it fits, else into a file that is mapped into memory.

    Args:
        source: the split.
        size: (height, width) every frame is resized to where its own differs: images bilinearly, labels by nearest.
        memory_share: decode into memory if that takes at most this share of the memory that is free now.
        cache: folder of decoded frames, for splits that do not fit; by default `cache_folder()`.

    Raises:
        DataError: a frame that cannot be decoded, whose label has another size, or holds a value outside the classes.
    """

    def __init__(self, source: Source, size: tuple[int, int], *, memory_share: float = 0.4, cache: Path | None = None) -> None:
        self.source = source
        self.size = size
        self.class_names = source.class_names
        self.bytes = len(source) * size[0] * size[1] * 4
        self.in_memory = self.bytes <= memory_share * _free_memory_bytes()
        self.note = ""
        """Why the frames are decoded anew each time, where they are."""
        self._cache = cache or cache_folder()
        self._held: Batch | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_classes(self) -> int:
        """Number of classes; label values lie below it or equal `IGNORE_INDEX`."""
        return len(self.class_names)

    def hold(self, on_frame: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Decode every frame now, unless that is done; `on_frame(done, total)` reports progress."""
        if self._held is not None or self.note:
            return
        if self.in_memory:
            images, labels = torch.empty(len(self), 3, *self.size, dtype=torch.uint8), torch.empty(len(self), *self.size, dtype=torch.uint8)
            self._decode_into(images, labels, on_frame)
            self._held = Batch(images, labels)
            return
        try:
            self._held = self._mapped(on_frame)
        except OSError as error:
            self.note = (
                f"frames are decoded anew each time: the cache {self._cache} cannot be written ({error}); LPS_SEARCH_CACHE names another"
            )

    @property
    def held(self) -> Batch | None:
        """All frames decoded; None before `hold`, and where they are decoded anew each time."""
        return self._held

    def adopt(self, decoded: Batch) -> None:
        """Hold frames that were decoded elsewhere, in place of decoding them. They are not written to."""
        assert decoded.labels.shape == (len(self), *self.size)
        self._held = decoded

    def batch(self, indices: Sequence[int], *, pin: bool = False) -> Batch:
        """The frames at `indices`, in that order; `pin` puts them where a GPU can fetch them."""
        self.hold()
        if self._held is not None:
            chosen = torch.as_tensor(indices, dtype=torch.long)
            found = Batch(self._held.images[chosen], self._held.labels[chosen])
        else:
            pairs = [self._frame(index) for index in indices]
            found = Batch(torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs]))
        return Batch(found.images.pin_memory(), found.labels.pin_memory()) if pin else found

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All frames once, in order, `batch_size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.batch(range(start, min(start + batch_size, len(self))))

    def is_labelled(self) -> bool:
        """Whether any pixel of any frame has a class."""
        return any(bool((batch.labels != IGNORE_INDEX).any()) for batch in self.batches(1))

    def class_counts(self) -> Tensor:
        """Labelled pixels of each class (classes,)."""
        counts = torch.zeros(256, dtype=torch.long)
        for batch in self.batches(8):
            counts += torch.bincount(batch.labels.flatten().long(), minlength=256)
        return counts[: self.num_classes]

    def _decode_into(self, images: Tensor, labels: Tensor, on_frame: Callable[[int, int], None]) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for index, (image, label) in enumerate(pool.map(self._frame, range(len(self)))):
                images[index], labels[index] = image, label
                on_frame(index + 1, len(self))

    def _mapped(self, on_frame: Callable[[int, int], None]) -> Batch:
        """The frames in a file, decoded into it first where it is not there. Raises `OSError`."""
        self._cache.mkdir(parents=True, exist_ok=True)
        path, count = self._cache / f"{self._identity()}.frames", len(self)
        if not path.exists():
            if (free := shutil.disk_usage(self._cache).free) < 1.05 * self.bytes:
                raise OSError(f"{self.bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
            handle, name = tempfile.mkstemp(dir=self._cache, prefix=".frames-")
            os.close(handle)
            try:
                self._decode_into(*_map(Path(name), count, self.size, new=True), on_frame)
                os.replace(name, path)
            finally:
                Path(name).unlink(missing_ok=True)
        return Batch(*_map(path, count, self.size, new=False))

    def _identity(self) -> str:
        """Changes with the split's files, their sizes and times, and with the input size."""
        told: list[Any] = [type(self.source).__name__, self.size, self.class_names]
        files = getattr(self.source, "files", None)
        for index in range(len(self)):
            told.append(self.source.name_of(index))
            for file in files(index) if files else ():
                stat = file.stat()
                told.append((stat.st_size, stat.st_mtime_ns))
        return hashlib.sha256(repr(told).encode()).hexdigest()[:24]

    def _frame(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.source.decode(index)
        check_frame(self.source.name_of(index), image, label, len(self.class_names))
        if label.shape != self.size:
            width_height = (self.size[1], self.size[0])
            image = np.asarray(Image.fromarray(image).resize(width_height, Image.Resampling.BILINEAR))
            label = np.asarray(Image.fromarray(label).resize(width_height, Image.Resampling.NEAREST))
        return torch.from_numpy(image.copy()).permute(2, 0, 1), torch.from_numpy(label.copy())


def cache_folder() -> Path:
    """Where decoded frames lie: `$LPS_SEARCH_CACHE`, else below `$XDG_CACHE_HOME` or `~/.cache`."""
    if named := os.environ.get("LPS_SEARCH_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lps-search"


def _map(path: Path, count: int, size: tuple[int, int], *, new: bool) -> tuple[Tensor, Tensor]:
    """Images (count, 3, H, W) and labels (count, H, W) in a file."""
    pixels = count * size[0] * size[1]
    if new:
        os.truncate(path, 4 * pixels)
    whole = torch.from_file(str(path), shared=new, size=4 * pixels, dtype=torch.uint8)
    return whole[: 3 * pixels].view(count, 3, *size), whole[3 * pixels :].view(count, *size)


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
