"""Does a proxy rank as a full training does? Trains the candidates of a run's steps fully and cheaply, and compares (`validate-proxy`).

Trainings accrue in `trainings.csv`; what is reported is what has accrued, with its count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lpsnet.architecture import Architecture
from lpsnet.errors import UserError
from lpsnet.recipe import PROXY_RATE, changed
from search.config import RacePlan, SearchConfig
from search.observer import Observer
from search.pool import Pool
from search.race import Raced, race
from search.ranking import Ranking, StepScores, overall_spearman, ranking, seed_noise, seed_spread
from search.step import Failure, Step, Train
from search.training_table import Setting, Task, TrainingTable, alone_in, open_table, parent_setting, train_tasks

FULL_SEED = 100
"""Seeds of full trainings are counted from here, so that no cheap one shares its luck with them."""


@dataclass(frozen=True, kw_only=True)
class ProxyStudy:
    """What is compared.

    Args:
        steps: of the run, decided, each with a parent.
        full: the training that is the truth.
        full_seeds: how many of each candidate.
        settings: the cheap trainings.
        seeds: how many of each.
    """

    steps: tuple[Step, ...]
    full: Setting
    full_seeds: int
    settings: tuple[Setting, ...]
    seeds: int

    def tasks(self) -> list[Task]:
        """Every training that is wanted, full ones last: a study cut short then has whole cheap settings, seed by seed."""
        found: list[Task] = []
        for seed in range(self.seeds):
            for setting in sorted(self.settings, key=lambda s: (s.inherit, s.iterations, s.rung == 0, s.rung)):
                found += [task for step in self.steps for task in _of_step(step, setting, seed)]
        for seed in range(self.full_seeds):
            found += [task for step in self.steps for task in _of_step(step, self.full, FULL_SEED + seed)]
        return found


def run_study(study: ProxyStudy, base: SearchConfig, out: Path, observer: Observer) -> TrainingTable:
    """Train what is missing; a call that is cut short goes on where it stopped."""
    with alone_in(out):
        table, pool = open_table(out, base), Pool(base.parallel)
        try:
            train_tasks(table, study.tasks(), base, pool, observer, keep=out / "weights")
        finally:
            pool.close()
    return table


def candidates_of(step: Step) -> dict[str, float]:
    """Latency above the parent's, in ms, by network; those that are not slower have no finite slope and are left out."""
    assert step.parent is not None
    costs = {str(t.candidate.architecture): t.candidate.latency_ms - step.parent.latency_ms for t in step.trials}
    return {name: cost for name, cost in costs.items() if cost > 0}


def step_scores(step: Step, table: TrainingTable, full: Setting, full_seeds: int, setting: Setting, seeds: int) -> StepScores | None:
    """What has accrued of a step, None where it is not whole: seeds that every candidate and the control have."""
    costs = candidates_of(step)
    truth, truth_control = _scores(step, table, full, range(FULL_SEED, FULL_SEED + full_seeds))
    cheap, control = _scores(step, table, setting, range(seeds))
    if not truth.size or not cheap.size or len(costs) < 3:
        return None
    return StepScores(np.array(list(costs.values())), truth, truth_control, cheap, control)


