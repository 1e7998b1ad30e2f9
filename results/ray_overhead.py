"""What Ray costs a candidate, and what a second worker is worth: `python results/ray_overhead.py [DATA]`, on a quiet machine.

A turn trains two candidates, each with one thread: the first in this process and on a Ray cluster of this machine, in changing order, then
the second on the cluster, then both there at once. Overhead: what Ray adds to a candidate beyond the seconds of its training. Speed-up: the
two one after the other over the two at once. `training_ratio` is the training itself there over here; it holds the noise of the machine.
Killed, the same command goes on: `ray.json` is written after every turn. Exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from latency.environment import available_cores
from latency.store import Store
from lpsnet.data import DataSpec, native_size
from lpsnet.recipe import proxy_recipe
from lpsnet.training import Trained
from search.config import SearchConfig
from search.executor import Executor, LocalExecutor
from search.observer import Observer
from search.proxy import TrainJob
from search.ray_executor import RayExecutor, RayPlan
from search.run import provenance, write_json
from search.space import OPERATIONS, expansion

PROXY_S, MOST_PERCENT, LEAST_SPEED_UP = 60.0, 2.0, 1.8
"""The proxy that the overhead is told for, and the targets."""


def timed(executor: Executor, *jobs: TrainJob) -> dict[str, Any]:
    """Train jobs: seconds until all results are here, seconds of the trainings themselves, and their scores."""
    start = time.perf_counter()
    ended = list(executor.train(jobs, lambda job: None, lambda running: None))
    whole_s = time.perf_counter() - start
    results = [one.result for one in ended]
    assert all(isinstance(result, Trained) for result in results), results
    scores = sorted(result.scores.miou_percent for result in results if isinstance(result, Trained))
    return {"whole_s": round(whole_s, 3), "training_s": [round(one.seconds, 3) for one in ended], "miou_percent": scores}


def one_turn(here: Executor, there: Executor, first: TrainJob, second: TrainJob) -> dict[str, Any]:
    """See the head of this file."""
    order = [("local", here), ("ray", there)]
    alone = {name: timed(executor, first) for name, executor in (order if first.seed % 4 else order[::-1])}
    found = {**alone, "ray_second": timed(there, second), "ray_both": timed(there, first, second), "load": round(os.getloadavg()[0], 1)}
    assert alone["local"]["miou_percent"] == alone["ray"]["miou_percent"], "a training on Ray gave another network"
    return found


def figures(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the turns, held against the targets."""

    def beyond(turn: dict[str, Any], name: str) -> float:
        return float(turn[name]["whole_s"] - turn[name]["training_s"][0])

    overhead = statistics.median(beyond(turn, "ray") - beyond(turn, "local") for turn in turns)
    ratio = statistics.median(turn["ray"]["training_s"][0] / turn["local"]["training_s"][0] for turn in turns)
    speed_up = statistics.median((turn["ray"]["whole_s"] + turn["ray_second"]["whole_s"]) / turn["ray_both"]["whole_s"] for turn in turns)
    percent = 100 * overhead / PROXY_S
    told = {"overhead_s": round(overhead, 3), "overhead_percent": round(percent, 2), "training_ratio": round(ratio, 3)}
    targets = {"most_percent": MOST_PERCENT, "of_s": PROXY_S, "least_speed_up": LEAST_SPEED_UP}
    return {**told, "speed_up": round(speed_up, 2), **targets, "met": percent <= MOST_PERCENT and speed_up >= LEAST_SPEED_UP}


def warm(executor: Executor, jobs: list[TrainJob], folder: Path) -> None:
    """Have every worker begin its process and take its data, with a training of two iterations."""
    short = [replace(job, rung=2, state=folder / f"{job.seed}.pt") for job in jobs]
    timed(executor, *short)
    for job in short:
        if job.state:
            job.state.unlink()


def main() -> int:
    """Measure, write and print; returns the exit code."""
    parser = argparse.ArgumentParser(description="Overhead of Ray, and worth of a second worker.")
    parser.add_argument("data", nargs="?", default="synthetic")
    parser.add_argument("--iterations", type=int, default=400, help="of a training: enough for about a minute")
    parser.add_argument("--input", default="", help="HEIGHTxWIDTH; default: the data set's own")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "ray.json")
    given = parser.parse_args()
    spec = DataSpec.parse(given.data)
    height, width = (int(part) for part in given.input.split("x")) if given.input else native_size(spec)
    config = SearchConfig(data=str(spec), height=height, width=width, threads=1, proxy=proxy_recipe(given.iterations))
    network = expansion(config.start_architecture, OPERATIONS[6], 1)
    settings = {"config": config.to_dict(), "network": str(network), "cores": available_cores()}
    known = json.loads(given.out.read_text()) if given.out.exists() else {"turns": []}
    if known.get("settings", settings) != settings:
        sys.exit(f"{given.out} was measured with other settings; name another --out")
    jobs = [TrainJob(architecture=network, seed=seed) for seed in range(2 * given.turns)]
    observer = Observer()
    with tempfile.TemporaryDirectory() as folder, closing(RayExecutor(config, RayPlan(), observer)) as there:
        here = LocalExecutor(config, Store(Path(folder) / "unused.sqlite"), observer)
        for executor in (here, there):
            warm(executor, jobs[:2], Path(folder))
        for turn in range(len(known["turns"]), given.turns):
            known["turns"].append(one_turn(here, there, *jobs[2 * turn : 2 * turn + 2]))
            known = {**provenance(), "settings": settings, **figures(known["turns"]), "turns": known["turns"]}
            write_json(given.out, known)
            print(json.dumps({name: value for name, value in known.items() if name not in ("settings", "turns")}), flush=True)
    return 0 if known["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
