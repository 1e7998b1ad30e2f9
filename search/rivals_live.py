"""A rival search for real, with measurements and trainings, and the chain of the greedy rule that it is held against.

Cost is seconds on a clock: of measuring and training of the rival, of all that was done of the chain.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from latency.lock import device_lock
from latency.measure import at_boundary
from latency.rounds import take_turn
from latency.store import Store
from lpsnet.architecture import Architecture
from lpsnet.data import data_name
from lpsnet.errors import TrainingFailed, UserError
from lpsnet.network import LPSNet
from search.bench import BOUNDS, covered
from search.config import SearchConfig
from search.executor import LocalExecutor, conditions
from search.files import append_row, grown_rows, latency_axis, new_figure
from search.observer import Observer
from search.pareto import front, hypervolume
from search.problem import Budgeted, Seen
from search.proxy import Proxy, TrainJob
from search.rivals import WORST_PERCENT, check_samplers, hypervolume_axes
from search.run import Run, read_json
from search.runner import replay
from search.samplers import SAMPLERS
from search.step import Failure

PAUSE_S = 600.0
"""A run of which nothing is known for longer was not at work."""

ROUNDS = 5
"""Turns of each network whose latency is taken anew."""

FRESH_SEED = 1000
"""Seeds by which fronts are judged are counted from here: no search shares its luck with them."""


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

    It trains one network after another, as it learns from each, so each has all threads, whatever `config.parallel` says. A network
    whose training fails scores 0.
    """
    check_samplers([name])
    executor = LocalExecutor(dataclasses.replace(config, parallel=1), store, observer)

    def trained(architecture: Architecture) -> float:
        score = _score(executor.proxy, architecture, config.seed, observer)
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


def _score(proxy: Proxy, architecture: Architecture, seed: int, observer: Observer) -> float:
    """mIoU in percent; 0 where the training fails."""
    try:
        return proxy.train(TrainJob(architecture=architecture, seed=seed)).scores.miou_percent
    except TrainingFailed as failure:
        observer.note(f"{architecture}: {failure}")
        return 0.0


@dataclass(frozen=True)
class Chain:
    """A search by the greedy rule that a live one is held against.

    Args:
        config: what it searched under, its rivals, too.
        spent_s: seconds from its beginning to its last training's end, on a clock, without pauses (`busy_seconds`).
        slowest_ms: latency of the slowest network of its chain.
        seen: every candidate it trained.
    """

    config: SearchConfig
    spent_s: float
    slowest_ms: float
    seen: tuple[Seen, ...]

    def config_on(self, data: str, seed: int) -> SearchConfig:
        """Its configuration for a live search, wherever its data set lies now. Raises `UserError` for another data set."""
        name, found = (data_name(spec) for spec in (self.config.data, data))
        if found != name:
            raise UserError(
                f"the run searched on {name}, so a live search on {found} does not compare; name {name} or {name}:PATH with --live"
            )
        return dataclasses.replace(self.config, data=data, seed=seed)


def chain_of(path: Path) -> Chain:
    """The search in a run's folder. Raises `UserError` where it holds none, or no step."""
    with Run.read(path) as run:
        steps, config = replay(run).steps, run.config
        begun = datetime.fromisoformat(read_json(path / "environment.json")["created"])
        ended = [trial for step in steps for trial in run.study.trials(step.number) if trial.datetime_complete]
        spans = [(begun, begun)]
        spans += [(_utc(one.datetime_start or one.datetime_complete), _utc(one.datetime_complete)) for one in ended]
        spans += [(at, at) for at in (datetime.fromisoformat(measured.created) for measured in run.store.all())]
    if len(steps) < 2:
        raise UserError(f"{path} has no step to be held against; name a run of lps-search expand")
    first: dict[str, datetime] = {}  # a control or another seed of it came later
    for one in sorted(ended, key=lambda one: _utc(one.datetime_complete)):
        first.setdefault(str(one.user_attrs["architecture"]), _utc(one.datetime_complete))
    spent = busy_seconds(spans)
    seen: dict[Architecture, Seen] = {}
    for trial in (trial for step in steps for trial in step.trials):
        network, latency = trial.candidate.architecture, trial.candidate.latency_ms
        if str(network) in first and not isinstance(trial.outcome, Failure):
            seen.setdefault(network, Seen(network, latency, trial.outcome, spent(first[str(network)])))
    last = max(spent(_utc(one.datetime_complete)) for one in ended)
    return Chain(config, last, max(step.chosen.latency_ms for step in steps), tuple(sorted(seen.values(), key=lambda one: one.spent_s)))


def busy_seconds(spans: Sequence[tuple[datetime, datetime]]) -> Callable[[datetime], float]:
    """Seconds of work from the first span's beginning to a moment.

    Between spans work went on, too, which left no trace; but where nothing is known for longer than `PAUSE_S` nothing was done: a
    run that was stopped and resumed on another day has not worked all night.
    """
    pauses = []
    ordered = sorted(spans)
    latest = ordered[0][1]
    for start, end in ordered:
        if (start - latest).total_seconds() > PAUSE_S:
            pauses.append((latest, start))
        latest = max(latest, end)

    def spent(at: datetime) -> float:
        idle = sum((min(end, at) - start).total_seconds() for start, end in pauses if start < at)
        return (at - ordered[0][0]).total_seconds() - idle

    return spent


