"""Does a data set reward depth, width and scale? Trains a small network and one expansion of each dimension, over seeds.

A data set on which a dimension gains nothing beyond seed noise cannot tell a search whether to grow it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lpsnet.architecture import NAMED, Architecture
from lpsnet.data import DataSpec, open_split
from lpsnet.errors import UserError
from lpsnet.recipe import TrainRecipe
from search.files import append_row, grown_rows
from search.interval import mean_interval
from search.run import make_folder
from search.space import OPERATIONS, expansion

CONTROL = "control"
PROBES = {"depth": ("depth-4", 2), "width": ("width-1", 1), "scale": ("scale-1", 4)}
"""Operation and k by dimension: sizeable expansions of N0, each by one dimension alone."""


@dataclass(frozen=True)
class StudyRow:
    """One training: network, seed, iterations, and its validation mIoU in percent."""

    dimension: str
    architecture: str
    seed: int
    iterations: int
    miou_percent: float
    seconds: float


@dataclass(frozen=True)
class StudyGain:
    """Gain of a dimension over the control, paired by seed, in points of mIoU; low and high bound its 95 % interval."""

    dimension: str
    architecture: str
    seeds: int
    gain_mean: float
    gain_low: float
    gain_high: float
    gain_min: float
    beyond_noise: bool


def probes() -> dict[str, Architecture]:
    """The networks of the study by dimension, the control first."""
    by_name = {operation.name: operation for operation in OPERATIONS}
    grown = {dimension: expansion(NAMED["N0"], by_name[name], k) for dimension, (name, k) in PROBES.items()}
    return {CONTROL: NAMED["N0"], **grown}


def run_study(
    data: DataSpec,
    size: tuple[int, int],
    recipe: TrainRecipe,
    seeds: int,
    out: Path,
    *,
    device: str = "cpu",
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[StudyRow]:
    """Train every probe with every seed and append each result to `out/study.csv`; rows that are there are not repeated.

    Raises:
        UserError: the folder cannot be written.
    """
    from lpsnet.training import train
    from search.proxy import keep_freed_memory

    keep_freed_memory()
    make_folder(out)
    path = out / "study.csv"
    rows = read_rows(path)
    known = {(row.architecture, row.seed, row.iterations) for row in rows}
    training, validation = open_split(data, "train", size), open_split(data, "val", size)
    work = [(d, a, seed) for seed in range(seeds) for d, a in probes().items()]
    for number, (dimension, architecture, seed) in enumerate(work):
        on_progress("candidates", number, len(work))
        if (str(architecture), seed, recipe.iterations) in known:
            continue
        start = time.perf_counter()
        result = train(architecture, training, validation, recipe, seed=seed, device=device, on_progress=on_progress)
        seconds = time.perf_counter() - start
        rows.append(StudyRow(dimension, str(architecture), seed, recipe.iterations, result.scores.miou_percent, seconds))
        append_row(path, {name: str(value) for name, value in dataclasses.asdict(rows[-1]).items()})
    on_progress("candidates", len(work), len(work))
    return [row for row in rows if row.iterations == recipe.iterations]


def gains(rows: list[StudyRow]) -> list[StudyGain]:
    """Gain of each dimension, paired by seed; beyond noise where Student's 95 % interval of the mean lies above 0.

    Raises:
        ValueError: fewer than two seeds.
    """
    control = {row.seed: row.miou_percent for row in rows if row.dimension == CONTROL}
    if len(control) < 2:
        raise ValueError(f"a gain beyond noise needs at least 2 seeds, got {len(control)}")
    found = []
    for dimension in PROBES:
        mine = [row for row in rows if row.dimension == dimension and row.seed in control]
        differences = [row.miou_percent - control[row.seed] for row in mine]
        gain = mean_interval(differences)
        found.append(StudyGain(dimension, mine[0].architecture, len(differences), *gain, min(differences), gain.low > 0))
    return found


def read_rows(path: Path) -> list[StudyRow]:
    """Rows of a study file, none where there is no file.

    Raises:
        UserError: the file is no study.
    """
    kinds = {"seed": int, "iterations": int, "miou_percent": float, "seconds": float}
    try:
        return [StudyRow(**{name: kinds.get(name, str)(value) for name, value in row.items()}) for row in grown_rows(path)]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no study: {error}; name another folder with --out") from error
