"""Networks and searches that a run is shown beside: folders of `compare`, `bench-table` and `rival`. They are only read.

A network is drawn beside the run's own where its latency was taken under the run's conditions in the run's environment and its
mIoU is of the run's data set; else it is a row that says what differs.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency.measurement import Environment
from latency.told import parse_json
from lpsnet.data import data_name
from lpsnet.errors import UserError
from search.executor import conditions
from search.files import csv_rows
from search.pages.facts import Omission, RunFacts
from search.pages.latencies import NOISE_FILES, read_noise

COMPARED, BENCH = "compare", "bench-table"
LIVE = re.compile(r"live_[^_]+_\d+\.csv")
"""Of a live search and a seed; others of its files say more after the seed."""

LOOKED_FOR = "compare.json (compare), networks.csv and trainings.csv (bench-table), summary.csv or live_*.csv (rival), noise_floor.json"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network from elsewhere.

    Args:
        name: what it is called there.
        source: which command and folder it is from.
        group: what it is drawn with.
        latency_ms: at the run's boundary, None where it has none.
        miou_percent: None where it has none.
        parameters: None where they are not told.
        macs_giga: likewise.
        scored: where its mIoU is from.
        apart: why it is not drawn beside the run's own, or why it has no figures; empty where it is drawn.
    """

    name: str
    source: str
    group: str
    latency_ms: float | None
    miou_percent: float | None
    parameters: float | None = None
    macs_giga: float | None = None
    scored: str = ""
    apart: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A search of `rival` at its end, its way there (mean hypervolume after some spent seconds), and what does not compare with the run."""

    sampler: str
    seeds: int
    hypervolume: float
    low: float
    high: float
    curve: tuple[tuple[float, float], ...]
    apart: str = ""


@dataclass
class Others:
    """What was found in the folders."""

    networks: list[Network] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    noise: tuple[Path, dict[str, Any]] | None = None
    folders: list[Path] = field(default_factory=list)


def read_others(facts: RunFacts, given: list[Path]) -> Others:
    """Read the folders that are named, and those that lie in the run's folder or beside it.

    What was found beside but does not compare, or cannot be read, becomes an omission of `facts`.

    Raises:
        UserError: a named folder that holds nothing of the kind, or something damaged.
    """
    others, named = Others(), {folder.resolve() for folder in given}
    for folder in given:
        if not _read_folder(facts, folder, others):
            raise UserError(f"{folder} holds no results to show beside a run; looked for {LOOKED_FOR}")
    for folder in _beside(facts.run.path):
        if folder.resolve() in named:
            continue
        found = Others(noise=others.noise)
        try:
            if not _read_folder(facts, folder, found):
                continue
        except UserError as error:
            facts.omissions.append(Omission("comparison", str(folder), str(error)))
            continue
        apart = sorted({network.apart for network in found.networks if network.apart})
        if found.networks and not any(not network.apart for network in found.networks):
            facts.omissions.append(
                Omission("comparison", str(folder), f"found beside the run, but it does not compare: {'; '.join(apart)}")
            )
            found.networks, found.folders = [], []
        for name in ("networks", "standings", "folders"):
            getattr(others, name).extend(getattr(found, name))
        others.noise = found.noise
    return others


def _beside(run: Path) -> list[Path]:
    """The run's folder, and those in it and beside it."""
    around = [run]
    for parent in (run, run.resolve().parent):
        try:
            around += sorted(child for child in parent.iterdir() if child.is_dir() and child.resolve() != run.resolve())
        except OSError:
            continue
    return around


def _read_folder(facts: RunFacts, folder: Path, others: Others) -> bool:
    """Add what a folder holds; False where it holds nothing of the kind."""
    before = (len(others.networks), len(others.standings), others.noise)
    for name in NOISE_FILES:
        if others.noise is None and (folder / name).is_file():
            others.noise = (folder / name, read_noise(folder / name))
    if (folder / "compare.json").is_file():
        others.networks += _compared(facts, folder)
    if (folder / "networks.csv").is_file() and (folder / "trainings.csv").is_file():
        others.networks += _bench(facts, folder)
    for path in sorted(folder.glob("live_*.csv")):
        if LIVE.fullmatch(path.name):
            others.networks += _live(facts, path)
    if (folder / "summary.csv").is_file() and (folder / "curves.csv").is_file():
        others.standings += _standings(facts, folder)
    changed = before != (len(others.networks), len(others.standings), others.noise)
    if changed:
        others.folders.append(folder)
    return changed


