"""Cityscapes as it unpacks: `leftImg8bit/SPLIT/CITY/` beside `gtFine/SPLIT/CITY/`, 19 classes.

Labels are read as `*_labelTrainIds.png`, or converted from `*_labelIds.png` where those have not been made. `coarse` adds the
coarsely labelled frames of `gtCoarse/` (and `train_extra`) to the training split.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np

from lpsnet.data.files import Pair, PairedFiles, images_in, paired, read_mask
from lpsnet.data.frames import IGNORE_INDEX, DataError

CLASSES: MappingProxyType[str, tuple[int, int, int, int, str]] = MappingProxyType(
    {
        "road": (7, 128, 64, 128, "flat"),
        "sidewalk": (8, 244, 35, 232, "flat"),
        "building": (11, 70, 70, 70, "construction"),
        "wall": (12, 102, 102, 156, "construction"),
        "fence": (13, 190, 153, 153, "construction"),
        "pole": (17, 153, 153, 153, "object"),
        "traffic light": (19, 250, 170, 30, "object"),
        "traffic sign": (20, 220, 220, 0, "object"),
        "vegetation": (21, 107, 142, 35, "nature"),
        "terrain": (22, 152, 251, 152, "nature"),
        "sky": (23, 70, 130, 180, "sky"),
        "person": (24, 220, 20, 60, "human"),
        "rider": (25, 255, 0, 0, "human"),
        "car": (26, 0, 0, 142, "vehicle"),
        "truck": (27, 0, 0, 70, "vehicle"),
        "bus": (28, 0, 60, 100, "vehicle"),
        "train": (31, 0, 80, 100, "vehicle"),
        "motorcycle": (32, 0, 0, 230, "vehicle"),
        "bicycle": (33, 119, 11, 32, "vehicle"),
    }
)
"""The 19 evaluated classes in the order of their train ids: label id, colour, category."""

CLASS_NAMES: tuple[str, ...] = tuple(CLASSES)
COLOURS: tuple[tuple[int, int, int], ...] = tuple(row[1:4] for row in CLASSES.values())
CATEGORIES: tuple[str, ...] = tuple(row[4] for row in CLASSES.values())
LABEL_IDS: tuple[int, ...] = tuple(row[0] for row in CLASSES.values())
"""Label id of each class, which is what the benchmark's server takes."""

SPLITS = ("train", "val", "test")

_IMAGE_END, _TRAIN_END, _ID_END = "_leftImg8bit", "_labelTrainIds.png", "_labelIds.png"

TRAIN_IDS = np.full(256, IGNORE_INDEX, np.uint8)
"""Train id by label id."""
TRAIN_IDS[list(LABEL_IDS)] = range(len(LABEL_IDS))
TRAIN_IDS.setflags(write=False)


class Cityscapes(PairedFiles):
    """One split of Cityscapes below `root`.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine`.
        split: train, val or test.
        coarse: train on the coarse labels, too, of `train` and of `train_extra` where that is there.

    Raises:
        DataError: a folder is missing, the split is empty, or an image has no label.
    """

    class_names = CLASS_NAMES
    colours = COLOURS
    categories = CATEGORIES

    def __init__(self, root: Path, split: str, *, coarse: bool = False) -> None:
        if split not in SPLITS:
            raise DataError(f"cityscapes has no split {split!r}; there are: {', '.join(SPLITS)}")
        pairs = _pairs(root, split, "gtFine")
        if coarse and split == "train":
            extra = ["train_extra"] if (root / "gtCoarse" / "train_extra").is_dir() else []
            for part in extra or ["train"]:  # the coarse labels of `train` repeat its fine ones
                pairs += _pairs(root, part, "gtCoarse")
        super().__init__(pairs)

    def read_label(self, path: Path) -> np.ndarray:
        """See `PairedFiles.read_label`."""
        found = read_mask(path)
        return TRAIN_IDS[found] if path.name.endswith(_ID_END) else found


def _pairs(root: Path, split: str, labels: str) -> list[Pair]:
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        raise DataError(f"cityscapes: {folder} is no folder; looked for leftImg8bit/{split}/ beside {labels}/{split}/ in {root}")

    def label_of(image: Path) -> Path:
        stem = root / labels / split / image.parent.name / image.name.split(_IMAGE_END)[0]
        made = Path(f"{stem}_{labels}{_TRAIN_END}")
        return made if made.is_file() else Path(f"{stem}_{labels}{_ID_END}")

    return paired(images_in(folder, "cityscapes", f"*/*{_IMAGE_END}.*"), label_of, "cityscapes")
