"""A run of many steps whose executor makes its answers up: `python -m tests.long_run FOLDER [STEPS]` leaves one to look at.

Stores, files and checkpoints are written by the real search; latencies and scores mean nothing, and all weights are those of a start.
"""

from __future__ import annotations

import dataclasses
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from latency.compare import in_turns
from latency.measurement import Environment, Measurement
from lpsnet.architecture import Architecture
from lpsnet.data.synthetic import CLASS_NAMES
from lpsnet.errors import TrainingFailed
from lpsnet.metrics import Scores
from lpsnet.network import LPSNet
from lpsnet.recipe import proxy_recipe
from lpsnet.training import Trained
from search import SearchConfig
from search.executor import conditions, subject
from search.observer import Observer
from search.pool import Ended
from search.proxy import TrainJob
from search.run import Run
from search.runner import advance

HERE = Environment(device="Made-up CPU", cores=2, driver="", versions={"onnxruntime": "1.31.1", "torch": "2.13.0"})
SAMPLES = 60


def long_config(steps: int, **changes: object) -> SearchConfig:
    """The search of a made-up run: latencies within 1 % are run in turns."""
    values = {"data": "synthetic", "height": 32, "width": 64, "steps": steps, "proxy": proxy_recipe(400), "noise": 0.01}
    return SearchConfig(**{**values, **changes})  # type: ignore[arg-type]


class MadeUp:
    """An executor whose answers are functions of the network.

    Args:
        config: the search.
        classes: how many.
        failure: what a failed training says.
    """

    def __init__(self, config: SearchConfig, classes: int, failure: str = "the loss is nan at iteration 7") -> None:
        self._config, self._classes, self._failure = config, classes, failure

    def measure(self, architecture: Architecture, boundary: str | None = None) -> Measurement:
        draw = random.Random(f"{boundary} {architecture}")
        middle = latency(architecture) * (1.6 if boundary == "labels" else 1.0)
        wide = 0.2 if draw.random() < 0.1 else 0.02
        samples = [middle * math.exp(abs(draw.gauss(0, wide))) for _ in range(SAMPLES)]
        return self._row(subject(architecture, self._classes), samples, boundary)

    def compare(self, first: Architecture, second: Architecture) -> Measurement:
        samples = [[latency(one) * (1 + 0.001 * turn) for turn in range(12)] for one in (first, second)]
        row = self._row(in_turns(subject(first, self._classes), subject(second, self._classes)), samples[0], None)
        return dataclasses.replace(row, found={"second_ms": samples[1], "reason": "near"})

    def _row(self, name: str, samples: Sequence[float], boundary: str | None) -> Measurement:
        return Measurement(
            subject=name,
            conditions=conditions(self._config, boundary),
            environment=HERE,
            samples_ms=tuple(samples),
            clock="perf_counter",
            warmup_runs=3,
            load_s=0.1,
            created="2026-01-01T00:00:00+00:00",
        )

    def holds(self, name: str, boundary: str) -> bool:
        return False

    def train(self, jobs: Sequence[TrainJob], on_start: Callable[[TrainJob], None], on_wait: Callable[[int], None]) -> Iterator[Ended]:
        for job in jobs:
            on_start(job)
            draw = random.Random(f"training {job.architecture}")
            if draw.random() < 0.05 and job.architecture != self._config.start_architecture:
                yield Ended(job, TrainingFailed(self._failure), 3.0)
                continue
            miou = 30 + 14 * math.log10(1 + 8 * latency(job.architecture)) + draw.gauss(0, 1.0)
            classes = [max(0.0, miou + draw.gauss(0, 15)) for _ in range(self._classes - 1)]
            scores = Scores(miou_percent=miou, class_iou_percent=(*classes, None), pixel_accuracy_percent=90.0)
            network = LPSNet(self._config.start_architecture, self._classes, deployed=True)  # small, whatever was asked for
            yield Ended(job, Trained(network=network, scores=scores, curve=((200, 1.5), (400, 1.25))), 20 * latency(job.architecture))


def latency(architecture: Architecture) -> float:
    """Milliseconds that grow with the network."""
    work = sum(b * (c / 8) ** 1.4 for b, c in zip(architecture.depths, architecture.widths, strict=True))
    size = sum((scale / 4) ** 2 for scale in architecture.scales)
    return (0.3 + work / 60) * size * random.Random(str(architecture)).uniform(0.97, 1.03)


def make_long_run(
    folder: Path, steps: int, classes: tuple[str, ...] = CLASS_NAMES, failure: str = "the loss is nan at iteration 7"
) -> Path:
    """Write a run of so many steps; returns its folder."""
    config = long_config(steps)
    with patch("os.fsync"), Run.start(folder, config, classes, HERE) as run:  # nothing here need survive a crash, and it takes most time
        run.store._connection.execute("PRAGMA synchronous = OFF")
        executor = MadeUp(config, len(classes), failure)
        progress = advance(run, executor, Observer(), lambda so_far: None)  # type: ignore[arg-type]
    assert len(progress.steps) == steps + 1, progress.stopped
    return folder


if __name__ == "__main__":
    make_long_run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 14)
