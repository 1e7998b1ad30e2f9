"""Any images with masks of class indices, told by a `dataset.yaml` in their folder.

    classes:                      # in the order of the mask's values
      - {name: floor, colour: [90, 90, 90]}
      - {name: pallet}            # colours and categories may be left out
    ignore: 255                   # values of the mask that do not count, one or a list; default 255
    size: [720, 1280]             # height, width of the network's input; default: the first image's own
    images: images/{split}        # default
    masks: masks/{split}          # default; a mask has its image's stem and ends in .png

YAML is read as plain values: nothing in it is executed.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lpsnet.data import MOST_CLASSES
from lpsnet.data.files import PairedFiles, images_in, paired, read_image, read_mask
from lpsnet.data.frames import IGNORE_INDEX, DataError

DESCRIPTION = "dataset.yaml"
MOST_TEXT = 100_000
_KEYS = {"classes", "ignore", "size", "images", "masks"}


@dataclass(frozen=True)
class Description:
    """What `dataset.yaml` says, checked."""

    class_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...]
    ignore: tuple[int, ...]
    size: tuple[int, int] | None
    images: str
    masks: str


class Folder(PairedFiles):
    """One split of the data set below `root`.

    Raises:
        DataError: no description or a wrong one, a folder is missing, the split is empty, or an image has no mask.
    """

    def __init__(self, root: Path, split: str) -> None:
        told = read_description(root)
        self.class_names, self.colours, self.categories = told.class_names, told.colours, told.categories
        self._ignore = [value for value in told.ignore if value != IGNORE_INDEX]
        masks = root / told.masks.format(split=split)
        images = images_in(root / told.images.format(split=split), "folder")
        super().__init__(paired(images, lambda image: masks / f"{image.stem}.png", "folder"))

    def read_label(self, path: Path) -> np.ndarray:
        """See `PairedFiles.read_label`."""
        label = read_mask(path)
        label[np.isin(label, self._ignore)] = IGNORE_INDEX
        return label


def native_size(root: Path) -> tuple[int, int]:
    """The input size (height, width): that of the description, else that of the first training image."""
    told = read_description(root)
    if told.size:
        return told.size
    first = images_in(root / told.images.format(split="train"), "folder")[0]
    height, width = read_image(first).shape[:2]
    return height, width


@cache
def read_description(root: Path) -> Description:
    """The description in a folder.

    Raises:
        DataError: there is none, or something in it is wrong; the message says what, and what would be right.
    """
    path = root / DESCRIPTION
    try:
        text = path.read_text()
        if len(text) > MOST_TEXT:
            raise DataError(f"{path} has {len(text)} letters, more than the {MOST_TEXT} of any description")
        values = yaml.load(text, _Plain)
    except OSError as error:
        raise DataError(
            f"folder: {path} cannot be read ({error.strerror}); it names the classes, for example: classes: [{{name: road}}]"
        ) from None
    except DataError:
        raise
    except Exception as error:  # PyYAML's own, and whatever its constructors raise for a date or number that is none
        raise DataError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not isinstance(values.get("classes"), list):
        raise DataError(f"{path} must hold a list named classes, each with a name, such as classes: [{{name: road}}]")
    try:
        if unknown := set(map(str, values)) - _KEYS:
            raise ValueError(f"it holds {', '.join(sorted(unknown))}; there are: {', '.join(sorted(_KEYS))}")
        return _checked(values)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: {error}") from error


class _Plain(yaml.SafeLoader):
    """Plain values only, each written out: a name for a value, used again and again, makes a short text an endless one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(problem="a value is not repeated by *NAME here; write it out")
        return super().compose_node(parent, index)


def _checked(values: dict[str, Any]) -> Description:
    rows = values["classes"]
    if not 1 <= len(rows) <= MOST_CLASSES:
        raise ValueError(f"there must be 1 to {MOST_CLASSES} classes, got {len(rows)}")
    names, colours, categories = [], [], []
    for index, row in enumerate(rows):
        row = {"name": row} if isinstance(row, str) else row
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"]:
            raise ValueError(f"class {index} has no name: {row!r}; write {{name: road, colour: [128, 64, 128]}}")
        names.append(row["name"])
        colours.append(_colour(row.get("colour", default_colour(index)), row["name"]))
        categories.append(str(row.get("category", "")))
    if odd := [name for name in names if not name.isprintable()]:
        raise ValueError(f"a name is made of letters that can be printed, got {odd[0]!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"two classes have one name: {next(name for name in names if names.count(name) > 1)!r}")
    ignore = values.get("ignore", IGNORE_INDEX)
    ignored = tuple(ignore) if isinstance(ignore, list) else (ignore,)
    for value in ignored:
        if not isinstance(value, int) or not len(names) <= value <= 255:
            raise ValueError(f"ignore must lie beyond the classes' indices, {len(names)} to 255, got {value!r}")
    size = values.get("size")
    if size is not None and (not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size)):
        raise ValueError(f"size must be [height, width] in pixels, got {size!r}")
    places = []
    for key in ("images", "masks"):
        place = values.get(key, f"{key}/{{split}}")
        parts = Path(str(place)).parts
        if not isinstance(place, str) or "{split}" not in place or ".." in parts or Path(place).is_absolute():
            raise ValueError(f"{key} must be a folder below this one with {{split}} in its name, such as {key}/{{split}}, got {place!r}")
        if place.replace("{split}", "").count("{") or place.replace("{split}", "").count("}"):
            raise ValueError(f"{key} may hold no braces but {{split}}, got {place!r}")
        places.append(place)
    category = tuple(categories) if any(categories) else ()
    return Description(tuple(names), tuple(colours), category, ignored, tuple(size) if size else None, *places)


def _colour(value: Any, name: str) -> tuple[int, int, int]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in value):
        raise ValueError(f"the colour of {name!r} must be three numbers from 0 to 255, got {value!r}")
    red, green, blue = value
    return red, green, blue


def default_colour(index: int) -> tuple[int, int, int]:
    """A colour for the class of that index, far from those of its neighbours."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65, 0.95 - 0.35 * (index % 3) / 2)
    return round(255 * red), round(255 * green), round(255 * blue)
