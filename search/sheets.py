"""A contact sheet of a data set: frames spread over a split, each beside its label in colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lpsnet.data.frames import IGNORE_INDEX, DataError, Source
from lpsnet.errors import UserError

SHOWN, ACROSS, WIDTH = 12, 3, 240


def check_sheet(path: Path) -> None:
    """Raise `UserError` where no contact sheet can be written to `path`."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--sheet names a PNG, got {path}")
    if not path.parent.is_dir():
        raise UserError(f"--sheet {path}: there is no folder {path.parent}; make it first")


def draw_sheet(source: Source, path: Path) -> None:
    """Draw frames of a split that can be read, image and label side by side, ignored pixels black.

    Raises:
        UserError: the path cannot be written, or no frame can be read.
    """
    tiles = []
    for index in np.linspace(0, len(source) - 1, min(SHOWN, len(source))).astype(int):
        try:
            tiles.append(_tile(source, int(index)))
        except DataError:
            continue
    if not tiles:
        raise UserError("no frame could be read for the contact sheet")
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    sheet = Image.new("RGB", (ACROSS * (width + 8) + 8, -(-len(tiles) // ACROSS) * (height + 8) + 8), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (8 + number % ACROSS * (width + 8), 8 + number // ACROSS * (height + 8)))
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def _tile(source: Source, index: int) -> Image.Image:
    image, label = source.decode(index)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(source.colours)] = source.colours
    colours[IGNORE_INDEX] = 0
    size = (WIDTH, max(1, round(WIDTH * image.shape[0] / image.shape[1])))
    tile = Image.new("RGB", (2 * WIDTH, size[1] + 14), "white")
    tile.paste(Image.fromarray(image).resize(size), (0, 14))
    tile.paste(Image.fromarray(colours[label]).resize(size, Image.Resampling.NEAREST), (WIDTH, 14))
    ImageDraw.Draw(tile).text((2, 1), Path(source.name_of(index)).name, fill="black")
    return tile
