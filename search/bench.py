"""A tabular benchmark: networks of the space with measured latency and mIoU from real trainings, on which searches are replayed.

    networks.csv (one row a network)  trainings.csv (one row a training)  summary.json

Rows accrue: a call that is cut short goes on, and a larger one adds to what is there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.store import Store
from latency.told import parse_json
from lpsnet.architecture import EIGHTHS, NAMED, TABLE_4, Architecture
from lpsnet.complexity import complexity
from lpsnet.errors import UserError
from search.config import SearchConfig
from search.executor import LocalExecutor
from search.files import append_row, grown_rows
from search.observer import Observer
from search.pareto import Point, hypervolume
from search.pool import Pool
from search.problem import Seen, Surrogate
from search.ranking import spearman_interval
from search.samplers import random_network
from search.space import Bounds
from search.training_table import Setting, Task, TrainingTable, alone_in, open_table, train_tasks

LAST_STEP = 5
"""Networks cost at most as many multiply-adds as the one of this step of the paper's Table 4."""

SLACK = 1.3
BOUNDS = Bounds(max_scale=1.0, max_width=320, max_depth=16, max_paths=3)
SHORT, LONG = Setting(iterations=400), Setting(iterations=2000)
FIELDS = ("architecture", "latency_ms", "latency_stable", "parameters", "macs_giga")


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What the table is to hold.

    Args:
        networks: how many.
        short: setting of the trainings every network has.
        seeds: of these.
        long_networks: the first so many have a long training, too.
        long: its setting.
        seed: of the draw of networks.

    Raises:
        UserError: a setting that inherits, or is scored on its way.
    """

    networks: int = 60
    short: Setting = SHORT
    seeds: int = 2
    long_networks: int = 24
    long: Setting = LONG
    seed: int = 0

    def __post_init__(self) -> None:
        for setting in (self.short, self.long):
            if setting.inherit or setting.rung:
                raise UserError(f"networks of the table are trained from scratch to the end, {setting.name} is not such a training")


def draw(count: int, seed: int) -> list[Architecture]:
    """N0 and others at random, all different; a larger count begins with the networks of a smaller one."""
    rng, most = random.Random(seed), SLACK * _work(TABLE_4[LAST_STEP])
    found = [NAMED["N0"]]
    while len(found) < count:
        network = random_network(rng, NAMED["N0"], BOUNDS)
        if network not in found and _work(network) <= most:
            found.append(network)
    return found


def _work(network: Architecture) -> float:
    """Multiply-adds of the 3x3 convolutions for each pixel of the input: exact but for rounded sizes, and quick to draw by."""
    channels = (3, *network.widths)
    stages = zip(network.depths, channels, channels[1:], (4, 16, 64, 256, 256), strict=False)
    path = sum(9 * (before * after + (depth - 1) * after**2) / pixels for depth, before, after, pixels in stages)
    return path * sum((scale / EIGHTHS) ** 2 for scale in network.scales)


def make_bench(plan: BenchPlan, config: SearchConfig, store: Store, out: Path, observer: Observer) -> TrainingTable:
    """Measure and train what the table does not hold yet. Latencies come first: nothing trains beside them.

    Raises:
        UserError: the folder cannot be written, or holds something else.
    """
    with alone_in(out):
        return _make_bench(plan, config, store, out, observer)


def _make_bench(plan: BenchPlan, config: SearchConfig, store: Store, out: Path, observer: Observer) -> TrainingTable:
    at = {"backend": config.backend, "device": config.device, "boundary": config.boundary, "threads": config.threads}
    table = open_table(out, config, {**at, "seconds": config.plan.min_s})
    executor = LocalExecutor(config, store, observer)
    classes = len(executor.proxy.class_names)
    networks = draw(plan.networks, plan.seed)
    known = {row["architecture"] for row in _read(out / "networks.csv")}
    for number, network in enumerate(networks):
        observer.work("latencies", number, len(networks), str(network))
        if str(network) not in known:
            measured, cost = executor.measure(network), complexity(network, classes, config.size)
            stable = measured.verdict().stable
            values = (str(network), f"{measured.latency_ms:.5g}", stable, cost.parameters, f"{cost.macs / 1e9:.5g}")
            append_row(out / "networks.csv", dict(zip(FIELDS, values, strict=True)))
    observer.work("latencies", len(networks), len(networks))
    tasks = [Task(architecture=str(n), setting=plan.short.name, seed=seed) for seed in range(plan.seeds) for n in networks]
    tasks += [Task(architecture=str(network), setting=plan.long.name, seed=0) for network in networks[: plan.long_networks]]
    pool = Pool(config.parallel)
    try:
        train_tasks(table, tasks, config, pool, observer)
    finally:
        pool.close()
    return table


def agreement(table: TrainingTable, plan: BenchPlan) -> dict[str, float] | None:
    """Spearman's rho of short against long trainings with its 95 % interval, over the networks that have all; None for fewer than three."""
    names = [str(network) for network in draw(plan.networks, plan.seed)]
    rows = [
        [table.score(name, plan.long.name, 0)] + [table.score(name, plan.short.name, seed) for seed in range(plan.seeds)] for name in names
    ]
    whole = np.array([row for row in rows if None not in row], dtype=float)
    if len(whole) < 3:
        return None
    rho = spearman_interval(whole[:, 0], whole[:, 1:])
    return {"networks": len(whole), "spearman": rho.value, "spearman_low": rho.low, "spearman_high": rho.high}


