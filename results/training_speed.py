"""What precision and compiling are worth in training: `python results/training_speed.py camvid:data/camvid`, on a quiet machine.

Images a second of N0 and LPS-Net-S by the recipe `camvid`: lanes in turns, three times (compiled once, it takes minutes), the
median of each and its ratio to single precision.
Writes `results/recipe/training_speed.csv`.
"""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path

from lpsnet.parallel import lane_for
from lpsnet.recipe import named_recipe
from search.data_bench import bench_data
from search.observer import Observer

NETWORKS, LANES, TURNS, ITERATIONS = ("N0", "LPS-Net-S"), (("fp32", "off"), ("bf16", "off"), ("bf16", "default")), 3, 8


def main(data: str, device: str) -> None:
    """Measure and write."""
    rows = []
    for network in NETWORKS:
        found: dict[tuple[str, str], list[float]] = {lane: [] for lane in LANES}
        for turn in range(TURNS):
            for lane in LANES if turn == 0 else LANES[:2]:
                found[lane].append(bench_data(data, network, named_recipe("camvid"), ITERATIONS, lane_for(device, *lane), Observer()).both)
        plain = statistics.median(found[LANES[0]])
        for (precision, compiler), speeds in found.items():
            speed = statistics.median(speeds)
            rows.append((network, precision, compiler, f"{speed:.2f}", f"{speed / plain:.2f}"))
            print(*rows[-1], flush=True)
    with (Path(__file__).parent / "recipe" / "training_speed.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("network", "precision", "compile", "images_per_s", "ratio"))
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "cpu")
