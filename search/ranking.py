"""Does a cheap training rank candidates as a full one does? Rank correlations, regret, and their bootstrap intervals. Pure numbers.

Ranks are those of the slopes of Eq. 5: gain in mIoU over the parent's (trained alike) for each millisecond more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class StepScores:
    """Scores of one step's candidates.

    Args:
        cost_ms: (candidates,), latency above the parent's.
        full: (candidates, seeds), mIoU in percent of the full training.
        full_control: (seeds,), of the parent.
        cheap: (candidates, seeds), of the cheap training.
        cheap_control: (seeds,), of the parent.
    """

    cost_ms: np.ndarray
    full: np.ndarray
    full_control: np.ndarray
    cheap: np.ndarray
    cheap_control: np.ndarray

    def full_slopes(self) -> np.ndarray:
        """(candidates,), points of mIoU a millisecond, mean over the seeds."""
        slopes: np.ndarray = (self.full - self.full_control).mean(1) / self.cost_ms
        return slopes

    def cheap_slopes(self) -> np.ndarray:
        """(seeds, candidates): what a search with that seed would see."""
        slopes: np.ndarray = ((self.cheap - self.cheap_control) / self.cost_ms[:, None]).T
        return slopes


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """How a cheap training ranks the candidates of a step, mean over its seeds.

    Args:
        kendall: tau of the slopes.
        spearman: rho of the slopes.
        regret: points of mIoU lost, at the step's mean cost, by taking the cheap training's choice instead of the full one's.
        regret_sd: the same in standard deviations of a full training from seed to seed (`seed_spread`); NaN with one seed.
        within_one_sd: share of the cheap seeds whose regret is at most one of these.
    """

    kendall: Interval
    spearman: Interval
    regret: Interval
    regret_sd: float
    within_one_sd: float


def ranking(step: StepScores, *, seed: int = 0) -> Ranking:
    """Rank a step; needs at least three candidates."""
    spread = seed_spread(step)
    regrets = regret(step)
    return Ranking(
        kendall=_bootstrap(step, lambda s: _agreement(s, kendall), seed),
        spearman=_bootstrap(step, lambda s: _agreement(s, spearman), seed),
        regret=_bootstrap(step, lambda s: float(regret(s).mean()), seed),
        regret_sd=float(regrets.mean() / spread) if spread > 0 else float("nan"),
        within_one_sd=float((regrets <= spread).mean()) if spread > 0 else float("nan"),
    )


def regret(step: StepScores) -> np.ndarray:
    """(cheap seeds,): points of mIoU that each seed's choice is below the best, at the step's mean cost."""
    slopes = step.full_slopes()
    chosen = step.cheap_slopes().argmax(1)
    lost: np.ndarray = (slopes.max() - slopes[chosen]) * step.cost_ms.mean()
    return lost


def seed_spread(step: StepScores) -> float:
    """Standard deviation of a full gain from seed to seed beyond the shift that all candidates of a seed share; NaN with one seed."""
    return _own_noise(step.full)


def seed_noise(step: StepScores) -> float:
    """As `seed_spread`, of a cheap gain."""
    return _own_noise(step.cheap)


def _own_noise(scores: np.ndarray) -> float:
    """Of (candidates, seeds): what a seed does to all alike, by the control's luck or its own, changes no choice and is left out."""
    candidates, seeds = scores.shape
    if seeds < 2 or candidates < 2:
        return float("nan")
    own = scores - scores.mean(0)
    return float(np.sqrt(((own - own.mean(1, keepdims=True)) ** 2).sum() / ((candidates - 1) * (seeds - 1))))


def overall_spearman(steps: Sequence[StepScores]) -> Interval:
    """Rho of the mIoU itself over all candidates of a run, cheap against full, mean over the cheap seeds that all steps have."""
    seeds = min(step.cheap.shape[1] for step in steps)
    return spearman_interval(
        np.concatenate([step.full.mean(1) for step in steps]), np.concatenate([step.cheap[:, :seeds] for step in steps])
    )


def spearman_interval(full: np.ndarray, cheap: np.ndarray, *, seed: int = 0) -> Interval:
    """Rho of cheap scores, (networks, seeds), against full ones, (networks,): mean over the seeds, bootstrapped over the networks."""

    def rho(chosen: np.ndarray) -> float:
        return float(np.mean([spearman(cheap[chosen, s], full[chosen]) for s in range(cheap.shape[1])]))

    rng, everyone = np.random.default_rng(seed), np.arange(len(full))
    drawn = [rho(chosen) for _ in range(RESAMPLES) if len(set(full[chosen := rng.choice(everyone, len(full))])) > 2]
    return _interval(rho(everyone), drawn)


def kendall(one: np.ndarray, other: np.ndarray) -> float:
    """Tau-b of two (n,) arrays; NaN where one is constant. As scipy's, without the p-value that costs most of its time."""
    first, second = (np.sign(values[:, None] - values) for values in (one, other))
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else float("nan")


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rho of two (n,) arrays, ties sharing their mean rank; NaN where one is constant."""
    first, second = (_ranks(values) for values in (one, other))
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks about their mean: half of how many are smaller minus how many are larger."""
    ranks: np.ndarray = np.sign(values[:, None] - values).sum(1) / 2
    return ranks


def _agreement(step: StepScores, statistic: Callable[[np.ndarray, np.ndarray], float]) -> float:
    full = step.full_slopes()
    found = [statistic(cheap, full) for cheap in step.cheap_slopes()]
    return float(np.mean(found))


def _bootstrap(step: StepScores, figure: Callable[[StepScores], float], seed: int) -> Interval:
    """Resample candidates, and seeds of the full training."""
    rng = np.random.default_rng(seed)
    drawn: list[float] = []
    while len(drawn) < RESAMPLES:
        who, seeds = rng.integers(0, len(step.cost_ms), len(step.cost_ms)), rng.integers(0, step.full.shape[1], step.full.shape[1])
        if len(set(who.tolist())) > 2:
            part = StepScores(step.cost_ms[who], step.full[who][:, seeds], step.full_control[seeds], step.cheap[who], step.cheap_control)
            drawn.append(figure(part))
    return _interval(figure(step), drawn)


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    told = np.array(drawn)[~np.isnan(drawn)]  # scores that are all alike have no ranks
    low, high = np.percentile(told, [2.5, 97.5]) if told.size else (np.nan, np.nan)
    return Interval(value, float(low), float(high))
