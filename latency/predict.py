"""Latency of a whole network predicted from a table of layers, with an interval that says how far it may be off.

A network's convolutions are looked up in the table (between its rows: thin-plate splines over the logarithms of channels
and pixels), and their sum is corrected by a small model with no negative weight, fitted on measured networks: what
strided layers, resizes, sums and each operation cost inside a network.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.files import replace_file
from latency.layers import Conv, LayerRow, Layers, read_table
from latency.told import parse_json

SIZES = {"small": 25_000, "medium": 150_000, "large": math.inf}
"""Weights of a convolution up to which it is called so: how they fit the caches decides what it costs beside others."""

FEATURES = (
    *(f"stride {stride}, {size}" for stride in (1, 2) for size in SIZES),
    "first layer",
    "head",
    "resized elements",
    "moved elements",
    "operations",
    "constant",
)
MIN_GROUPS = 8

_ENDS = ("ratio_low", "ratio_high", "step_low", "step_high")


class LayerLookup:
    """Latency of any 3x3 convolution between the rows of a table. Raises `ValueError` for a table of too few rows."""

    def __init__(self, rows: Sequence[LayerRow]) -> None:
        from scipy.interpolate import RBFInterpolator

        self._known = {row.conv: row.latency_ms for row in rows}
        self._splines = {}
        for stride in (1, 2):
            mine = [row for row in rows if row.conv.stride == stride and row.conv.kernel == 3 and row.conv.groups == 1]
            if len(mine) < 8:
                raise ValueError(f"the layer table needs at least 8 convolutions of stride {stride}, it has {len(mine)}")
            points = np.array([_point(row.conv) for row in mine])
            # What is interpolated is the time a multiply-add takes: it varies far less than the time of a layer.
            values = np.array([math.log(row.latency_ms / row.conv.macs) for row in mine])
            try:
                self._splines[stride] = RBFInterpolator(points, values, kernel="thin_plate_spline", smoothing=1e-2)
            except np.linalg.LinAlgError as error:
                raise ValueError(f"the convolutions of stride {stride} in the layer table are too much alike: {error}") from error

    def outside(self, convs: Sequence[Conv]) -> str:
        """Which convolution lies beyond what the table spans, for a reader; empty where none does."""
        for stride in self._splines:
            mine = [conv for conv in self._known if conv.stride == stride and conv.kernel == 3]
            widest, largest = max(conv.channels_out for conv in mine), max(conv.height * conv.width for conv in mine)
            for conv in convs:
                if conv.kernel == 3 and conv.stride == stride and (conv.channels_out > widest or conv.height * conv.width > largest):
                    return f"{conv} on {conv.height}x{conv.width}"
        return ""

    def latency_ms(self, convs: Sequence[Conv]) -> np.ndarray:
        """Milliseconds of each convolution, in order."""
        found = np.array([self._known.get(conv, math.nan) for conv in convs])
        for stride, spline in self._splines.items():
            unknown = [index for index, conv in enumerate(convs) if math.isnan(found[index]) and conv.stride == stride]
            if unknown:
                points = np.array([_point(convs[index]) for index in unknown])
                found[unknown] = np.exp(spline(points)) * np.array([convs[index].macs for index in unknown])
        if np.isnan(found).any():
            raise ValueError(f"no row for {next(conv for conv, value in zip(convs, found, strict=True) if math.isnan(value))}")
        return found


def _point(conv: Conv) -> tuple[float, ...]:
    """Where a convolution lies between others. Tables hold stride 1 with equal channels only: they are one coordinate there."""
    channels, pixels = (math.log(conv.channels_in), math.log(conv.channels_out)), 0.5 * math.log(conv.height * conv.width)
    return (sum(channels) / 2, pixels) if conv.stride == 1 else (*channels, pixels)


@dataclass(frozen=True)
class Prediction:
    """A latency that was not measured: milliseconds, with the ends of its 95 % interval."""

    latency_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class Predictor:
    """A fitted predictor.

    Args:
        lookup: of single layers.
        weights: of `FEATURES`, none negative.
        ratio_low: measured over predicted, 2.5th percentile over the fitted networks, each left out of its own fit.
        ratio_high: likewise the 97.5th.
        step_low: the 5th percentile of the same, once a prediction is scaled by what its relatives were off.
        step_high: likewise the 95th.
    """

    lookup: LayerLookup
    weights: tuple[float, ...]
    ratio_low: float
    ratio_high: float
    step_low: float
    step_high: float

    def predict(self, layers: Layers) -> Prediction:
        """Latency of a network with these layers."""
        value = float(features(self.lookup, layers) @ np.array(self.weights))
        return Prediction(value, value * self.ratio_low, value * self.ratio_high)

    def from_relatives(self, predicted: Prediction, ratios: Sequence[float]) -> Prediction:
        """A prediction, narrowed by networks much like it that were measured: what these were off, it will be off, too.

        Its interval is a 90 % one: what it leaves out wrongly costs a search a k whose latency is nearly as near.

        Args:
            predicted: of the network.
            ratios: measured over predicted, of the network it grew from and of others that did; at least one.
        """
        value = predicted.latency_ms * statistics.median(ratios)
        return Prediction(value, value * self.step_low, value * self.step_high)

    def save(self, path: Path, table: Path, **provenance: Any) -> None:
        """Write the weights as JSON, whole or not at all, beside the table they were fitted to, whose hash they carry."""
        values = {"features": FEATURES, "weights": self.weights, **{name: getattr(self, name) for name in _ENDS}}
        text = json.dumps({**values, "table_sha256": _sha256(table), **provenance}, indent=2) + "\n"
        replace_file(path, text.encode())

    @classmethod
    def load(cls, path: Path, table: Path) -> Predictor:
        """The inverse of `save`. Raises `ValueError` for a damaged file, one of another version, or beside another table."""
        rows = read_table(table)
        try:
            values = parse_json(path.read_text())
            if tuple(values["features"]) != FEATURES:
                raise ValueError(f"it has the features {values['features']}, this version {list(FEATURES)}")
            if values["table_sha256"] != _sha256(table):
                raise ValueError(f"{table.name} is not the table it was fitted to")
            weights, ends = tuple(map(float, values["weights"])), {name: float(values[name]) for name in _ENDS}
            if len(weights) != len(FEATURES) or not all(0 <= weight < math.inf for weight in weights):
                raise ValueError(f"it needs {len(FEATURES)} weights, none negative, got {values['weights']}")
            if not all(0 < end < math.inf for end in ends.values()):
                raise ValueError(f"the ends of its intervals must be above 0, got {ends}")
            return cls(LayerLookup(rows), weights, **ends)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no predictor: {error}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def features(lookup: LayerLookup, layers: Layers) -> np.ndarray:
    """The sums the model weighs, in the order of `FEATURES`."""
    body = [conv for conv in layers.convs if conv.kernel == 3]
    times = lookup.latency_ms(body)
    groups = dict.fromkeys(FEATURES[: 2 * len(SIZES) + 1], 0.0)
    for conv, value in zip(body, times, strict=True):
        groups["first layer" if conv.channels_in <= 3 else f"stride {conv.stride}, {_size(conv)}"] += float(value)
    head = sum(conv.macs for conv in layers.convs if conv.kernel == 1) / 1e6
    return np.array([*groups.values(), head, layers.resized / 1e6, layers.moved / 1e6, layers.operations / 100, 1.0])


def _size(conv: Conv) -> str:
    weights = conv.kernel**2 * conv.channels_in * conv.channels_out // conv.groups
    return next(name for name, most in SIZES.items() if weights <= most)


def fit(rows: Sequence[LayerRow], groups: Sequence[Sequence[Layers]], latencies_ms: Sequence[Sequence[float]]) -> Predictor:
    """Fit the weights to measured networks by relative error.

    Args:
        rows: the layer table.
        groups: of relatives, a network and expansions of it, at least two each.
        latencies_ms: of them, in the same order.

    Raises:
        ValueError: fewer than `MIN_GROUPS` groups, a group of one, or a table of too few rows.
    """
    if len(groups) < MIN_GROUPS:
        raise ValueError(f"a fit needs at least {MIN_GROUPS} groups of measured networks, got {len(groups)}")
    if min(map(len, groups)) < 2:
        raise ValueError("a group needs at least two networks, got one of one")
    lookup = LayerLookup(rows)
    matrix = np.array([features(lookup, layers) for group in groups for layers in group])
    measured = np.array([latency for group in latencies_ms for latency in group])
    member = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    single, step = [], []
    for left_out in range(len(groups)):
        mine = member == left_out
        off = measured[mine] / (matrix[mine] @ _weights(matrix[~mine], measured[~mine]))
        single += list(off)
        step += [one / np.median(np.delete(off, index)) for index, one in enumerate(off)]
    ends = [float(end) for ratios, outside in ((single, 2.5), (step, 5)) for end in np.percentile(ratios, [outside, 100 - outside])]
    return Predictor(lookup, tuple(float(w) for w in _weights(matrix, measured)), *ends)


def _weights(matrix: np.ndarray, measured: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    found: np.ndarray = nnls(matrix / measured[:, None], np.ones(len(measured)))[0]
    return found


@dataclass(frozen=True)
class ErrorReport:
    """How far predictions lay from measurements of networks that no fit had seen.

    Args:
        networks: how many.
        within_10_percent: share predicted within 10 % of the measurement.
        median_error: median of |predicted / measured - 1|.
        worst_error: the largest.
        worst: which network that was.
        spearman: rank correlation.
        inside_interval: share whose measurement lay in the predicted interval.
    """

    networks: int
    within_10_percent: float
    median_error: float
    worst_error: float
    worst: str
    spearman: float
    inside_interval: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def report_errors(names: Sequence[str], predictions: Sequence[Prediction], measured_ms: Sequence[float]) -> ErrorReport:
    """Compare predictions with measurements, in the same order."""
    from scipy.stats import spearmanr

    predicted, measured = np.array([p.latency_ms for p in predictions]), np.array(measured_ms)
    errors = np.abs(predicted / measured - 1)
    inside = [p.low_ms <= value <= p.high_ms for p, value in zip(predictions, measured, strict=True)]
    return ErrorReport(
        networks=len(names),
        within_10_percent=float((errors <= 0.1).mean()),
        median_error=float(np.median(errors)),
        worst_error=float(errors.max()),
        worst=names[int(errors.argmax())],
        spearman=float(spearmanr(predicted, measured).statistic),
        inside_interval=float(np.mean(inside)),
    )
