"""BDD100K's semantic segmentation: images of 1280x720 with the 19 classes of Cityscapes as masks of train ids.

Two layouts: `images/10k/SPLIT/` beside `labels/sem_seg/masks/SPLIT/`, or the older `images/SPLIT/` beside `labels/SPLIT/`
with labels named `*_train_id.png`.
"""

from __future__ import annotations

from pathlib import Path

from lpsnet.data import cityscapes
from lpsnet.data.files import PairedFiles, images_in, paired
from lpsnet.data.frames import DataError

SPLITS = ("train", "val", "test")


class Bdd100k(PairedFiles):
    """One split of BDD100K below `root`.

    Raises:
        DataError: neither layout is there, the split is empty, or an image has no label.
    """

    class_names = cityscapes.CLASS_NAMES
    colours = cityscapes.COLOURS
    categories = cityscapes.CATEGORIES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"bdd100k has no split {split!r}; there are: {', '.join(SPLITS)}")
        new, old = root / "images" / "10k" / split, root / "images" / split
        if new.is_dir():
            masks = root / "labels" / "sem_seg" / "masks" / split
            pairs = paired(images_in(new, "bdd100k"), lambda image: masks / f"{image.stem}.png", "bdd100k")
        elif old.is_dir():
            labels = root / "labels" / split
            pairs = paired(images_in(old, "bdd100k"), lambda image: labels / f"{image.stem}_train_id.png", "bdd100k")
        else:
            raise DataError(f"bdd100k: looked for {new} and for {old}, neither is a folder")
        super().__init__(pairs)
