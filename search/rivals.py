"""Searches side by side at equal cost: replayed over many seeds on a surrogate of the tabular benchmark, or live.

Cost is measured seconds of training (and, live, of measuring), tuning included.
"""

from __future__ import annotations

import dataclasses
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from latency.store import Store
from lpsnet.architecture import NAMED, TABLE_4, Architecture
from lpsnet.errors import TrainingFailed, UserError
from search.bench import BOUNDS, LAST_STEP, covered
from search.config import SearchConfig
from search.executor import LocalExecutor
from search.files import append_row, grown_rows, new_figure
from search.interval import mean_interval
from search.observer import Observer
from search.problem import Budgeted, Seen, Surrogate
from search.proxy import TrainJob
from search.run import Run, read_json
from search.runner import replay as replay_run
from search.samplers import SAMPLERS
from search.step import Failure

POINTS = 40
"""Moments at which a search's hypervolume is told."""

WORST_PERCENT = 15.0
"""mIoU below which nothing counts: what N0 has after next to no training."""


def check_samplers(names: Sequence[str]) -> None:
    """Raises `UserError` for a name that is none."""
    for name in names:
        if name not in SAMPLERS:
            raise UserError(f"unknown sampler {name!r}; there are: {', '.join(SAMPLERS)}")


def replay(surrogate: Surrogate, names: Sequence[str], seeds: int, budget_s: float, observer: Observer) -> list[dict[str, Any]]:
    """Hypervolume of each search over its spent seconds, a row a search, seed and moment; `ended_s` is what the search spent in all."""
    check_samplers(names)
    slowest, times = slowest_ms(surrogate), list(np.linspace(0, budget_s, POINTS + 1)[1:])
    rows = []
    for number, name in enumerate(names):
        for seed in range(seeds):
            observer.work("candidates", number * seeds + seed, len(names) * seeds, f"{name}, seed {seed}")
            problem = surrogate.problem(budget_s, seed, slowest)
            SAMPLERS[name](problem, NAMED["N0"], BOUNDS, seed)
            true = [_without_luck(one, surrogate) for one in problem.seen]
            found = covered(true, times, slowest, WORST_PERCENT)
            same = {"sampler": name, "seed": seed, "ended_s": problem.spent_s}
            rows += [{**same, "spent_s": at, "hypervolume": value} for at, value in zip(times, found, strict=True)]
    observer.work("candidates", len(names) * seeds, len(names) * seeds)
    return rows


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


