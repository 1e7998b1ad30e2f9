"""Searches to compare with: the greedy rule and its variants, random, TPE, NSGA-II and compound scaling, on one space and budget.

Each takes a `Problem`, asks it for latencies and trainings until the budget is spent or it is done, and leaves what it saw there.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from types import MappingProxyType

from lpsnet.architecture import Architecture
from search.decide import slope
from search.expand import expand
from search.problem import OutOfBudget, Problem
from search.space import OPERATIONS, Bounds, expansion
from search.step import Candidate, Measure, SearchStopped, Train

WARM_UP = 10
"""Trainings a model-based sampler draws at random first."""

MOST_DRAWS = 2000
LARGEST_SHARE = 0.999

Search = Callable[[Problem, Architecture, Bounds, int], None]
"""Runs on a problem from a start within bounds, with a seed, until the budget is spent or the search has ended."""


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Algorithm 1 and its variants.

    Args:
        beam: so many networks of each step are expanded in the next; 1 is the paper's rule.
        look_ahead: among the two best slopes, take the one whose own best expansion has the larger slope over both steps.
        contract: after a step, take a unit of another operation back where that loses less a millisecond than the step gained.
        width_multiple: leave out candidates whose widths beyond the first stage are no multiple of this, a device's sweet spots.
        caution: standard errors taken off each gain (or, where negative, put on) before slopes are compared.
        error_percent: of a gain.
    """

    beam: int = 1
    look_ahead: bool = False
    contract: bool = False
    width_multiple: int = 1
    caution: float = 0.0
    error_percent: float = 2.0

    def __call__(self, problem: Problem, start: Architecture, bounds: Bounds, seed: int) -> None:
        """See `Search`; the seed has no say."""
        try:
            problem.miou(start)
            members, been = [start], {start}
            while members:
                members = self._step(problem, members, bounds, start, been)
                been.update(members)
        except OutOfBudget:
            return

    def _step(
        self, problem: Problem, members: list[Architecture], bounds: Bounds, start: Architecture, been: Set[Architecture] = frozenset()
    ) -> list[Architecture]:
        """The next members. None has been one before: a contraction would lead round in circles, and that costs nothing."""
        ranked = [
            (slope, child, parent) for parent in members for slope, child in self._ranked(problem, parent, bounds) if child not in been
        ]
        ranked.sort(key=lambda one: one[0], reverse=True)
        if not ranked:
            return []
        if self.look_ahead:
            ranked[:2] = sorted(ranked[:2], key=lambda one: self._ahead(problem, one[2], one[1], bounds), reverse=True)
        if self.contract:
            slope, child, parent = ranked[0]
            ranked[0] = (slope, self._contracted(problem, child, slope, start, been), parent)
        return list(dict.fromkeys(child for _, child, _ in ranked))[: self.beam]

    def _ranked(self, problem: Problem, parent: Architecture, bounds: Bounds) -> list[tuple[float, Architecture]]:
        """Candidates of a network that count, the largest slope first."""
        before, base = problem.latency(parent), problem.miou(parent)
        found = []
        for candidate in candidates(problem, parent, bounds):
            child = candidate.architecture
            if candidate.latency_ms > problem.slowest_ms:
                continue
            if self.width_multiple > 1 and child.widths != parent.widths and any(w % self.width_multiple for w in child.widths[1:]):
                continue
            gain = problem.miou(child) - base - self.caution * self.error_percent
            found.append((slope(gain, candidate.latency_ms - before), child))
        return sorted(found, key=lambda one: one[0], reverse=True)

    def _ahead(self, problem: Problem, parent: Architecture, child: Architecture, bounds: Bounds) -> float:
        """The slope over two steps, from a parent to the best expansion of its child."""
        best = self._ranked(problem, child, bounds)[:1]
        last = best[0][1] if best else child
        return slope(problem.miou(last) - problem.miou(parent), problem.latency(last) - problem.latency(parent))

    def _contracted(
        self, problem: Problem, network: Architecture, slope: float, start: Architecture, been: Set[Architecture] = frozenset()
    ) -> Architecture:
        for smaller in contractions(network, start):
            saved = problem.latency(network) - problem.latency(smaller)
            if smaller not in been and saved > 0 and (problem.miou(network) - problem.miou(smaller)) / saved < slope / 2:
                return smaller
        return network


def candidates(problem: Problem, parent: Architecture, bounds: Bounds) -> tuple[Candidate, ...]:
    """Eq. 3 and 4 on a problem: what Algorithm 1 would train in a step from `parent`."""
    search, answers = expand(parent, steps=1, bounds=bounds), None
    while True:
        try:
            request = search.send(answers)
        except (SearchStopped, StopIteration):
            return ()
        if isinstance(request, Measure):
            answers = {network: problem.latency(network) for network in request.architectures}
        elif isinstance(request, Train):
            if request.parent is not None:
                return request.candidates
            answers = {parent: 0.0}
        else:
            answers = None


