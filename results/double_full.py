"""Does a training twice as long keep the order of the full one? `python results/double_full.py RUN camvid:data/camvid`.

Trains some candidates of RUN's first step, and their parent, for 6000 iterations into `results/proxy/trainings.csv`, where a killed call
goes on, and writes `results/proxy/doubling.csv`: their mIoU after 3000 and 6000 iterations, of the same seed.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from latency.environment import available_cores
from search.cli.console import Live
from search.pool import Pool
from search.proxy_study import FULL_SEED, base_config
from search.run import Run
from search.training_table import Setting, Task, open_table, train_tasks

OUT = Path(__file__).parent / "proxy"
RECIPE = ("optimizer=adamw", "learning_rate=2e-3", "weight_decay=1e-2", "class_weighting=log")
FULL, DOUBLED = Setting(iterations=3000), Setting(iterations=6000)
NETWORKS = (
    "B1-1-1-1-1_C4-8-16-32-32_R4",  # the parent
    "B1-1-1-1-1_C4-8-16-32-32_R6",
    "B1-1-1-1-1_C4-8-16-32-32_R4-3",
    "B1-1-1-1-1_C4-32-64-128-128_R4",
    "B1-1-1-11-11_C4-8-16-32-32_R4",
)
"""One of each dimension, from the worst of the step to the best."""


def main(folder: Path, data: str) -> None:
    """Train what is missing, then write the table."""
    with Run.read(folder) as run:
        config = run.config
    base = base_config(config, RECIPE, data=data, precision="bf16", parallel=2, threads=available_cores())
    table, pool = open_table(OUT, base), Pool(base.parallel)
    try:
        with Live() as live:
            train_tasks(table, [Task(architecture=name, setting=DOUBLED.name, seed=FULL_SEED) for name in NETWORKS], base, pool, live)
    finally:
        pool.close()
    with (OUT / "doubling.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["architecture", "miou_3000", "miou_6000", "gain_3000", "gain_6000"])
        for name in NETWORKS:
            found = [table.score(name, setting.name, FULL_SEED) for setting in (FULL, DOUBLED)]
            parent = [table.score(NETWORKS[0], setting.name, FULL_SEED) for setting in (FULL, DOUBLED)]
            gains = ["-" if None in pair else f"{pair[0] - pair[1]:.2f}" for pair in zip(found, parent, strict=True)]  # type: ignore[operator]
            writer.writerow([name, *("-" if score is None else f"{score:.2f}" for score in found), *gains])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