class Kept:
    """Answers that a live search has paid for, each appended to a file: a search that is killed asks again, and is answered from there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            rows = grown_rows(path)
            self._found = {(row["kind"], row["architecture"]): (float(row["value"]), float(row["seconds"])) for row in rows}
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} holds no answers of a live search: {error!r}; name another folder with --out") from error

    def answer(self, kind: str, architecture: Architecture, ask: Callable[[], float]) -> tuple[float, float]:
        """A value and the seconds it took, now or when it was asked first. Raises `UserError` where the file cannot be written."""
        key = (kind, str(architecture))
        if key not in self._found:
            start = time.perf_counter()
            value = ask()
            self._found[key] = value, time.perf_counter() - start
            row = {"kind": kind, "architecture": str(architecture), "value": repr(value), "seconds": repr(self._found[key][1])}
            append_row(self._path, row)
        return self._found[key]


def run_live(
    config: SearchConfig, store: Store, name: str, budget_s: float, kept: Kept, observer: Observer, *, slowest_ms: float = math.inf
) -> Budgeted:
    """Run a search with real measurements and trainings until the seconds are spent; what it saw is in the problem returned.

    A network whose training fails scores 0.
    """
    check_samplers([name])
    executor = LocalExecutor(config, store, observer)
    proxy = executor.proxy

    def trained(architecture: Architecture) -> float:
        try:
            score = proxy.train(TrainJob(architecture=architecture, seed=config.seed)).scores.miou_percent
        except TrainingFailed as failure:
            observer.note(f"{architecture}: {failure}")
            score = 0.0
        observer.work("candidates", len(problem.seen) + 1, len(problem.seen) + 2, f"{architecture}: {score:.2f}")
        return score

    problem = Budgeted(
        lambda network: kept.answer("latency", network, lambda: executor.measure(network).latency_ms),
        lambda network: kept.answer("miou", network, lambda: trained(network)),
        budget_s,
        slowest_ms,
    )
    SAMPLERS[name](problem, config.start_architecture, BOUNDS, config.seed)
    return problem


@dataclass(frozen=True)
class Chain:
    """A search by the greedy rule that a live one is held against.

    Args:
        config: what it searched under, its rivals, too.
        spent_s: seconds from its beginning to its last training's end, on a clock.
        slowest_ms: latency of the slowest network of its chain.
        seen: every candidate it trained.
    """

    config: SearchConfig
    spent_s: float
    slowest_ms: float
    seen: tuple[Seen, ...]

    def config_on(self, data: str, seed: int) -> SearchConfig:
        """Its configuration for a live search, wherever its data set lies now. Raises `UserError` for another data set."""
        name, found = (spec.partition(":")[0] for spec in (self.config.data, data))
        if found != name:
            raise UserError(
                f"the run searched on {name}, so a live search on {found} does not compare; name {name} or {name}:PATH with --live"
            )
        return dataclasses.replace(self.config, data=data, seed=seed)


def chain_of(path: Path) -> Chain:
    """The search in a run's folder. Raises `UserError` where it holds none, or no step."""
    with Run.read(path) as run:
        steps = replay_run(run).steps
        begun = datetime.fromisoformat(read_json(path / "environment.json")["created"])
        ended = {
            str(t.user_attrs["architecture"]): t.datetime_complete for s in steps for t in run.study.trials(s.number) if t.datetime_complete
        }
        config = run.config
    if len(steps) < 2:
        raise UserError(f"{path} has no step to be held against; name a run of lps-search expand")
    seen = []
    for step in steps:
        for trial in step.trials:
            at = ended.get(str(trial.candidate.architecture))
            if at is not None and not isinstance(trial.outcome, Failure):
                spent = (at.astimezone(UTC) - begun).total_seconds()
                seen.append(Seen(trial.candidate.architecture, trial.candidate.latency_ms, trial.outcome, spent))
    return Chain(config, max(one.spent_s for one in seen), max(step.chosen.latency_ms for step in steps), tuple(seen))


def against(chain: Chain, name: str, found: Sequence[Seen]) -> list[dict[str, Any]]:
    """Networks trained and hypervolume, as scored, at a quarter, half and all of what the chain took: the chain's and a live search's."""
    times = [chain.spent_s * share for share in (0.25, 0.5, 1.0)]
    rows = []
    for who, seen in (("greedy", chain.seen), (name, found)):
        areas = covered(seen, times, chain.slowest_ms * (1 + 1e-9), WORST_PERCENT)
        counts = [sum(one.spent_s <= at for one in seen) for at in times]
        rows += [{"sampler": who, "spent_s": t, "networks": n, "hypervolume": a} for t, n, a in zip(times, counts, areas, strict=True)]
    return rows


def draw_rivals(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Hypervolume over spent seconds: mean and 95 % interval of each search."""
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    for number, name in enumerate(dict.fromkeys(row["sampler"] for row in rows)):
        mine = [row for row in rows if row["sampler"] == name]
        times = sorted({row["spent_s"] for row in mine})
        values = np.array([[row["hypervolume"] for row in mine if row["spent_s"] == at] for at in times])
        mean, error = values.mean(1), 1.96 * values.std(1) / max(1, values.shape[1]) ** 0.5
        style = {"color": f"C{number % 10}", "linestyle": "-" if number < 5 else "--"}
        axes.plot(times, mean, label=name, linewidth=2.2 if name == "greedy" else 1.2, **style)  # type: ignore[arg-type]
        axes.fill_between(times, mean - error, mean + error, color=style["color"], alpha=0.15)
    axes.set_xlabel("seconds spent on training")
    axes.set_ylabel("hypervolume (points of mIoU times log latency)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)


def _without_luck(one: Seen, surrogate: Surrogate) -> Seen:
    """What a search saw, judged by its expected mIoU: luck in the training that chose it is no merit of a front."""
    return dataclasses.replace(one, miou_percent=surrogate.value("miou", one.architecture))
