"""Data sets by name: `NAME` or `NAME:PATH`, each a train and a val split of frames with labels.

One file a data set beside this one; `DATASETS` is the table of them, to which other packages add. Augmentation is in `augment.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lpsnet.errors import UserError
from lpsnet.tables import Table

if TYPE_CHECKING:
    from lpsnet.data.frames import Frames, Source


MOST_CLASSES = 255
"""Labels are bytes, and 255 is what is ignored."""


def check_class_names(names: object) -> tuple[str, ...]:
    """Names of classes as a file gives them. Raises `ValueError` unless they are 1 to `MOST_CLASSES` texts that can be printed."""
    if not isinstance(names, list | tuple) or not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"class_names must be 1 to {MOST_CLASSES} texts")
    if wrong := [name for name in names if not (isinstance(name, str) and name.isprintable())]:
        raise ValueError(f"a class is named by letters that can be printed, found {str(wrong[0])[:80]!r}")
    return tuple(names)


def data_name(text: str) -> str:
    """Of `NAME` or `NAME:PATH` the name, which says the same on every machine; neither is looked at."""
    return text.partition(":")[0]


@dataclass(frozen=True)
class DataSpec:
    """Which data set, and where: the parsed form of `NAME` or `NAME:PATH`.

    Raises:
        UserError: an unknown name, a path where none is due, or none where one is due.
    """

    name: str
    path: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path or None)
        if self.name not in DATASETS:
            raise UserError(f"unknown data set {self.name!r}; there are: {', '.join(DATASETS)}")
        if DATASETS[self.name].needs_path and not self.path:
            raise UserError(f"data set {self.name!r} needs its folder: write {self.name}:PATH")
        if self.path and not DATASETS[self.name].needs_path:
            raise UserError(f"data set {self.name!r} takes no path, got {self.path!r}")

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Read `NAME` or `NAME:PATH`; the inverse of `str`."""
        name, _, path = text.partition(":")
        return cls(name, path)

    def __str__(self) -> str:
        return self.name if self.path is None else f"{self.name}:{self.path}"


@dataclass(frozen=True)
class DataSet:
    """A row of `DATASETS`: how to open a split, whether a folder is needed, the default input size, and the licence of its frames."""

    open: Callable[[str | None, str, tuple[int, int]], Source]
    needs_path: bool
    native_size: tuple[int, int] | None
    licence: str


def _camvid(path: str | None, split: str, size: tuple[int, int]) -> Source:
    from lpsnet.data.camvid import CamVid

    return CamVid(_folder_of(path), split)


def _cityscapes(path: str | None, split: str, size: tuple[int, int], *, coarse: bool = False) -> Source:
    from lpsnet.data.cityscapes import Cityscapes

    return Cityscapes(_folder_of(path), split, coarse=coarse)


def _bdd100k(path: str | None, split: str, size: tuple[int, int]) -> Source:
    from lpsnet.data.bdd100k import Bdd100k

    return Bdd100k(_folder_of(path), split)


def _folder(path: str | None, split: str, size: tuple[int, int]) -> Source:
    from lpsnet.data.folder import Folder

    return Folder(_folder_of(path), split)


def _synthetic(path: str | None, split: str, size: tuple[int, int]) -> Source:
    from lpsnet.data.synthetic import Synthetic

    return Synthetic(split, size)


def _folder_of(path: str | None) -> Path:
    assert path is not None
    return Path(path).expanduser()


_CITYSCAPES_TERMS = "Cityscapes terms: non-commercial research and teaching"

DATASETS: Table[DataSet] = Table(
    "lps_search.data_sets",
    {
        "synthetic": DataSet(_synthetic, needs_path=False, native_size=(128, 256), licence="made by this project, Apache-2.0"),
        "camvid": DataSet(_camvid, needs_path=True, native_size=(360, 480), licence="CamVid: research and teaching"),
        "cityscapes": DataSet(_cityscapes, needs_path=True, native_size=(1024, 2048), licence=_CITYSCAPES_TERMS),
        "cityscapes-coarse": DataSet(
            partial(_cityscapes, coarse=True), needs_path=True, native_size=(1024, 2048), licence=_CITYSCAPES_TERMS
        ),
        "bdd100k": DataSet(_bdd100k, needs_path=True, native_size=(720, 1280), licence="BDD100K terms: research, no redistribution"),
        "folder": DataSet(_folder, needs_path=True, native_size=None, licence="the user's own data"),
    },
    DataSet,
)
"""Data set by name; `native_size` (height, width) is the default input size, None where the folder tells it."""


def native_size(spec: DataSpec) -> tuple[int, int]:
    """The default input size (height, width) of a data set. Raises `DataError` where its folder does not tell it."""
    size = DATASETS[spec.name].native_size
    if size is not None:
        return size
    from lpsnet.data.folder import native_size as told

    return told(_folder_of(spec.path))


def open_split(spec: DataSpec, split: str, size: tuple[int, int]) -> Frames:
    """A split (`train`, `val`, and `test` where present) of a data set at an input size (height, width).

    Raises:
        DataError: the folder is not laid out as the data set is, or the split is empty.
    """
    from lpsnet.data.frames import Frames

    return Frames(DATASETS[spec.name].open(spec.path, split, size), size)
