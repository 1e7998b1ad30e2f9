"""Where a network's latency is expected, from the predictor of a device: what lets a search spare measurements."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from latency.layers import Layers, layers_of
from latency.measure import at_boundary
from latency.measurement import Environment
from latency.predict import Prediction, Predictor
from latency.told import parse_json
from lpsnet.architecture import Architecture
from lpsnet.errors import UserError
from search.bracket import Forecast, Interval
from search.config import SearchConfig

TABLE_FILE, PREDICTOR_FILE = "predictor_layers.csv", "predictor.json"


def layers_of_architecture(architecture: Architecture, classes: int, size: tuple[int, int], boundary: str = "scores") -> Layers:
    """The layers of a deployed network up to a boundary."""
    import torch

    from lpsnet.network import LPSNet

    with torch.device("meta"):
        network = LPSNet(architecture, classes, deployed=True).eval()
    return layers_of(at_boundary(network, boundary), size)


def load_predictor(folder: Path) -> Predictor:
    """The predictor that `lps-search latency-predictor` left in a folder.

    Raises:
        UserError: there is none.
    """
    for name in (TABLE_FILE, PREDICTOR_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no predictor: {name} is missing; make one with lps-search latency-predictor --out {folder}")
    try:
        return Predictor.load(folder / PREDICTOR_FILE, folder / TABLE_FILE)
    except ValueError as error:
        raise UserError(str(error)) from error


def input_size(folder: Path) -> tuple[int, int]:
    """The (height, width) of the images that a predictor is for. Raises `UserError`."""
    size = _told(folder).get("input_size")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(extent, int) and extent > 0 for extent in size):
        raise UserError(f"{folder / PREDICTOR_FILE} is no predictor: its input_size is {size!r}")
    return size[0], size[1]


def _told(folder: Path) -> dict[str, Any]:
    """What the predictor's file holds. Raises `UserError`."""
    path = folder / PREDICTOR_FILE
    try:
        return dict(parse_json(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no predictor: {error}") from error


def check_predictor(folder: Path, config: SearchConfig, environment: Environment) -> None:
    """Refuse a predictor that was made for other conditions than the search's, or elsewhere.

    Raises:
        UserError: no predictor, or one for another input size, backend, device, number of threads, boundary, or environment.
    """
    load_predictor(folder)
    made = _told(folder)
    try:
        elsewhere = environment.differences(Environment.from_dict(made["environment"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / PREDICTOR_FILE} does not say where it was made ({error}); make one here") from error
    if elsewhere:
        raise UserError(f"the predictor in {folder} was made in another environment ({'; '.join(elsewhere)}); make one here")
    wanted = {
        "input_size": list(config.size),
        "backend": config.backend,
        "device": config.device,
        "threads": config.threads,
        "boundary": config.boundary,
    }
    different = [f"{name}: {made.get(name)!r}, not {value!r}" for name, value in wanted.items() if made.get(name) != value]
    if different:
        raise UserError(f"the predictor in {folder} was made for other conditions ({'; '.join(different)}); make one for these")


def forecaster(folder: Path, classes: int, size: tuple[int, int]) -> Forecast:
    """A forecast from the predictor in a folder; each network is looked at once."""
    predictor = load_predictor(folder)

    @cache
    def predicted(architecture: Architecture) -> Prediction:
        return predictor.predict(layers_of_architecture(architecture, classes, size))

    def forecast(relatives: Mapping[Architecture, float]) -> Interval:
        ratios = [latency_ms / predicted(relative).latency_ms for relative, latency_ms in relatives.items()]

        def interval(architecture: Architecture) -> tuple[float, float]:
            found = predictor.from_relatives(predicted(architecture), ratios)
            return found.low_ms, found.high_ms

        return interval

    return forecast