def bench_facts(folder: Path) -> dict[str, Any]:
    """Configuration and environment of a tabular benchmark, as far as its summary tells."""
    try:
        told = parse_json((folder / "summary.json").read_text())
        return {name: told[name] for name in ("config", "environment") if name in told}
    except (OSError, ValueError, TypeError):
        return {}


def surrogate(folder: Path, setting: str) -> Surrogate:
    """A surrogate of the table in a folder, of the trainings under a setting.

    Raises:
        UserError: no table there, or too few trainings.
    """
    table, rows = TrainingTable(folder / "trainings.csv"), {row["architecture"]: row for row in _read(folder / "networks.csv")}
    done = [row for row in table.rows.values() if row.setting == setting and row.miou_percent is not None and row.architecture in rows]
    seeds, names = sorted({row.seed for row in done}), list(dict.fromkeys(row.architecture for row in done))
    mious = np.full((len(names), len(seeds)), np.nan)
    seconds = np.full((len(names), len(seeds)), np.nan)
    for row in done:
        place = names.index(row.architecture), seeds.index(row.seed)
        mious[place], seconds[place] = row.miou_percent, row.seconds
    try:
        latencies = [float(rows[name]["latency_ms"]) for name in names]
        return Surrogate([Architecture.parse(name) for name in names], mious, latencies, list(np.nanmean(seconds, 1)) if names else [])
    except ValueError as error:
        raise UserError(f"{folder}: {error}; lps-search bench-table adds to it") from error


def covered(seen: Sequence[Seen], times_s: Sequence[float], slowest_ms: float, worst_percent: float) -> list[float]:
    """Hypervolume of what a search has seen after each of some spent seconds."""
    points: list[Point] = [(one.latency_ms, one.miou_percent) for one in seen]
    counts = [sum(one.spent_s <= time for one in seen) for time in times_s]
    return [hypervolume(points[:count], slowest_ms, worst_percent) for count in counts]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read(path: Path) -> list[dict[str, str]]:
    try:
        rows = grown_rows(path)
    except ValueError as error:
        raise UserError(f"{path} is no table of networks: {error}; name another folder with --out") from error
    if rows and set(rows[0]) != set(FIELDS):
        raise UserError(f"{path} is no table of networks: its columns are {', '.join(rows[0])}; name another folder with --out")
    for row in rows:
        if not (row["latency_ms"] and 0 < _number(row["latency_ms"]) < math.inf):
            raise UserError(f"{path} is no table of networks: {row['architecture']} has a latency of {row['latency_ms']!r} ms")
    return rows
