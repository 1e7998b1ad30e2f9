"""What precision and compiling are worth in training: `python results/training_speed.py camvid:data/camvid`, on a quiet machine.

Images a second of N0 and LPS-Net-S by the recipe `camvid`: lanes in turns, three times (compiled once, it takes minutes), each
`lps-search bench-data` in a process of its own, so that a lane that crashes is a row; the median of each and its ratio to single precision.
Writes `results/recipe/training_speed.csv`.
"""

from __future__ import annotations

import csv
import json
import signal
import statistics
import subprocess
import sys
from pathlib import Path

NETWORKS, LANES, TURNS, ITERATIONS = ("N0", "LPS-Net-S"), (("fp32", "off"), ("bf16", "off"), ("bf16", "default")), 3, "8"


def speed(data: str, network: str, precision: str, compiler: str) -> float | str:
    """Images a second with frames loaded beside it, or what ended the process."""
    lane = ["--precision", precision, "--compile", compiler]
    given = ["--data", data, "--architecture", network, "--iterations", ITERATIONS, *lane, "--json"]
    ended = subprocess.run([sys.executable, "-m", "search", "bench-data", *given], capture_output=True, text=True, check=False)
    if ended.returncode < 0:
        return signal.Signals(-ended.returncode).name
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or ["failed"])[-1]
    return float(json.loads(ended.stdout)["both"])


def main(data: str) -> None:
    """Measure and write."""
    rows = []
    for network in NETWORKS:
        found: dict[tuple[str, str], list[float | str]] = {lane: [] for lane in LANES}
        for turn in range(TURNS):
            for lane in LANES if turn == 0 else LANES[:2]:
                found[lane].append(speed(data, network, *lane))
        plain = statistics.median(value for value in found[LANES[0]] if isinstance(value, float))
        for (precision, compiler), speeds in found.items():
            measured = [value for value in speeds if isinstance(value, float)]
            failed = next((value for value in speeds if isinstance(value, str)), "")
            median = statistics.median(measured) if measured else None
            figures = ("", "") if median is None else (f"{median:.2f}", f"{median / plain:.2f}")
            rows.append((network, precision, compiler, *figures, failed))
            print(*rows[-1], flush=True)
    with (Path(__file__).parent / "recipe" / "training_speed.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("network", "precision", "compile", "images_per_s", "ratio", "failure"))
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1])
