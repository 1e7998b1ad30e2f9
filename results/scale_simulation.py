"""A search of 10 000 candidates, simulated: does its record stay quick to add to, to go on from and to report?

`python results/scale_simulation.py` writes `results/scale/simulation.csv`, `.png` (growth) and `.json` (the commands at the end).
Latencies and scores are made up (`tests/long_run.py`), and a training is a moment's sleep on one of a hundred worker threads; stores,
studies, files and the report are the product's own. A row's seconds are those of this machine, whatever else it did.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

from lpsnet.data.synthetic import CLASS_NAMES
from search.config import SearchConfig
from search.files import csv_text, new_figure
from search.observer import Observer
from search.pool import Ended
from search.proxy import TrainJob
from search.report import write_report
from search.run import Run, provenance
from search.runner import Progress, advance, replay
from search.space import Bounds
from tests.long_run import HERE, MadeUp, long_config

OUT = Path(__file__).parent / "scale"
WORKERS, EVERY = 100, 1000
PROXY_S = 60.0
"""A training that the driver's own time is held against."""

BOUNDS = Bounds(max_scale=1.0, max_width=10**7, max_depth=32, max_paths=2)
"""Widths may grow on and on, so that the chain is as long as it takes."""


class Crowd(MadeUp):
    """Answers are made up, but each by a worker thread, after a sleep."""

    def __init__(self, config: SearchConfig, workers: ThreadPoolExecutor) -> None:
        super().__init__(config, len(CLASS_NAMES))
        self._workers = workers
        self.slept_s = 0.0

    def train(self, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
        """See `Executor.train`: what ends first comes first."""
        answers = {ended.job: ended for ended in super().train(jobs, on_start, on_wait)}
        begun = time.perf_counter()
        for done in as_completed([self._workers.submit(_sleep, job) for job in jobs]):
            self.slept_s, begun = self.slept_s + time.perf_counter() - begun, time.perf_counter()
            yield answers[done.result()]
            begun = time.perf_counter()


def _sleep(job: TrainJob) -> TrainJob:
    time.sleep(random.Random(str(job)).uniform(0.001, 0.01))
    return job


def simulate(folder: Path, candidates: int) -> list[dict[str, float]]:
    """Drive a search until it has so many candidates; a row each thousand of them."""
    rows: list[dict[str, float]] = []
    config = long_config(candidates, bounds=BOUNDS)
    with ThreadPoolExecutor(WORKERS) as workers, Run.start(folder, config, CLASS_NAMES, HERE) as run:
        executor = Crowd(config, workers)
        mark = {"at": time.perf_counter(), "cpu": time.process_time(), "count": 0, "slept": 0.0}

        def look(progress: Progress) -> None:
            count = sum(len(step.trials) for step in progress.steps)
            if count < mark["count"] + EVERY and count < candidates:
                return
            seconds = time.perf_counter() - mark["at"] - (executor.slept_s - mark["slept"])
            cpu, done = time.process_time() - mark["cpu"], count - mark["count"]
            row = {"candidates": count, "steps": len(progress.steps), "driver_ms": 1e3 * seconds / done, "driver_cpu_ms": 1e3 * cpu / done}
            row |= {"replay_s": _timed(lambda: _replayed(folder)), "files_s": _timed(lambda: write_report(run, progress.steps))}
            rows.append({**row, "study_mb": _size(folder, "study.journal"), "latencies_mb": _size(folder, "latency.sqlite")})
            print(json.dumps(rows[-1]), flush=True)
            if count >= candidates:
                raise _Enough
            mark.update(at=time.perf_counter(), cpu=time.process_time(), count=count, slept=executor.slept_s)

        with suppress(_Enough):
            advance(run, executor, Observer(), look)  # type: ignore[arg-type]
    return rows


class _Enough(Exception):
    """The search has as many candidates as were asked for."""


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _replayed(folder: Path) -> None:
    with Run.read(folder) as run:
        replay(run)


def _size(folder: Path, name: str) -> float:
    return (folder / name).stat().st_size / 1e6


def _command(*arguments: str) -> dict[str, Any]:
    """Seconds of a command, and what it prints as JSON."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "search", *arguments], capture_output=True, text=True, check=True)
    return {"command_s": round(time.perf_counter() - start, 1), "told": done.stdout}


def draw(rows: list[dict[str, float]]) -> None:
    """Growth of each cost over the candidates."""
    figure = new_figure(9, 3.2)
    for number, (name, label) in enumerate(
        (
            ("driver_ms", "driver's own time a candidate (ms)"),
            ("replay_s", "going on from the stores (s)"),
            ("files_s", "derived files (s)"),
        )
    ):
        axes = figure.add_subplot(1, 3, number + 1)
        axes.plot([row["candidates"] for row in rows], [row[name] for row in rows], marker="o", markersize=3)
        axes.set(xlabel="candidates", title=label, ylim=(0, None))
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
    figure.savefig(OUT / "simulation.png")


def main(candidates: int) -> None:
    """Simulate, time the commands at the end, write."""
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        rows = simulate(run, candidates)
        (OUT / "simulation.csv").write_text(csv_text(rows))
        draw(rows)
        report = _command("report", str(run), "--out", str(Path(folder) / "report"), "--json")
        commands = {"report": report["command_s"], "watch": _command("watch", str(run), "--once")["command_s"]}
        size = json.loads(report["told"])["bytes"]
    share = WORKERS * rows[-1]["driver_ms"] / 1e3 / PROXY_S
    told = {
        "workers": WORKERS,
        "driver_share_at_60_s_a_training": round(share, 4),
        "command_s": commands,
        "report_mb": round(size / 1e6, 1),
    }
    told |= {"load": round(os.getloadavg()[0], 1), **provenance()}
    (OUT / "simulation.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
