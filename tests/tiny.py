"""A search small enough for a test: real training of seconds in all, latency answered from a store filled beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latency import Measurement, Store, TimingPlan
from lpsnet import NAMED, Architecture
from lpsnet.recipe import TrainRecipe
from search import OPERATIONS, Bounds, SearchConfig, expansion
from search.executor import conditions, current_environment, subject

TINY_TRAINING = ("--set=iterations=3", "--set=batch_size=2", "--threads", "1", "--device", "cpu")
"""Options of `train`, besides a size, for a training of seconds."""

TINY_OPTIONS = (
    "--input 32x64 --proxy-iterations 2 --batch 2 --max-scale 0.625 --max-width 64 --max-depth 2 --max-paths 1 --threads 1 --noise 0"
)
"""The command-line form of `tiny_config`; the synthetic data set's frames are few there, see `few_frames`.
Made latencies are no ties to settle by real ones: no noise."""


def tiny_config(steps: int = 2, **changes: object) -> SearchConfig:
    """The configuration that `TINY_OPTIONS` means."""
    values: dict[str, object] = {
        "data": "synthetic",
        "height": 32,
        "width": 64,
        "steps": steps,
        "threads": 1,
        "plan": TimingPlan(min_s=0.4),
        "proxy": TrainRecipe(iterations=2, batch_size=2, warmup_iterations=1, scale_min=0.75, scale_max=1.5, jitter=0.0),
        "bounds": Bounds(max_scale=0.625, max_width=64, max_depth=2, max_paths=1),
    }
    return SearchConfig(**{**values, **changes})  # type: ignore[arg-type]


def made_latency(architecture: Architecture) -> float:
    """A latency for a filled store: it grows with the network and has no ties."""
    work = sum(b * c for b, c in zip(architecture.depths, architecture.widths, strict=True))
    return 0.1 + work * architecture.scales[0] ** 2 / 1e4 + architecture.depths[2] / 97


def reachable(config: SearchConfig) -> list[Architecture]:
    """Every network inside the bounds that any chain of operations leads to."""
    found, edge = {NAMED["N0"]}, [NAMED["N0"]]
    while edge:
        children = {child for a in edge for o in OPERATIONS if config.bounds.allow(child := expansion(a, o, 1))}
        edge = sorted(children - found, key=str)
        found |= children
    return sorted(found, key=str)


def fill_store(path: Path, config: SearchConfig, num_classes: int = 11) -> None:
    """Write a latency for every reachable network, at the search's boundary and at the labels."""
    store, environment = Store(path), current_environment(config)
    store._connection.execute("BEGIN")
    for architecture in reachable(config):
        for boundary in (config.boundary, "labels"):
            store.add(
                Measurement(
                    subject=subject(architecture, num_classes),
                    conditions=conditions(config, boundary),
                    environment=environment,
                    samples_ms=(made_latency(architecture),) * 5,
                    clock="perf_counter",
                    warmup_runs=3,
                    load_s=0.1,
                    created="2026-01-01T00:00:00+00:00",
                )
            )
    store._connection.execute("COMMIT")
    store.close()


def write_camvid(root: Path, counts: dict[str, int] | None = None, size: tuple[int, int] = (32, 48), suffix: str = ".png") -> Path:
    """Make a folder in CamVid's layout, of noise."""
    rng = np.random.default_rng(0)
    for split, count in (counts or {"train": 4, "val": 2}).items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for index in range(count):
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            label = rng.integers(0, 12, size, dtype=np.uint8)
            Image.fromarray(image).save(root / split / f"frame{index}{suffix}")
            Image.fromarray(label).save(root / f"{split}annot" / f"frame{index}.png")
    return root


def trained_folder(base: Path, network: str, *options: str) -> tuple[Path, Path]:
    """The folder of a tiny training by `lps-search train`, and the CamVid folder it was trained on."""
    from search.cli import run

    root, out = write_camvid(base / "camvid"), base / "training"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPS_SEARCH_LOCKS", str(base / "locks"))
        assert run(["train", network, "--data", f"camvid:{root}", *options, "--out", str(out)]) == 0
    return out, root


def few_frames() -> None:
    """Make the synthetic splits small in this process."""
    from lpsnet.data import synthetic

    synthetic.SPLIT_SIZES.update(train=6, val=3, test=2)
