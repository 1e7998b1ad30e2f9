"""Searches side by side at equal cost, replayed over many seeds on a surrogate of the tabular benchmark.

Cost is measured seconds of training and of measuring latencies, tuning included. A search for real is in `rivals_live.py`.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lpsnet.architecture import NAMED, TABLE_4
from lpsnet.errors import UserError
from search.bench import BOUNDS, LAST_STEP, covered
from search.files import latency_axis, new_figure
from search.interval import mean_interval
from search.observer import Observer
from search.problem import Seen, Surrogate
from search.samplers import SAMPLERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 40
"""Moments at which a search's hypervolume is told."""

LATENCIES = 24
"""Latencies at which a front is told, evenly apart by their logarithm."""

WORST_PERCENT = 15.0
"""mIoU below which nothing counts: what N0 has after next to no training."""


def check_samplers(names: Sequence[str]) -> None:
    """Raises `UserError` for a name that is none."""
    for name in names:
        if name not in SAMPLERS:
            raise UserError(f"unknown sampler {name!r}; there are: {', '.join(SAMPLERS)}")


def replay(
    surrogate: Surrogate, names: Sequence[str], seeds: int, budget_s: float, observer: Observer, *, latency_s: float = 0.0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What each search finds.

    Args:
        surrogate: answers in the place of measuring and training.
        names: of the searches.
        seeds: replays of each.
        budget_s: what each may spend.
        observer: told of progress.
        latency_s: what asking for a latency costs.

    Returns:
        Hypervolume over spent seconds, a row a search, seed and moment (`ended_s` is what the search spent in all); and the fronts
        at the end, a row a search and latency: the best mIoU up to there, its mean over seeds with Student's 95 % interval.
    """
    check_samplers(names)
    slowest, times = slowest_ms(surrogate), list(np.linspace(0, budget_s, POINTS + 1)[1:])
    latencies = list(np.geomspace(surrogate.value("latency", NAMED["N0"]), slowest, LATENCIES))
    rows, fronts = [], []
    for number, name in enumerate(names):
        best = []
        for seed in range(seeds):
            observer.work("candidates", number * seeds + seed, len(names) * seeds, f"{name}, seed {seed}")
            problem = surrogate.problem(budget_s, seed, slowest, latency_s=latency_s)
            SAMPLERS[name](problem, NAMED["N0"], BOUNDS, seed)
            true = [_without_luck(one, surrogate) for one in problem.seen]
            found = covered(true, times, slowest, WORST_PERCENT)
            same = {"sampler": name, "seed": seed, "ended_s": problem.spent_s}
            rows += [{**same, "spent_s": at, "hypervolume": value} for at, value in zip(times, found, strict=True)]
            best.append([max((one.miou_percent for one in true if one.latency_ms <= at), default=WORST_PERCENT) for at in latencies])
        for at, values in zip(latencies, zip(*best, strict=True), strict=True):
            mean, low, high = mean_interval(values)
            fronts.append({"sampler": name, "latency_ms": at, "miou_percent": mean, "low": low, "high": high})
    observer.work("candidates", len(names) * seeds, len(names) * seeds)
    return rows, fronts


def slowest_ms(surrogate: Surrogate) -> float:
    """Latency up to which networks count: that of the fifth network of Table 4, about where the table ends."""
    return surrogate.value("latency", TABLE_4[LAST_STEP])


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each search, its hypervolume with Student's 95 % interval over seeds, and the paired gap to the greedy rule.

    Told at two costs: what greedy chains take until they have reached the slowest networks that count, in the mean of the
    seeds, and all that might be spent.
    """
    times = sorted({row["spent_s"] for row in rows})
    chains = [row["ended_s"] for row in rows if row["sampler"] == "greedy"]
    moments = {times[min(bisect_left(times, float(np.mean(chains))), len(times) - 1)]} if chains else set()
    return [row for moment in sorted(moments | {times[-1]}) for row in _summary_at(rows, moment)]


def _summary_at(rows: Sequence[dict[str, Any]], moment: float) -> list[dict[str, Any]]:
    """The largest hypervolume first."""
    ends: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["spent_s"] == moment:
            ends.setdefault(row["sampler"], {})[row["seed"]] = row["hypervolume"]

    found = []
    for name, by_seed in ends.items():
        mean, low, high = mean_interval(list(by_seed.values()))
        row = {"spent_s": moment, "sampler": name, "seeds": len(by_seed), "hypervolume": mean, "low": low, "high": high}
        if "greedy" in ends and name != "greedy":
            gaps = [ends["greedy"][seed] - value for seed, value in by_seed.items() if seed in ends["greedy"]]
            gap, gap_low, gap_high = mean_interval(gaps)
            row |= {"greedy_ahead": gap, "greedy_ahead_low": gap_low, "greedy_ahead_high": gap_high}
        found.append(row)
    return sorted(found, key=lambda row: row["hypervolume"], reverse=True)


def draw_rivals(rows: Sequence[dict[str, Any]], fronts: Sequence[dict[str, Any]], path: Path) -> None:
    """The fronts at the end, and hypervolume over spent seconds: mean and 95 % interval of each search."""
    figure = new_figure(13, 5)
    left, right = figure.subplots(1, 2)
    for number, name in enumerate(dict.fromkeys(row["sampler"] for row in rows)):
        color, width = "black" if name == "greedy" else f"C{number - 1}", 2.2 if name == "greedy" else 1.2
        style: dict[str, Any] = {"color": color, "linestyle": "-" if number < 5 else "--", "linewidth": width, "label": name}
        mine = [row for row in fronts if row["sampler"] == name]
        left.plot([row["latency_ms"] for row in mine], [row["miou_percent"] for row in mine], **style)
        ends = [[row[bound] for row in mine] for bound in ("low", "high")]
        left.fill_between([row["latency_ms"] for row in mine], *ends, color=color, alpha=0.15)
        over = [row for row in rows if row["sampler"] == name]
        times = sorted({row["spent_s"] for row in over})
        values = np.array([[row["hypervolume"] for row in over if row["spent_s"] == at] for at in times])
        mean, error = values.mean(1), 1.96 * values.std(1) / max(1, values.shape[1]) ** 0.5
        right.plot(times, mean, **style)
        right.fill_between(times, mean - error, mean + error, color=color, alpha=0.15)
    latency_axis(left)
    left.set_ylabel("best expected mIoU up to there, percent")
    left.grid(alpha=0.3)
    hypervolume_axes(right)
    figure.savefig(path)


def hypervolume_axes(axes: Axes) -> None:
    """Name the axes of hypervolume over spent seconds, with a grid and a legend."""
    axes.set_xlabel("seconds spent on training and measuring")
    axes.set_ylabel("hypervolume (points of mIoU times log latency)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _without_luck(one: Seen, surrogate: Surrogate) -> Seen:
    """What a search saw, judged by its expected mIoU: luck in the training that chose it is no merit of a front."""
    return dataclasses.replace(one, miou_percent=surrogate.value("miou", one.architecture))
