"""Which layers and networks stand for the search space at an input size, and the predictor made from their latencies.

Joins the networks of the search with the layer tables of `latency`; both halves know nothing of each other.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from latency.backends import make_backend
from latency.environment import environment
from latency.layers import Conv, LayerRow, measure_layers, write_table
from latency.measure import measure_steady
from latency.predict import MIN_GROUPS, ErrorReport, Prediction, Predictor, fit, report_errors
from latency.store import Store
from lpsnet.architecture import EIGHTHS, NAMED, Architecture
from lpsnet.complexity import complexity
from lpsnet.errors import UserError
from lpsnet.network import LPSNet
from search.forecast import PREDICTOR_FILE, TABLE_FILE, layers_of_architecture
from search.observer import Observer
from search.run import make_folder, provenance, write_json
from search.space import OPERATIONS, Bounds, expansion

FIT_FILE, TEST_FILE = "predictor_fit.csv", "predictor_test.csv"
ERROR_FILE = "predictor_error.json"

_WIDTHS = ((4, 8, 12, 16, 24, 32), (8, 16, 24, 32, 48, 64), (16, 32, 48, 64, 96, 128), (32, 64, 96, 128, 160, 192, 256))
"""Channels in the table for stages 1 to 4; the fifth is like the fourth."""

_SCALES = (2, 4, 8, 12)
"""Path scales in the table, in eighths."""

CLASSES = 19

BOUNDS = Bounds(max_scale=1.5, max_width=256, max_depth=16)
"""Of the networks a predictor is fitted to and tested on."""

EXPANSIONS = 3
"""Random expansions measured beside each network a predictor is fitted to."""

_DRAWS = 50
"""Networks drawn at most for each that is wanted."""

LEAST_SIZE = 32
"""Smallest extent of an image for which the layers of the table are of different sizes."""


def table_convs(size: tuple[int, int]) -> tuple[Conv, ...]:
    """The convolutions whose latencies span the space for images of `size` (height, width)."""
    found = set()
    for scale in _SCALES:
        height, width = (extent * scale // EIGHTHS for extent in size)
        found |= {Conv(3, channels, height, width, stride=2) for channels in _WIDTHS[0]}
        for stage, widths in enumerate(_WIDTHS):
            height, width = -(-height // 2), -(-width // 2)
            found |= {Conv(channels, channels, height, width) for channels in widths}
            if stage + 1 < len(_WIDTHS):
                pairs = [(before, after) for before in widths for after in _WIDTHS[stage + 1] if before <= after <= 8 * before]
                found |= {Conv(before, after, height, width, stride=2) for before, after in pairs[::2]}
    return tuple(sorted(conv for conv in found if min(conv.height, conv.width) > 0))


def random_architectures(
    count: int, seed: int, size: tuple[int, int], *, max_macs: float, exclude: set[Architecture]
) -> list[Architecture]:
    """Distinct networks reached from N0 by random operations, each within `max_macs` multiply-adds at `size`.

    The same seed gives the same networks; those in `exclude` are left out and then added to it.

    Raises:
        UserError: there are not so many within `max_macs`.
    """
    generator = random.Random(seed)
    found: list[Architecture] = []
    smallest = complexity(NAMED["N0"], CLASSES, size).macs
    for _ in range(_DRAWS * count + 1 if smallest <= max_macs else 0):
        if len(found) == count:
            return found
        network = NAMED["N0"]
        for _ in range(generator.randint(1, 10)):
            grown = expansion(network, generator.choice(OPERATIONS), generator.randint(1, 3))
            network = grown if BOUNDS.allow(grown) else network
        if network not in exclude and complexity(network, CLASSES, size).macs <= max_macs:
            exclude.add(network)
            found.append(network)
    raise UserError(
        f"only {len(found)} of {count} different networks were found within {max_macs / 1e9:g} G MACs at {size[0]}x{size[1]} "
        f"(N0 alone has {smallest / 1e9:.4f}); raise --max-macs or lower --fit and --test"
    )


@dataclass(frozen=True)
class Measured:
    """A network and its measured latency in milliseconds."""

    architecture: Architecture
    latency_ms: float
    stable: bool


def measure_networks(
    architectures: Sequence[Architecture],
    size: tuple[int, int],
    store: Store,
    *,
    on_network: Callable[[int, int], None] = lambda done, total: None,
    **conditions: Any,
) -> list[Measured]:
    """Latency to the scores of each network, with `CLASSES` classes; what the store knows is not measured again.

    An unstable measurement is repeated (see `measure_steady`).
    """
    rows = []
    for number, architecture in enumerate(architectures):
        on_network(number, len(architectures))
        network, subject = LPSNet(architecture, CLASSES, deployed=True), f"{architecture} classes={CLASSES}"
        found = measure_steady(network, size=size, boundary="scores", subject=subject, store=store, **conditions)
        rows.append(Measured(architecture, found.latency_ms, found.verdict().stable))
    on_network(len(architectures), len(architectures))
    return rows


def relatives(networks: Sequence[Architecture], seed: int, size: tuple[int, int], *, max_macs: float) -> list[list[Architecture]]:
    """Each network with `EXPANSIONS` random expansions of it, within the bounds of `random_architectures`."""
    generator = random.Random(seed)
    found = []
    for network in networks:
        grown = list(dict.fromkeys(expansion(network, operation, k) for operation in OPERATIONS for k in (1, 2, 4)))
        generator.shuffle(grown)
        fitting = (one for one in grown if BOUNDS.allow(one) and complexity(one, CLASSES, size).macs <= 3 * max_macs)
        found.append([network, *islice(fitting, EXPANSIONS)])
    return found


def fit_predictor(rows: Sequence[LayerRow], groups: Sequence[Sequence[Measured]], size: tuple[int, int]) -> Predictor:
    """A predictor from a layer table and measured groups of relatives; networks that stayed unstable are left out.

    Raises:
        UserError: fewer than `MIN_GROUPS` groups hold two stable measurements.
    """
    steady = [[one for one in group if one.stable] for group in groups]
    steady = [group for group in steady if len(group) > 1]
    if len(steady) < MIN_GROUPS:
        raise UserError(
            f"only {len(steady)} of {len(groups)} groups of networks could be measured steadily, {MIN_GROUPS} are needed; "
            "stop what else uses the device, or raise --fit or --seconds"
        )
    layers = [[layers_of_architecture(one.architecture, CLASSES, size) for one in group] for group in steady]
    return fit(rows, layers, [[one.latency_ms for one in group] for group in steady])


def assess_predictor(predictor: Predictor, networks: Sequence[Measured], size: tuple[int, int]) -> tuple[list[Prediction], ErrorReport]:
    """Predictions for measured networks that the fit has not seen, and how far they lay off."""
    found = [predictor.predict(layers_of_architecture(one.architecture, CLASSES, size)) for one in networks]
    return found, report_errors([str(one.architecture) for one in networks], found, [one.latency_ms for one in networks])


@dataclass(frozen=True, kw_only=True)
class PredictorPlan:
    """What a predictor is made from and tested on.

    Args:
        size: (height, width) of the image.
        fitted: networks it is fitted to, each with `EXPANSIONS` expansions.
        tested: networks it is tested on.
        max_macs: multiply-adds of the largest.
        seed: of the fitted networks; the tested ones come from the next seed.
    """

    size: tuple[int, int]
    fitted: int
    tested: int
    max_macs: float
    seed: int


def make_predictor(study: PredictorPlan, out: Path, observer: Observer, **conditions: Any) -> ErrorReport:
    """Measure the layer table, fit, test on networks drawn after the fit, and write all of it to `out`.

    Killed and started again it goes on: every measurement is in the store.

    Raises:
        MeasurementFailed: a layer or network cannot be measured.
        UserError: the folder cannot be written.
    """
    _check_study(study, out)
    watch = partial(observer.work, "latencies", detail="networks")
    draw = partial(random_architectures, size=study.size, max_macs=study.max_macs)

    def timed(networks: Sequence[Architecture]) -> list[Measured]:
        return measure_networks(networks, study.size, on_network=watch, **conditions)

    parents = draw(study.fitted, study.seed, exclude=set())
    groups = relatives(parents, study.seed, study.size, max_macs=study.max_macs)
    convs, rows = table_convs(study.size), []
    for number, conv in enumerate(convs):
        observer.work("latencies", number, len(convs), str(conv))
        rows += measure_layers([conv], **conditions)
    write_table(out / TABLE_FILE, rows)
    networks = [network for group in groups for network in group]
    # One group after another, so that what the machine does meanwhile meets relatives alike, as it does in a search.
    fitted = timed(networks)
    write_networks(out / FIT_FILE, fitted)
    taken = iter(fitted)
    predictor = fit_predictor(rows, [list(islice(taken, len(group))) for group in groups], study.size)
    at = {name: conditions[name] for name in ("backend", "device", "threads")}
    here = asdict(environment(make_backend(at["backend"]), at["device"]))
    told = {
        "input_size": study.size,
        "classes": CLASSES,
        "boundary": "scores",
        "seed": study.seed,
        **at,
        "environment": here,
        **provenance(),
    }
    predictor.save(out / PREDICTOR_FILE, out / TABLE_FILE, **told)
    # Drawn only now: nothing about them can have entered the fit.
    tested = timed(draw(study.tested, study.seed + 1, exclude=set(networks)))
    predictions, report = assess_predictor(predictor, tested, study.size)
    write_networks(out / TEST_FILE, tested, predictions)
    write_json(out / ERROR_FILE, {**report.to_dict(), **told})
    return report


def _check_study(study: PredictorPlan, out: Path) -> None:
    make_folder(out)
    if min(study.size) < LEAST_SIZE:
        raise UserError(f"a predictor needs an input of at least {LEAST_SIZE}x{LEAST_SIZE}, got {study.size[0]}x{study.size[1]}")


def write_networks(path: Path, networks: Sequence[Measured], predictions: Sequence[Prediction] | None = None) -> None:
    """Write networks with their latencies, and predictions beside them, as CSV."""
    names = ["architecture", "latency_ms", "stable"] + (["predicted_ms", "low_ms", "high_ms"] if predictions else [])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for index, one in enumerate(networks):
            row: list[Any] = [one.architecture, f"{one.latency_ms:.6g}", one.stable]
            if predictions:
                row += [f"{value:.6g}" for value in (predictions[index].latency_ms, predictions[index].low_ms, predictions[index].high_ms)]
            writer.writerow(row)
