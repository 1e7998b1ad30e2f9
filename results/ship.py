"""Puts a finished training where `lpsnet.load` finds it by name: `python results/ship.py trained/s LPS-Net-S-train`.

The plain name is for a network trained on train and val, `-train` for the one that the figures on val come from.

Writes `results/checkpoints/NAME.safetensors` (deployed form, half precision, no file over 14 MiB), its model card, learning curve and
scores a class, and `iou.csv` over all of them. What it scores in that form is told by `lps-search evaluate NAME --data ...`.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

from lpsnet.architecture import Architecture
from lpsnet.checkpoint import TRAIN_ONLY, checkpoint_folder, load, read_metadata, save
from search.cards import write_card

MAX_BYTES = 14 * 2**20


def ship(folder: Path, name: str) -> list[Path]:
    """The files written for a training."""
    source = folder / f"{Architecture.parse(name.removesuffix(TRAIN_ONLY))}.safetensors"
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


def gather() -> None:
    """Write `iou.csv`: IoU a class, and the mean, of every shipped network that has not seen the validation split."""
    folder = checkpoint_folder()
    tables = {path.name.removesuffix("_scores.json"): json.loads(path.read_text()) for path in folder.glob(f"*{TRAIN_ONLY}_scores.json")}
    rows: dict[str, dict[str, str]] = {}
    for name, scores in sorted(tables.items(), key=lambda item: item[1]["miou_percent"]):
        for label, iou in zip(read_metadata(folder / f"{name}.safetensors").class_names, scores["class_iou_percent"], strict=True):
            rows.setdefault(label, {})[name] = f"{iou:.2f}"
        rows.setdefault("mean", {})[name] = f"{scores['miou_percent']:.2f}"
    mean = rows.pop("mean")
    with (folder / "iou.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["class", *mean], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"class": label, **values} for label, values in [*rows.items(), ("mean", mean)])


if __name__ == "__main__":
    for path in ship(Path(sys.argv[1]), sys.argv[2]):
        print(path, path.stat().st_size)
    gather()
