"""Reading image and label files: whatever is wrong with one is said with its path. Shared by the data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lpsnet.data.frames import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What is read, whatever a file is called."""

MOST_PIXELS = 2**26
"""Of an image: a file of a few kilobytes can say that it is larger, and is then not decoded."""

Pair = tuple[Path, Path]
"""An image and its label."""


def images_in(folder: Path, name: str, pattern: str = "*") -> list[Path]:
    """The images of a folder whose names match a glob pattern, sorted; a pattern with `**` looks below it, too.

    Raises:
        DataError: no such folder, or no image there; `name` is the data set, for the message.
    """
    if not folder.is_dir():
        raise DataError(f"{name}: {folder} is no folder")
    found = sorted(path for path in folder.glob(pattern) if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"{name}: {folder} holds no image; looked for {pattern} with {', '.join(IMAGE_SUFFIXES)}")
    return found


def paired(images: Iterable[Path], label_of: Callable[[Path], Path], name: str) -> list[Pair]:
    """Each image with its label.

    Raises:
        DataError: an image has no label; the message counts them and names the first.
    """
    pairs = [(image, label_of(image)) for image in images]
    missing = [label for _, label in pairs if not label.is_file()]
    if missing:
        where = pairs[0][0].parent
        raise DataError(f"{name}: {len(missing)} of {len(pairs)} images in {where} have no label; the first one missing is {missing[0]}")
    return pairs


class PairedFiles:
    """One split made of image files with a label file each; a data set adds how it finds them and reads a label."""

    class_names: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    categories: tuple[str, ...] = ()

    def __init__(self, pairs: list[Pair]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def name_of(self, index: int) -> str:
        """Path of the frame's label, where most faults are."""
        return str(self._pairs[index][1])

    def files(self, index: int) -> Pair:
        """See `Source.files`."""
        return self._pairs[index]

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.decode`."""
        image, label = self._pairs[index]
        return read_image(image), self.read_label(label)

    def read_label(self, path: Path) -> np.ndarray:
        """Class indices (H, W), uint8, of a label file. Raises `DataError`."""
        return read_mask(path)


def read_image(path: Path) -> np.ndarray:
    """An image as RGB, (H, W, 3), uint8; of 16-bit grey the upper 8 bits.

    Raises:
        DataError: it cannot be read, or its pixels are of 32 bits, whose range nobody knows.
    """
    image = _open(path)
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[..., None], 3, 2)
    if image.mode in ("I", "F"):
        raise DataError(f"{path}: an image must have 8 or 16 bits a channel, found mode {image.mode!r} (32 bits)")
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """A mask of class indices, (H, W), uint8.

    Raises:
        DataError: it cannot be read, or holds something else: colours, or more than 8 bits.
    """
    image = _open(path)
    if image.mode not in ("L", "P"):
        what = "16 or more bits" if image.mode.startswith(("I", "F")) else "colours"
        raise DataError(f"{path}: a label must be an 8-bit image of class indices, found mode {image.mode!r} ({what})")
    return np.array(image, dtype=np.uint8)


def read_colours(path: Path, table: dict[tuple[int, int, int], int]) -> np.ndarray:
    """A mask of colours as class indices, (H, W), uint8.

    Args:
        path: of the mask.
        table: class index by RGB colour.

    Raises:
        DataError: it cannot be read, or holds a colour that is not in the table.
    """
    coloured = read_image(path).astype(np.int32)
    packed = (coloured[..., 0] << 16) | (coloured[..., 1] << 8) | coloured[..., 2]
    colours, where = np.unique(packed, return_inverse=True)
    known = {(r << 16) | (g << 8) | b: index for (r, g, b), index in table.items()}
    unknown = [int(colour) for colour in colours if int(colour) not in known]
    if unknown:
        rgb = tuple(unknown[0] >> shift & 255 for shift in (16, 8, 0))
        row, column = (int(axis[0]) for axis in np.nonzero(packed == unknown[0]))
        raise DataError(f"{path}: colour {rgb} at row {row}, column {column} is that of no class")
    indices = np.array([known[int(colour)] for colour in colours], dtype=np.uint8)
    found: np.ndarray = indices[where.reshape(packed.shape)]
    return found


def _open(path: Path) -> Image.Image:
    """A decoded image. Other formats are not even tried: Pillow has one that starts a program."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it is {image.width}x{image.height}, more than {MOST_PIXELS} pixels")
            image.load()
            return image
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: cannot be read as an image: it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise any error for a damaged file
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