def contractions(network: Architecture, start: Architecture) -> Iterator[Architecture]:
    """The networks from which one unit of an operation leads to this one, none smaller than the start in any dimension."""
    for operation in OPERATIONS:
        values = {"depth": (network.depths, start.depths), "width": (network.widths, start.widths)}.get(operation.dimension)
        if values is not None:
            less = tuple(value - unit for value, unit in zip(values[0], operation.unit, strict=True))
            if all(value >= least for value, least in zip(less, values[1], strict=True)):
                yield replace(network, depths=less) if operation.dimension == "depth" else replace(network, widths=less)
        elif network.num_paths >= operation.unit.index(1) + 1:
            scales = list(network.scales)
            scales[operation.unit.index(1)] -= 1
            left = sorted((scale for scale in scales if scale > 0), reverse=True)
            if len(left) >= start.num_paths and all(scale >= least for scale, least in zip(left, start.scales, strict=False)):
                yield replace(network, scales=tuple(left))


def random_network(rng: random.Random, start: Architecture, bounds: Bounds) -> Architecture:
    """A network that some chain of operations leads to, drawn by how many units of each it has."""
    while True:
        found = start
        for operation in OPERATIONS:
            units = int(rng.expovariate(1.0) * 2.0) if rng.random() < 0.5 else 0
            if units:
                found = expansion(found, operation, units)
        if bounds.allow(found):
            return found


def random_search(problem: Problem, start: Architecture, bounds: Bounds, seed: int) -> None:
    """Networks drawn at random; those that do not count are drawn again."""
    rng = random.Random(seed)
    try:
        for _ in range(MOST_DRAWS):
            network = random_network(rng, start, bounds)
            if problem.latency(network) <= problem.slowest_ms:
                problem.miou(network)
    except OutOfBudget:
        return


def compound(problem: Problem, start: Architecture, bounds: Bounds, seed: int) -> None:
    """EfficientNet's scaling (arXiv 1905.11946): depth, width and scale grow together, by factors that a small grid finds first."""
    grid = list(itertools.product((1.0, 1.2, 1.4), (1.0, 1.1, 1.2), (1.0, 1.1, 1.2)))
    random.Random(seed).shuffle(grid)
    try:
        base, before = problem.miou(start), problem.latency(start)
        tried = []
        for factors in grid[:WARM_UP]:
            network = scaled(start, factors, 2.0)
            if network != start and bounds.allow(network):
                tried.append((slope(problem.miou(network) - base, problem.latency(network) - before), factors))
        if not tried:
            return
        best = max(tried)[1]
        for number in range(2, 60):
            network = scaled(start, best, number / 2)
            if not bounds.allow(network) or problem.latency(network) > problem.slowest_ms:
                return
            problem.miou(network)
    except OutOfBudget:
        return


def scaled(start: Architecture, factors: tuple[float, float, float], power: float) -> Architecture:
    """A network with depths, widths (in steps of 4) and scales multiplied by factors to a power."""
    depth, width, scale = (factor**power for factor in factors)
    return replace(
        start,
        depths=tuple(max(1, round(value * depth)) for value in start.depths),
        widths=tuple(max(4, 4 * round(value * width / 4)) for value in start.widths),
        scales=tuple(max(1, round(value * scale)) for value in start.scales),
    )


def tpe(problem: Problem, start: Architecture, bounds: Bounds, seed: int) -> None:
    """Optuna's multi-objective tree-structured Parzen estimator over how many units of each operation a network has."""
    import optuna

    _optuna(problem, start, bounds, optuna.samplers.TPESampler(seed=seed, n_startup_trials=WARM_UP))


def nsga2(problem: Problem, start: Architecture, bounds: Bounds, seed: int) -> None:
    """Optuna's NSGA-II over the same."""
    import optuna

    _optuna(problem, start, bounds, optuna.samplers.NSGAIISampler(seed=seed, population_size=WARM_UP))


def _optuna(problem: Problem, start: Architecture, bounds: Bounds, sampler: object) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)  # type: ignore[arg-type]
    try:
        for _ in range(MOST_DRAWS):
            trial = study.ask()
            units = [units_at(trial.suggest_float(operation.name, 0.0, LARGEST_SHARE)) for operation in OPERATIONS]
            network = _within(problem, start, units, bounds)
            study.tell(trial, [problem.latency(network), problem.miou(network)])
    except OutOfBudget:
        return


def units_at(share: float) -> int:
    """How many units of an operation such a share of `random_network`'s draws do not exceed: the first guesses of a model are its draws."""
    return max(0, int(-2.0 * math.log(2.0 * (1.0 - share))))


def _within(problem: Problem, start: Architecture, units: list[int], bounds: Bounds) -> Architecture:
    """The network with so many units of each operation, or with as many fewer of all as the bounds and the slowest latency ask for."""
    while True:
        network = start
        for operation, count in zip(OPERATIONS, units, strict=True):
            network = expansion(network, operation, count) if count else network
        if not any(units) or (bounds.allow(network) and problem.latency(network) <= problem.slowest_ms):
            return network
        units = [count * 2 // 3 for count in units]


SAMPLERS: MappingProxyType[str, Search] = MappingProxyType(
    {
        "greedy": Greedy(),
        "random": random_search,
        "tpe": tpe,
        "nsga2": nsga2,
        "compound": compound,
        "beam": Greedy(beam=2),
        "look-ahead": Greedy(look_ahead=True),
        "contraction": Greedy(contract=True),
        "sweet-spots": Greedy(width_multiple=16),
        "cautious": Greedy(caution=1.0),
        "bold": Greedy(caution=-1.0),
    }
)
"""Searches by name: the paper's rule, its rivals, and variants of it."""