def _scores(step: Step, table: TrainingTable, setting: Setting, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(candidates, seeds) and (seeds,): mIoU of the candidates and of the parent, for the seeds that all of them have."""
    assert step.parent is not None
    parent = str(step.parent.architecture)
    names, origin = (*candidates_of(step), parent), parent if setting.inherit else ""
    found = [[table.score(name, setting.name, seed, origin) for seed in seeds] for name in names]
    values = np.array([[math.nan if score is None else score for score in row] for row in found])
    whole = values[:, ~np.isnan(values).any(0)]
    return whole[:-1], whole[-1]


def _one_full_seed(scores: StepScores) -> StepScores:
    """The first full seed judged by the others, as if it were cheap: what no cheap training can be expected to surpass by much."""
    return dataclasses.replace(
        scores,
        full=scores.full[:, 1:],
        full_control=scores.full_control[1:],
        cheap=scores.full[:, :1],
        cheap_control=scores.full_control[:1],
    )


def report_rows(study: ProxyStudy, table: TrainingTable) -> list[dict[str, Any]]:
    """A row for each setting and step, and one for each setting over all steps; the last are of one full seed against the others."""
    rows: list[dict[str, Any]] = []
    limit: dict[int, StepScores] = {}
    for setting in study.settings:
        found = {s.number: step_scores(s, table, study.full, study.full_seeds, setting, study.seeds) for s in study.steps}
        whole = {number: scores for number, scores in found.items() if scores is not None}
        limit |= {number: _one_full_seed(scores) for number, scores in whole.items() if scores.full.shape[1] > 1}
        rows += _setting_rows(study, table, setting, whole)
    return rows + _setting_rows(study, table, study.full, limit)


def _setting_rows(study: ProxyStudy, table: TrainingTable, setting: Setting, whole: dict[int, StepScores]) -> list[dict[str, Any]]:
    rankings = {number: ranking(scores) for number, scores in whole.items()}
    rows = [_row(study, table, setting, str(number), whole[number], rankings[number]) for number in whole]
    return [*rows, _overall(study, table, setting, list(whole.values()), list(rankings.values()))] if whole else []


def raced_rows(study: ProxyStudy, table: TrainingTable) -> list[dict[str, Any]]:
    """What races would have chosen and spent, played with the scores that have accrued: over a setting's rungs, and with more seeds.

    Each seed has its turn to be the first.
    """
    rows = []
    for end in (setting for setting in study.settings if not setting.rung):
        rungs = tuple(sorted(s.rung for s in study.settings if s.rung and dataclasses.replace(s, rung=0) == end))
        plans = {f"race-{end.name}@{'-'.join(map(str, rungs))}": RacePlan(rungs=rungs)} if rungs else {}
        plans |= {f"race-{end.name}x{seeds}": RacePlan(seeds=seeds) for seeds in range(2, study.seeds + 1)}
        rows += [row for step in study.steps for name, plan in plans.items() if (row := _raced(study, table, end, step, name, plan))]
    return rows


def _raced(study: ProxyStudy, table: TrainingTable, end: Setting, step: Step, name: str, plan: RacePlan) -> dict[str, Any] | None:
    """Mean regret and cost of a race in a step; None where scores are missing."""
    scores = step_scores(step, table, study.full, study.full_seeds, end, study.seeds)
    turns = [[(first + number) % study.seeds for number in range(study.seeds)] for first in range(study.seeds)]
    found = [one for seeds in turns if (one := _play(step, table, end, plan, seeds)) is not None]
    if scores is None or not found:
        return None
    names, slopes, spread = list(candidates_of(step)), scores.full_slopes(), seed_spread(scores)
    lost = [float(slopes.max() - slopes[names.index(chosen)]) * float(scores.cost_ms.mean()) for chosen, _ in found]
    regret, spent = float(np.mean(lost)), float(np.mean([spent for _, spent in found]))
    shares = {"iterations": spent, "share_of_full": spent / (study.full.iterations * len(names))}
    same = {"setting": name, "trainings": end.name, "step": step.number, "plays": len(found)}
    return {**same, "regret": regret, "regret_sd": regret / spread, **shares}


def _play(step: Step, table: TrainingTable, end: Setting, plan: RacePlan, seeds: Sequence[int]) -> tuple[str, int] | None:
    """The network a race takes and the iterations it spends, its seeds being these; None where a score it asks for is not there."""
    assert step.parent is not None
    costs, spent, parent = candidates_of(step), 0, step.parent.architecture
    runners = tuple(t.candidate for t in step.trials if str(t.candidate.architecture) in costs)
    origin = str(parent) if end.inherit else ""
    control = table.score(str(parent), end.name, seeds[0], origin)
    if control is None:
        return None
    racing = race(step.number, dataclasses.replace(step.parent, miou_percent=control), runners, plan, end.iterations)
    answers: dict[Architecture, float | Failure] | None = None
    try:
        while True:
            request = racing.send(answers)
            assert isinstance(request, Train)
            setting = dataclasses.replace(end, rung=request.rung)
            seed = seeds[request.seed]
            found = {c.architecture: table.score(str(c.architecture), setting.name, seed, origin) for c in request.candidates}
            if any(score is None for score in found.values()):
                return None
            answers = {network: score for network, score in found.items() if score is not None}
            done = max((rung for rung in plan.rungs if rung < (request.rung or end.iterations)), default=0)
            trained = len(found) - (parent in found and not request.seed and not end.inherit)  # it was when it joined the chain
            spent += trained * ((request.rung or end.iterations) - done)
    except StopIteration as stop:
        raced: Raced = stop.value
    best = max(raced.finalists, key=lambda network: raced.gains[network].percent / costs[str(network)])
    return str(best), spent


def default_setting(rows: Sequence[dict[str, Any]], races: Sequence[dict[str, Any]], choose_on: Sequence[int]) -> str | None:
    """Whatever is proven on the steps to choose on and takes the fewest iterations there, a setting or a race; None where nothing is.

    Its regret is within one seed standard deviation on each of them, and Kendall's tau of its trainings has an interval that
    lies, on average over them, above 0: a good choice by trainings that do not rank is luck.
    """
    steps = {str(number) for number in choose_on}
    lows = {(row["setting"], row["step"]): row["kendall_low"] for row in rows}
    chosen: dict[str, list[dict[str, Any]]] = {}
    for row in (*rows, *races):
        if str(row["step"]) in steps:
            chosen.setdefault(row["setting"], []).append(row)
    costs = {}
    for name, found in chosen.items():
        ranks = np.mean([lows[row.get("trainings", name), str(row["step"])] for row in found]) > 0
        if ranks and all(row["regret"] == 0 or row["regret_sd"] <= 1 for row in found):
            costs[name] = np.mean([row["iterations"] for row in found])
    return min(costs, key=lambda name: costs[name], default=None)


def study_of(steps: Sequence[Step], wanted: Sequence[int], full: int, full_seeds: int, settings: Sequence[str], seeds: int) -> ProxyStudy:
    """The study of some steps of a run. Raises `UserError` for steps or settings that are not there."""
    known = {step.number: step for step in steps if step.parent is not None}
    if missing := [number for number in wanted if number not in known]:
        raise UserError(f"the run has no step {missing[0]}; there are: {', '.join(map(str, known)) or 'none'}")
    parsed = tuple(Setting.parse(name) for name in settings)
    chosen = tuple(known[number] for number in (wanted or known))
    return ProxyStudy(steps=chosen, full=Setting(iterations=full), full_seeds=full_seeds, settings=parsed, seeds=seeds)


def _of_step(step: Step, setting: Setting, seed: int) -> list[Task]:
    assert step.parent is not None
    parent = str(step.parent.architecture)
    names = [*candidates_of(step), parent]
    before = []
    if setting.inherit:  # the weights to start from
        before = [Task(architecture=parent, setting=parent_setting(setting), seed=0)]
    origin = parent if setting.inherit else ""
    return before + [Task(architecture=name, setting=setting.name, seed=seed, parent=origin) for name in names]


def _row(study: ProxyStudy, table: TrainingTable, setting: Setting, step: str, scores: StepScores, found: Ranking) -> dict[str, Any]:
    figures = {
        name: value
        for kind, interval in (("kendall", found.kendall), ("spearman", found.spearman), ("regret", found.regret))
        for name, value in ((kind, interval.value), (f"{kind}_low", interval.low), (f"{kind}_high", interval.high))
    }
    counts = {"candidates": len(scores.cost_ms), "full_seeds": scores.full.shape[1], "seeds": scores.cheap.shape[1]}
    counts["iterations"] = (setting.rung or setting.iterations) * len(scores.cost_ms)
    rest = {"regret_sd": found.regret_sd, "within_one_sd": found.within_one_sd, "seed_noise": seed_noise(scores)}
    seconds = {"seconds_a_training": _seconds(table, setting), "seconds_full": _seconds(table, study.full)}
    return {"setting": setting.name, "step": step, **counts, **figures, **rest, **seconds}


def _overall(study: ProxyStudy, table: TrainingTable, setting: Setting, scores: list[StepScores], found: list[Ranking]) -> dict[str, Any]:
    """Means over the steps, but for Spearman, which is of the mIoU over all candidates."""
    rows = [_row(study, table, setting, "", one, two) for one, two in zip(scores, found, strict=True)]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name not in ("setting", "step")}
    whole = overall_spearman(scores)
    counts = {"candidates": sum(len(one.cost_ms) for one in scores)}
    return {**rows[0], **means, **counts, "step": "all", "spearman": whole.value, "spearman_low": whole.low, "spearman_high": whole.high}


def _seconds(table: TrainingTable, setting: Setting) -> float:
    """Mean seconds of a training under a setting."""
    found = [row.seconds for task, row in table.rows.items() if task.setting == setting.name]
    return float(np.mean(found)) if found else math.nan


def base_config(run: SearchConfig, changes: Sequence[str] = (), **more: Any) -> SearchConfig:
    """A run's configuration as a study trains: one seed at a time, without a race, at the learning rate of a full training.

    Args:
        run: whose proxy's rate is `PROXY_RATE` times that.
        changes: NAME=VALUE of the recipe, of which a learning rate is the full training's own.
        more: fields to replace.
    """
    full = dataclasses.replace(run.proxy, learning_rate=run.proxy.learning_rate / PROXY_RATE)
    return dataclasses.replace(run, race=type(run.race)(), seed=0, proxy=changed(full, list(changes)), **more)
