"""What a search of 14 steps on Cityscapes would take with 1, 8 and 64 workers: `python results/scale_model.py RUN`.

Measured: seconds of the trainings in `results/proxy` and of the latencies in RUN, a search on CamVid whose workers are a CPU core each.
Assumed: a training's time has a part that goes with the multiply-adds of its network and one that goes with the pixels it sees (reading,
augmentation, loss); the candidates of a step cost what the network of that step in the paper's Table 4 costs; latencies are taken on one
device, before the trainings of their step, and what they take hardly grows with the network; a worker trains one candidate. No GPU has
been measured: `speed` is how many times as fast as the core a worker trains, and its rows other than 1 are arithmetic, not measurements.
Writes `results/scale/model.csv` and, with the fit, `model.json`.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np

from latency.measurement import Measurement
from lpsnet.architecture import TABLE_4, Architecture
from lpsnet.complexity import complexity
from search.files import grown_rows
from search.run import Run, provenance

RESULTS = Path(__file__).parent
SETTING, ITERATIONS, BATCH = "identity-rate2-200", 200, 4
CAMVID, CITYSCAPES = (360, 480), (1024, 2048)
CAMVID_VALIDATION, CITYSCAPES_VALIDATION = 101, 500
TRAININGS_A_STEP = 10
"""Nine candidates and about one second seed, as in the search of four steps."""


def work(network: Architecture, classes: int, size: tuple[int, int], validation: int) -> float:
    """Multiply-adds in billions of a training: a backward pass counts as two forward passes."""
    return complexity(network, classes, size).macs / 1e9 * (3 * ITERATIONS * BATCH + validation)


def trained() -> tuple[float, float]:
    """Seconds of a training on a core that do not go with the network, and seconds a billion multiply-adds, by least squares."""
    rows = [row for row in grown_rows(RESULTS / "proxy" / "trainings.csv") if row["setting"] == SETTING]
    done = np.array([work(Architecture.parse(row["architecture"]), 11, CAMVID, CAMVID_VALIDATION) for row in rows])
    seconds = np.array([float(row["seconds"]) for row in rows])
    slope, fixed = np.polyfit(done, seconds, 1)
    return max(0.0, float(fixed)), float(slope)


def measured(folder: Path) -> tuple[float, float]:
    """Latencies a step, and mean seconds of one, without its export, in a run."""
    with Run.read(folder) as run:
        found = run.store.all()
        return len(found) / run.config.steps, float(np.mean([_seconds(one) for one in found]))


def _seconds(one: Measurement) -> float:
    return one.load_s + one.conditions.plan.warmup_s + sum(one.samples_ms) / 1e3


def row(workers: int, speed: float, fixed: float, slope: float, latencies: float, latency_s: float) -> dict[str, object]:
    """Hours of a search of 14 steps."""
    rounds, turns = TRAININGS_A_STEP / workers, math.ceil(TRAININGS_A_STEP / workers)
    pixels = math.prod(CITYSCAPES) / math.prod(CAMVID)
    costs = [(fixed * pixels + slope * work(network, 19, CITYSCAPES, CITYSCAPES_VALIDATION)) / speed for network in TABLE_4[1:15]]
    training_h, waiting_h = turns * sum(costs) / 3600, 14 * latencies * latency_s / 3600
    one_h = TRAININGS_A_STEP * sum(costs) / 3600 + waiting_h
    told = {
        "training_h": training_h,
        "latency_h": waiting_h,
        "total_h": training_h + waiting_h,
        "speedup": one_h / (training_h + waiting_h),
    }
    return {"workers": workers, "speed": speed, **{name: f"{value:.4g}" for name, value in told.items()}, "busy": f"{rounds / turns:.2f}"}


def main(folder: Path) -> None:
    """Fit, multiply, write."""
    (fixed, slope), (latencies, latency_s) = trained(), measured(folder)
    rows = [row(workers, speed, fixed, slope, latencies, latency_s) for speed in (1.0, 100.0, 1000.0) for workers in (1, 8, 64)]
    (RESULTS / "scale").mkdir(exist_ok=True)
    with (RESULTS / "scale" / "model.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    fitted = {"fixed_s": fixed, "seconds_a_billion_macs": slope, "latencies_a_step": latencies, "seconds_a_latency": latency_s}
    (RESULTS / "scale" / "model.json").write_text(json.dumps({**fitted, **provenance()}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
