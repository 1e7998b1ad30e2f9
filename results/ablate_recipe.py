"""Which additions to the recipe gain mIoU? Paired seeds, one change at a time: `python results/ablate_recipe.py camvid:data/camvid`.

A small network and few iterations: what helps here may not help a full training, and the other way round. Appends every training to
`results/recipe/trainings.csv`, where a killed call goes on, and writes `results/recipe/gains.csv`: mean gain over the plain recipe with
Student's 95 % interval, and whether that lies above 0, which is what a change needs to become a default.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from pathlib import Path

from lpsnet.architecture import Architecture
from lpsnet.data import DataSpec, native_size, open_split
from lpsnet.recipe import TrainRecipe, proxy_recipe
from lpsnet.training import train
from search.interval import mean_interval
from search.proxy import keep_freed_memory

TEACHER = Architecture.parse("B1-3-3-3-3_C8-24-48-96-96_R4-2")
NETWORK = Architecture.parse("B1-1-1-1-1_C8-16-32-64-64_R4")
PLAIN = "plain"
CHANGES: dict[str, dict[str, object]] = {
    PLAIN: {},
    "average of weights 0.98": {"ema_decay": 0.98},
    "class weights": {"class_weighting": "log"},
    "Dice 0.5": {"dice_weight": 0.5},
    "OHEM": {"loss": "ohem"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "cosine": {"schedule": "cosine"},
    "AdamW 0.002": {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
    "AdamW 0.002 and class weights": {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2, "class_weighting": "log"},
    "AdamW 0.002 and class weights for half of it": {
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "class_weighting": "log",
        "class_weighting_end": 0.5,
    },
    "distillation 1": {"distillation": 1.0},
    "stronger augmentation": {"scale_min": 0.5, "scale_max": 2.0, "jitter": 0.4},
}
OVER = {"AdamW 0.002 and class weights for half of it": "AdamW 0.002 and class weights"}
"""Changes also compared with what they add to."""

FIELDS = ("change", "seed", "iterations", "batch_size", "miou_percent", "seconds")
OUT = Path(__file__).parent / "recipe"


def known() -> list[dict[str, str]]:
    """The trainings that are done."""
    path = OUT / "trainings.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def recipe_of(change: str, iterations: int, batch_size: int) -> TrainRecipe:
    """The plain recipe with one change."""
    return dataclasses.replace(proxy_recipe(iterations), batch_size=batch_size, **CHANGES[change])  # type: ignore[arg-type]


def run(data: str, iterations: int, batch_size: int, seeds: int, changes: list[str]) -> None:
    """Train what is not trained yet, a seed at a time, so that a call cut short leaves whole seeds."""
    keep_freed_memory()
    spec = DataSpec.parse(data)
    training, validation = (open_split(spec, split, native_size(spec)) for split in ("train", "val"))
    done = {(row["change"], row["seed"], row["iterations"], row["batch_size"]) for row in known()}
    OUT.mkdir(exist_ok=True)
    for seed in range(seeds):
        for change in changes:
            if (change, str(seed), str(iterations), str(batch_size)) in done:
                continue
            start, recipe, teacher = time.perf_counter(), recipe_of(change, iterations, batch_size), None
            if recipe.distillation:
                teacher = train(TEACHER, training, validation, recipe_of(PLAIN, iterations, batch_size), seed=seed).network
            found = train(NETWORK, training, validation, recipe, seed=seed, teacher=teacher).scores.miou_percent
            row = (change, seed, iterations, batch_size, f"{found:.4f}", f"{time.perf_counter() - start:.1f}")
            fresh = not (OUT / "trainings.csv").exists()
            with (OUT / "trainings.csv").open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if fresh:
                    writer.writerow(FIELDS)
                writer.writerow(row)
            print(*row, flush=True)


def gains(iterations: int, batch_size: int) -> list[dict[str, object]]:
    """Gain of each change over the plain recipe, or over that of `OVER`, paired by seed, with its interval."""
    scores: dict[str, dict[str, float]] = {}
    for row in known():
        if (row["iterations"], row["batch_size"]) == (str(iterations), str(batch_size)):
            scores.setdefault(row["change"], {})[row["seed"]] = float(row["miou_percent"])
    found = []
    for change, over in [*((change, PLAIN) for change in list(CHANGES)[1:]), *OVER.items()]:
        without = scores.get(over, {})
        pairs = [score - without[seed] for seed, score in scores.get(change, {}).items() if seed in without]
        if len(pairs) > 1:
            gain, low, high = mean_interval(pairs)
            row = {
                "change": change,
                "over": over,
                "seeds": len(pairs),
                "gain": f"{gain:+.2f}",
                "low": f"{low:+.2f}",
                "high": f"{high:+.2f}",
            }
            found.append({**row, "gains": low > 0})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--changes", default=",".join(CHANGES), help="those to train, comma-separated")
    given = parser.parse_args()
    run(given.data, given.iterations, given.batch, given.seeds, given.changes.split(","))
    rows = gains(given.iterations, given.batch)
    with (OUT / "gains.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values())
