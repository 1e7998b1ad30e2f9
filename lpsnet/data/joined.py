"""Several splits of one data set as one."""

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


def joined(splits: Sequence[Frames]) -> Frames:
    """Splits of one input size as one; a single one is given back."""
    if len(splits) == 1:
        return splits[0]
    return Frames(Joined([split.source for split in splits]), splits[0].size)
