"""Splits made of others: several as one, and a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lpsnet.data.frames import Frames, Source


class Joined:
    """Splits one after another."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        first = sources[0]
        self.class_names, self.colours, self.categories = first.class_names, first.colours, first.categories

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def name_of(self, index: int) -> str:
        """See `Source.name_of`."""
        source, inner = self._find(index)
        return source.name_of(inner)

    def files(self, index: int) -> tuple[Path, ...]:
        """See `Source.files`."""
        source, inner = self._find(index)
        files = getattr(source, "files", None)
        return tuple(files(inner)) if files else ()

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.decode`."""
        source, inner = self._find(index)
        return source.decode(inner)

    def _find(self, index: int) -> tuple[Source, int]:
        for source in self._sources:
            if index < len(source):
                return source, index
            index -= len(source)
        raise IndexError(index)


class Thinned:
    """Every so many frames of a split, evenly spread."""

    def __init__(self, source: Source, count: int) -> None:
        self._source = source
        self._chosen = [index * len(source) // count for index in range(count)]
        self.class_names, self.colours, self.categories = source.class_names, source.colours, source.categories

    def __len__(self) -> int:
        return len(self._chosen)

    def name_of(self, index: int) -> str:
        """See `Source.name_of`."""
        return self._source.name_of(self._chosen[index])

    def files(self, index: int) -> tuple[Path, ...]:
        """See `Source.files`."""
        files = getattr(self._source, "files", None)
        return tuple(files(self._chosen[index])) if files else ()

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.decode`."""
        return self._source.decode(self._chosen[index])


def thinned(frames: Frames, count: int) -> Frames:
    """So many frames of a split, evenly spread over it; the split itself where it has no more, or for 0."""
    return Frames(Thinned(frames.source, count), frames.size) if 0 < count < len(frames) else frames


def joined(splits: Sequence[Frames]) -> Frames:
    """Splits of one input size as one; a single one is given back."""
    if len(splits) == 1:
        return splits[0]
    return Frames(Joined([split.source for split in splits]), splits[0].size)
