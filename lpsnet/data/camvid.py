"""CamVid in the layout of the SegNet tutorial: `train/` beside `trainannot/`, likewise `val` and `test`.

Images are .png or .jpg; labels are 8-bit PNGs of the same stem holding a class index, 11 for void, which is ignored.
The original CamVid release (32 colours) is not read here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lpsnet.data.frames import IGNORE_INDEX, DataError

CLASS_NAMES: tuple[str, ...] = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOID = len(CLASS_NAMES)
SPLITS = ("train", "val", "test")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class CamVid:
    """One split of CamVid below `root`.

    Raises:
        DataError: a folder is missing, the split is empty, or an image has no label.
    """

    class_names = CLASS_NAMES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"camvid has no split {split!r}; there are: {', '.join(SPLITS)}")
        folder, label_folder = root / split, root / f"{split}annot"
        for wanted in (folder, label_folder):
            if not wanted.is_dir():
                raise DataError(f"camvid: {wanted} is no folder; looked for {split}/ (images) beside {split}annot/ (labels) in {root}")
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"camvid: {folder} holds no image; looked for {', '.join('*' + suffix for suffix in _IMAGE_SUFFIXES)}")
        self._pairs = [(image, label_folder / f"{image.stem}.png") for image in images]
        missing = [label for _, label in self._pairs if not label.is_file()]
        if missing:
            raise DataError(
                f"camvid: {len(missing)} of {len(images)} images in {folder} have no label; the first one missing is {missing[0]}"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def name_of(self, index: int) -> str:
        """Path of the frame's label, where most faults are."""
        return str(self._pairs[index][1])

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.decode`; void becomes the ignore label."""
        image_path, label_path = self._pairs[index]
        image = np.asarray(_open(image_path).convert("RGB"))
        label_image = _open(label_path)
        if label_image.mode not in ("L", "P"):
            raise DataError(f"{label_path}: a label must be an 8-bit image of class indices, found mode {label_image.mode!r}")
        label = np.array(label_image, dtype=np.uint8)
        label[label == VOID] = IGNORE_INDEX
        return image, label


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