def _utc(at: datetime | None) -> datetime:
    assert at is not None
    return at.astimezone(UTC)


def front_of(chain: Chain, found: Sequence[Seen]) -> list[Seen]:
    """The front, as scored, of the networks that count, in the time the chain took."""
    counted = [one for one in found if one.spent_s <= chain.spent_s and one.latency_ms <= chain.slowest_ms]
    return [counted[index] for index in front([(one.latency_ms, one.miou_percent) for one in counted])]


def fresh_scores(
    config: SearchConfig, store: Store, networks: Sequence[Architecture], seeds: int, kept: Kept, observer: Observer
) -> dict[Architecture, float]:
    """Mean mIoU in percent of trainings with seeds that no search had: a score that put a network on a front was partly luck."""
    proxy, asked, found = LocalExecutor(config, store, observer).proxy, list(dict.fromkeys(networks)), {}
    for number, network in enumerate(asked):
        observer.work("candidates", number, len(asked), f"{network} anew")
        scores = []
        for seed in range(config.seed + FRESH_SEED, config.seed + FRESH_SEED + seeds):
            scores.append(kept.answer(f"miou {seed}", network, partial(_score, proxy, network, seed, observer))[0])
        found[network] = float(np.mean(scores))
    observer.work("candidates", len(asked), len(asked))
    return found


def fresh_latencies(
    config: SearchConfig, store: Store, networks: Sequence[Architecture], kept: Kept, observer: Observer
) -> dict[Architecture, float]:
    """Latency in ms of each network, all in turns: those of two searches may have met the machine in different moods.

    The fastest turn counts, as what disturbs a turn adds time.
    """
    at, classes = conditions(config), len(LocalExecutor(config, store, observer).class_names)
    asked = list(dict.fromkeys(networks))

    def turn(network: Architecture) -> float:
        with device_lock(at.device, alone=True):
            taken = take_turn(lambda: at_boundary(LPSNet(network, classes, deployed=True), at.boundary), at)
        return statistics.median(taken.samples_ms)

    turns: dict[Architecture, list[float]] = {network: [] for network in asked}
    for number in range(ROUNDS):
        for index, network in enumerate(asked if number % 2 == 0 else asked[::-1]):
            observer.work("latencies", number * len(asked) + index, ROUNDS * len(asked), f"{network} anew")
            turns[network].append(kept.answer(f"latency, round {number + 1}", network, partial(turn, network))[0])
    observer.work("latencies", ROUNDS * len(asked), ROUNDS * len(asked))
    return {network: min(found) for network, found in turns.items()}


def against(chain: Chain, name: str, found: Sequence[Seen], fresh: Mapping[Architecture, tuple[float, float]]) -> list[dict[str, Any]]:
    """Networks trained and hypervolume at a quarter, half and all of what the chain took: the chain's and a live search's.

    As measured and scored in the search; at the end, where there are `fresh` latencies and scores of both fronts, by these, too.
    """
    times, slowest = [chain.spent_s * share for share in (0.25, 0.5, 1.0)], chain.slowest_ms * (1 + 1e-9)
    rows = []
    for who, seen in (("greedy", chain.seen), (name, found)):
        areas = covered(seen, times, slowest, WORST_PERCENT)
        counts = [sum(one.spent_s <= at for one in seen) for at in times]
        rows += [{"sampler": who, "spent_s": t, "networks": n, "hypervolume": a} for t, n, a in zip(times, counts, areas, strict=True)]
        anew = [fresh[one.architecture] for one in front_of(chain, seen)] if fresh else []
        rows[-1]["fresh_hypervolume"] = hypervolume(anew, slowest, WORST_PERCENT) if fresh else None
    return [{"fresh_hypervolume": None, **row} for row in rows]


def draw_live(chain: Chain, name: str, found: Sequence[Seen], fresh: Mapping[Architecture, tuple[float, float]], path: Path) -> None:
    """Fronts over what both trained, and hypervolume over spent seconds, as found; fronts by fresh latencies and scores, too."""
    figure = new_figure(12, 5)
    fronts, curves = figure.subplots(1, 2)
    times = list(np.linspace(0, chain.spent_s, 60)[1:])
    for color, (who, seen) in zip(("C0", "C3"), (("greedy", chain.seen), (name, found)), strict=True):
        inside = [one for one in seen if one.spent_s <= chain.spent_s and one.latency_ms <= chain.slowest_ms]
        fronts.scatter([one.latency_ms for one in inside], [one.miou_percent for one in inside], s=12, color=color, alpha=0.35)
        best = sorted(front_of(chain, seen), key=lambda one: one.latency_ms)
        fronts.step([one.latency_ms for one in best], [one.miou_percent for one in best], where="post", color=color, label=who)
        if fresh:
            again = [fresh[one.architecture] for one in best]
            fronts.scatter(*zip(*again, strict=True), marker="x", color=color, label=f"{who}: its front, trained and measured anew")
        curves.plot(times, covered(seen, times, chain.slowest_ms * (1 + 1e-9), WORST_PERCENT), color=color, label=who)
    latency_axis(fronts)
    fronts.set_ylabel("mIoU in percent")
    fronts.grid(alpha=0.3)
    fronts.legend(fontsize=8)
    hypervolume_axes(curves)
    figure.savefig(path)