def differences(facts: RunFacts, at: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """What keeps latencies from comparing with the run's, besides the boundary and how long was sampled."""
    own = dataclasses.asdict(conditions(facts.run.config))
    names = ("backend", "device", "shape", "precision", "threads")
    found = [
        f"{name} {at.get(name)!r}, not {_plain(own[name])!r}" for name in names if _plain(at.get(name, "unknown")) != _plain(own[name])
    ]
    if not environment:
        return [*found, "its environment is not told"]
    try:
        there = Environment.from_dict({name: environment[name] for name in ("device", "cores", "driver", "versions")})
        return found + there.differences(facts.run.environment)
    except (KeyError, TypeError, ValueError, AttributeError):
        return [*found, "its environment cannot be read"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _compared(facts: RunFacts, folder: Path) -> list[Network]:
    told = _json(folder / "compare.json")
    try:
        apart = differences(facts, told["conditions"], told["environment"])
        return [_compared_row(facts, folder, row, apart) for row in told["rows"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'compare.json'} is no comparison: {error!r}") from error


def _compared_row(facts: RunFacts, folder: Path, row: Mapping[str, Any], differ: list[str]) -> Network:
    config = facts.run.config
    apart = list(differ)
    if row["input"] != f"{config.height}x{config.width}":
        apart.append(f"input {row['input']}, not {config.height}x{config.width}")
    if row.get("miou_percent") is not None and row.get("data") != facts.data:
        apart.append(f"mIoU on {row.get('data') or 'unknown data'}, not {facts.data}")
    if (size := row.get("miou_input") or row["input"]) != row["input"]:
        apart.append(f"mIoU at {size}, latency at {row['input']}")
    if row.get("seen"):
        apart.append("trained on the frames it was scored on")
    network = Network(
        name=str(row["network"]),
        source=f"{COMPARED}: {folder}",
        group=str(row.get("paper") or "other networks"),
        latency_ms=_positive(row.get(f"latency_{config.boundary}_ms")),
        miou_percent=_float(row.get("miou_percent")),
        parameters=_float(row.get("parameters")),
        macs_giga=_float(row.get("macs_giga")),
        scored=str(row.get("miou_from") or ""),
    )
    return _placed(facts, network, apart, str(row.get("failure") or ""))


def _placed(facts: RunFacts, network: Network, differ: list[str], failure: str = "") -> Network:
    """A network with the reasons why it is not drawn: its failure, else what differs and what it lacks."""
    lacks = [f"no latency to the {facts.run.config.boundary}"] if network.latency_ms is None else []
    lacks += ["no mIoU"] if network.miou_percent is None else []
    return dataclasses.replace(network, apart=failure or "; ".join([*differ, *lacks]))


def _bench(facts: RunFacts, folder: Path) -> list[Network]:
    """Networks of a tabular benchmark, each with its mean mIoU under the setting that most have."""
    summary = _json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    apart = _study_differences(facts, summary)
    scores: dict[str, dict[str, list[float]]] = {}
    for row in _rows(folder / "trainings.csv", "architecture", "setting", "miou_percent"):
        miou = _float(row["miou_percent"])
        if miou is not None:
            scores.setdefault(row["setting"], {}).setdefault(row["architecture"], []).append(miou)
    setting, found = max(scores.items(), key=lambda one: len(one[1]), default=("", {}))
    networks = []
    for row in _rows(folder / "networks.csv", "architecture", "latency_ms", "parameters", "macs_giga"):
        mious = found.get(row["architecture"])
        network = Network(
            name=row["architecture"],
            source=f"{BENCH}: {folder}",
            group="drawn at random (bench-table)",
            latency_ms=_positive(row["latency_ms"]),
            miou_percent=statistics.fmean(mious) if mious else None,
            parameters=_float(row["parameters"]),
            macs_giga=_float(row["macs_giga"]),
            scored=f"{setting}, mean of {len(mious)}" if mious else "",
        )
        networks.append(_placed(facts, network, apart))
    return networks


def _live(facts: RunFacts, path: Path) -> list[Network]:
    """What a live search of `rival` saw."""
    beside = path.with_suffix(".json")
    apart = _study_differences(facts, _json(beside) if beside.is_file() else {})
    networks = [
        Network(
            name=row["architecture"],
            source=f"rival: {path}",
            group=f"{row['sampler']} (rival)",
            latency_ms=_positive(row["latency_ms"]),
            miou_percent=_float(row["miou_percent"]),
            scored=f"trained by {row['sampler']}",
        )
        for row in _rows(path, "sampler", "architecture", "latency_ms", "miou_percent")
    ]
    return [_placed(facts, network, apart) for network in networks]


def _study_differences(facts: RunFacts, told: Mapping[str, Any]) -> list[str]:
    """What keeps a study's networks from comparing; `told` is its JSON with configuration and environment."""
    config = told.get("config")
    if not isinstance(config, dict):
        return ["its conditions are not told"]
    at = {**config, "shape": [1, 3, config.get("height"), config.get("width")], "precision": "fp32"}
    environment = told.get("environment")
    found = differences(facts, at, environment if isinstance(environment, dict) else {})
    if config.get("boundary") != facts.run.config.boundary:
        found.append(f"boundary {config.get('boundary')!r}, not {facts.run.config.boundary!r}")
    data = data_name(str(config.get("data")))
    return found if data == facts.data else [*found, f"mIoU on {data}, not {facts.data}"]


def _standings(facts: RunFacts, folder: Path) -> list[Standing]:
    told = _json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    apart = "; ".join(_study_differences(facts, told))
    curves: dict[str, dict[float, list[float]]] = {}
    try:
        for row in _rows(folder / "curves.csv", "sampler", "spent_s", "hypervolume"):
            curves.setdefault(row["sampler"], {}).setdefault(float(row["spent_s"]), []).append(float(row["hypervolume"]))
        return [
            Standing(
                sampler=row["sampler"],
                seeds=int(row["seeds"]),
                hypervolume=float(row["hypervolume"]),
                low=_interval_end(row["low"]),
                high=_interval_end(row["high"]),
                curve=tuple((at, statistics.fmean(values)) for at, values in sorted(curves.get(row["sampler"], {}).items())),
                apart=apart,
            )
            for row in _at_the_end(_rows(folder / "summary.csv", "sampler", "seeds", "hypervolume", "low", "high"))
        ]
    except ValueError as error:
        raise UserError(f"{folder} is no result of rival: {error}") from error


def _at_the_end(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Of a summary at several moments the rows of the last. Raises `ValueError`."""
    moments = [float(row.get("spent_s") or 0) for row in rows]
    return [row for row, moment in zip(rows, moments, strict=True) if moment == max(moments)]


def _interval_end(value: str) -> float:
    found = _float(value)
    return math.nan if found is None else found


def _rows(path: Path, *names: str) -> list[dict[str, str]]:
    """The rows of a CSV file that hold these columns; a last line that a kill has torn is no row. Raises `UserError`."""
    try:
        text = path.read_text()
        rows = csv_rows(text[: text.rfind("\n") + 1])
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    missing = [name for name in names if rows and name not in rows[0]]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    return rows


def _json(path: Path) -> dict[str, Any]:
    try:
        told = parse_json(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise UserError(f"{path} cannot be read: expected an object, found {type(told).__name__}")
    return told


def _float(value: Any) -> float | None:
    """A finite number, from a number or its text; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    """A latency: a finite number above 0, None for anything else."""
    found = _float(value)
    return found if found is not None and found > 0 else None
