"""CamVid, 11 classes, in two layouts: that of the SegNet tutorial, and the original release with 32 colours.

- SegNet's: `train/` beside `trainannot/`, likewise `val` and `test`; labels are class indices, 11 for void, which is ignored.
- The original: `701_StillsRaw_full/` beside `LabeledApproved_full/` with labels `*_L.png`, folded to the 11 classes as SegNet did and
  split by sequence as SegNet did.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

import numpy as np

from lpsnet.data.files import PairedFiles, images_in, paired, read_colours, read_mask
from lpsnet.data.frames import IGNORE_INDEX, DataError

CLASSES: MappingProxyType[str, tuple[tuple[int, int, int], ...]] = MappingProxyType(
    {
        "sky": ((128, 128, 128),),
        "building": ((128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 192, 0), (64, 0, 64)),  # archway, bridge, wall, tunnel
        "pole": ((192, 192, 128), (0, 0, 64)),  # traffic cone
        "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),  # lane markings to drive on, and not to
        "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),  # parking block, shoulder
        "tree": ((128, 128, 0), (192, 192, 0)),  # other vegetation
        "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),  # other text, traffic light
        "fence": ((64, 64, 128),),
        "car": ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),  # SUV, truck or bus, train, other moving
        "pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),  # child, cart or pram, animal
        "bicyclist": ((0, 128, 192), (192, 0, 192)),  # motorcycle or scooter
    }
)
"""The 11 classes with the colours of the original release that belong to each, its own first."""

CLASS_NAMES: tuple[str, ...] = tuple(CLASSES)
COLOURS: tuple[tuple[int, int, int], ...] = tuple(colours[0] for colours in CLASSES.values())
VOID = len(CLASS_NAMES)
SPLITS = ("train", "val", "test")
RAW, LABELLED = "701_StillsRaw_full", "LabeledApproved_full"

_FOLDED = {colour: index for index, colours in enumerate(CLASSES.values()) for colour in colours} | {(0, 0, 0): IGNORE_INDEX}


class CamVid(PairedFiles):
    """One split of CamVid below `root`, in whichever layout is there.

    Raises:
        DataError: a folder is missing, the split is empty, or an image has no label.
    """

    class_names = CLASS_NAMES
    colours = COLOURS

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"camvid has no split {split!r}; there are: {', '.join(SPLITS)}")
        self._coloured = (root / RAW).is_dir()
        if self._coloured:
            labels = root / LABELLED
            images = [image for image in images_in(root / RAW, "camvid") if split_of(image.stem) == split]
            if not images:
                raise DataError(f"camvid: {root / RAW} holds no image of the split {split}")
            super().__init__(paired(images, lambda image: labels / f"{image.stem}_L.png", "camvid"))
            return
        folder, label_folder = root / split, root / f"{split}annot"
        for wanted in (folder, label_folder):
            if not wanted.is_dir():
                raise DataError(
                    f"camvid: {wanted} is no folder; looked for {split}/ (images) beside {split}annot/ (labels) in {root}, "
                    f"or the original's {RAW}/ beside {LABELLED}/"
                )
        super().__init__(paired(images_in(folder, "camvid"), lambda image: label_folder / f"{image.stem}.png", "camvid"))

    def read_label(self, path: Path) -> np.ndarray:
        """See `PairedFiles.read_label`; void becomes the ignore label."""
        if self._coloured:
            return read_colours(path, _FOLDED)
        label = read_mask(path)
        label[label == VOID] = IGNORE_INDEX
        return label


def split_of(stem: str) -> str:
    """The split that a frame of the original release belongs to (367, 101 and 233 frames, as SegNet split them)."""
    sequence, _, number = stem.partition("_")
    frame = int(re.sub(r"\D", "", number) or 0)
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame > 8520):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 else "train"
