"""What a search is run on when searches are compared: networks that have a latency, an mIoU, and a price for asking.

`Surrogate` answers from a fit to the tabular benchmark in microseconds, with the noise of a training; `Live` measures and trains.
Both charge seconds, and a search ends when its budget is spent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lpsnet.architecture import Architecture
from search.space import SCALE_SLOTS


@dataclass(frozen=True)
class Seen:
    """A network that a search has had trained: its latency and mIoU, and the seconds spent until then."""

    architecture: Architecture
    latency_ms: float
    miou_percent: float
    spent_s: float


class OutOfBudget(Exception):
    """The search has spent what it may."""


class Problem(Protocol):
    """What a search may ask. Networks above `slowest_ms` do not count, and no search need train them."""

    seen: list[Seen]
    slowest_ms: float

    def latency(self, architecture: Architecture) -> float:
        """Milliseconds. Raises `OutOfBudget`."""
        ...

    def miou(self, architecture: Architecture) -> float:
        """Percent, of a training; asked again, the same. Raises `OutOfBudget`."""
        ...


@dataclass
class Budgeted:
    """Charges for answers, each network once, and keeps what was seen.

    Args:
        latency_of: answer and its seconds.
        miou_of: likewise.
        budget_s: seconds that may be spent.
        slowest_ms: see `Problem`.
    """

    latency_of: Callable[[Architecture], tuple[float, float]]
    miou_of: Callable[[Architecture], tuple[float, float]]
    budget_s: float
    slowest_ms: float = math.inf
    seen: list[Seen] = field(default_factory=list)
    spent_s: float = 0.0
    _latencies: dict[Architecture, float] = field(default_factory=dict)
    _mious: dict[Architecture, float] = field(default_factory=dict)

    def latency(self, architecture: Architecture) -> float:
        """See `Problem.latency`."""
        if architecture not in self._latencies:
            self._latencies[architecture] = self._paid(self.latency_of, architecture)
        return self._latencies[architecture]

    def miou(self, architecture: Architecture) -> float:
        """See `Problem.miou`; the network's latency is asked for, too."""
        if architecture not in self._mious:
            latency = self.latency(architecture)
            self._mious[architecture] = self._paid(self.miou_of, architecture)
            self.seen.append(Seen(architecture, latency, self._mious[architecture], self.spent_s))
        return self._mious[architecture]

    def _paid(self, answer: Callable[[Architecture], tuple[float, float]], architecture: Architecture) -> float:
        if self.spent_s >= self.budget_s:
            raise OutOfBudget
        value, seconds = answer(architecture)
        self.spent_s += seconds
        return value


def features(architecture: Architecture) -> np.ndarray:
    """(13,): logarithms of depths and widths, and the scales of the first paths; what a surrogate is fitted on."""
    scales = (architecture.scales + (0,) * SCALE_SLOTS)[:SCALE_SLOTS]
    depths, widths = np.log2(architecture.depths), np.log2(architecture.widths)
    return np.concatenate([depths, widths, np.log2(1 + np.array(scales))])


class Surrogate:
    """mIoU, latency and seconds of any network, fitted to a table of trained ones: Gaussian processes over `features`.

    Args:
        networks: of the table.
        mious: (networks, seeds), percent; NaN where a seed is missing.
        latencies: ms.
        seconds: of a training.

    Raises:
        ValueError: fewer than 12 networks.
    """

    def __init__(self, networks: Sequence[Architecture], mious: np.ndarray, latencies: Sequence[float], seconds: Sequence[float]) -> None:
        if len(networks) < 12:
            raise ValueError(f"a surrogate needs at least 12 trained networks, the table has {len(networks)}")
        points = np.array([features(network) for network in networks])
        self._center, spread = points.mean(0), points.std(0)
        self._scale = np.where(spread > 0, spread, 1.0)
        scaled = (points - self._center) / self._scale
        self._fits = {
            "miou": _Process(scaled, np.nanmean(mious, 1)),
            "latency": _Process(scaled, np.log(latencies)),
            "seconds": _Process(scaled, np.log(seconds)),
        }
        spreads = np.nanvar(mious, 1, ddof=1) if mious.shape[1] > 1 else np.array([np.nan])
        self.seed_sd = float(np.sqrt(np.nanmean(spreads))) if np.isfinite(spreads).any() else 0.0

    def value(self, kind: str, architecture: Architecture) -> float:
        """Expected "miou" in percent, "latency" in ms, or "seconds"."""
        found = self._fits[kind].mean((features(architecture) - self._center) / self._scale)
        return found if kind == "miou" else math.exp(found)

    def left_out(self, kind: str) -> np.ndarray:
        """(networks,): error of each when it is left out, in points of mIoU or in logarithms."""
        return self._fits[kind].left_out()

    def quality(self) -> dict[str, float]:
        """How far to trust it: root mean square errors of networks left out, in points and as shares, and the noise of a seed in points."""
        errors = {kind: float(np.sqrt((self.left_out(kind) ** 2).mean())) for kind in self._fits}
        return {
            "miou_points": errors["miou"],
            "latency_share": errors["latency"],
            "seconds_share": errors["seconds"],
            "seed_sd": self.seed_sd,
        }

    def problem(self, budget_s: float, seed: int, slowest_ms: float = math.inf, *, latency_s: float = 0.0) -> Budgeted:
        """A problem of this surrogate, where a latency costs so many seconds: the same network has the same luck with the same seed."""

        def miou(architecture: Architecture) -> tuple[float, float]:
            luck = random.Random(f"{seed} {architecture}").gauss(0.0, self.seed_sd)
            return self.value("miou", architecture) + luck, self.value("seconds", architecture)

        return Budgeted(lambda architecture: (self.value("latency", architecture), latency_s), miou, budget_s, slowest_ms)


class _Process:
    """A Gaussian process with a linear mean and a squared exponential kernel; length and noise by leave-one-out error."""

    def __init__(self, points: np.ndarray, values: np.ndarray) -> None:
        self._points, self._values = points, values
        base = np.column_stack([np.ones(len(points)), points])
        ridge = np.eye(base.shape[1]) * 0.1 * (np.arange(base.shape[1]) > 0)
        self._slope = np.linalg.solve(base.T @ base + ridge, base.T @ values)
        self._rest = values - base @ self._slope
        lengths, noises = (1.0, 2.0, 3.0, 5.0, 8.0), (0.03, 0.1, 0.3, 1.0)
        self._length, self._noise = min(
            ((length, noise) for length in lengths for noise in noises), key=lambda pair: float((self._errors(*pair) ** 2).mean())
        )
        self._weights = np.linalg.solve(self._kernel(points, self._length) + self._noise * np.eye(len(points)), self._rest)

    def mean(self, point: np.ndarray) -> float:
        linear = float(self._slope[0] + point @ self._slope[1:])
        return linear + float(self._kernel(point[None], self._length)[0] @ self._weights)

    def left_out(self) -> np.ndarray:
        return self._errors(self._length, self._noise)

    def _errors(self, length: float, noise: float) -> np.ndarray:
        """Leave-one-out residuals in closed form (Rasmussen and Williams, 2006, eq. 5.12)."""
        inverse = np.linalg.inv(self._kernel(self._points, length) + noise * np.eye(len(self._points)))
        errors: np.ndarray = (inverse @ self._rest) / np.diag(inverse)
        return errors

    def _kernel(self, points: np.ndarray, length: float) -> np.ndarray:
        squares = ((points[:, None] - self._points) ** 2).sum(-1)
        values: np.ndarray = np.exp(-squares / (2 * length**2))
        return values
