"""Puts a finished training where `lpsnet.load` finds it by name: `python results/ship.py trained/s LPS-Net-S`.

Writes `results/checkpoints/NAME.safetensors` (deployed form, half precision, no file over 14 MiB), its model card, learning curve and
scores a class. What it scores in that form is told by `lps-search evaluate NAME --data ...`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lpsnet.architecture import Architecture
from lpsnet.checkpoint import checkpoint_folder, load, read_metadata, save
from search.cards import write_card

MAX_BYTES = 14 * 2**20


def ship(folder: Path, name: str) -> list[Path]:
    """The files written for a training."""
    source = folder / f"{Architecture.parse(name)}.safetensors"
    told, out = read_metadata(source), checkpoint_folder()
    files = save(
        out / f"{name}.safetensors",
        load(source).deploy(),
        class_names=told.class_names,
        input_size=told.input_size,
        recipe=told.recipe,
        metrics=told.metrics,
        colours=told.colours,
        licence=told.licence,
        provenance=told.provenance,
        half=True,
        max_bytes=MAX_BYTES,
    )
    write_card(files[0], out / f"{name}.md")
    for kind in ("curve.csv", "curve.png", "classes.csv", "confusion.png", "scores.json"):
        shutil.copy(folder / kind, out / f"{name}_{kind}")
    return files


if __name__ == "__main__":
    for path in ship(Path(sys.argv[1]), sys.argv[2]):
        print(path, path.stat().st_size)
