"""The picks of a run as files to hand on: for each a folder with checkpoint, ONNX graph, engine and model card, and one manifest.

    package/manifest.json  package/NAME/model.safetensors  model.onnx  model.engine  README.md

A pick's folder is laid out as a repository on the Hub. The checkpoint is that of the full training (`train --from RUN --pick NAME`)
where there is one, else that of the search's short one. Whatever is there already and still fits is kept, so that a call that was
cut short goes on. The manifest is written last and removed first: where it is, all is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.engine import EngineOptions
from latency.measurement import Measurement
from latency.protocols import BackendError, MeasurementFailed
from latency.state import compute_capability
from latency.told import parse_json
from lpsnet.architecture import Architecture
from lpsnet.checkpoint import Metadata, load, read_metadata, write_atomic
from lpsnet.data import DATASETS, DataSpec, data_name
from lpsnet.errors import UserError
from search.cards import card
from search.executor import conditions, subject
from search.export import ExportPlan, export_engine, export_onnx
from search.family_memory import known_memory
from search.files import digest_of, markdown_table
from search.observer import Observer
from search.picks import Picked, check_chain, check_remembered, read_picks, training_folder
from search.run import Run, provenance, read_json
from search.step import Step
from search.training_folder import finished_weights, held

FORMAT = 1
MANIFEST = "manifest.json"
CHECKPOINT, GRAPH, ENGINE, CARD = "model.safetensors", "model.onnx", "model.engine", "README.md"
FULL, SHORT = "full training", "short training of the search"


@dataclass(frozen=True, kw_only=True)
class PackagePlan:
    """What is made of each pick besides its checkpoint.

    Args:
        boundary: where the graph ends.
        precision: of graph and engine, "fp32" or "fp16".
        normalised: the graph holds the normalisation.
        flavour: of the engine.
        engine: its options; None for no engine.
        no_engine: why there is none, where `engine` is None.
    """

    boundary: str = "labels"
    precision: str = "fp32"
    normalised: bool = False
    flavour: str = "tensorrt-rtx"
    engine: EngineOptions | None = None
    no_engine: str = "not asked for"


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a pick's weights come from."""

    name: str
    pick: Picked
    path: Path
    sha256: str
    training: str
    told: Metadata


def write_package(run: Run, steps: list[Step], names: Sequence[str], plan: PackagePlan, out: Path, observer: Observer) -> dict[str, Any]:
    """Write picks of a run to a folder; returns the manifest.

    Args:
        run: an open run.
        steps: its chain.
        names: of picks; all where there are none.
        plan: what is made.
        out: the folder.
        observer: told of each file that is made, and why there is no engine.

    Raises:
        UserError: no or unknown picks, weights that are gone or changed, a network that cannot be exported, a folder that cannot
            be written or is in use.
    """
    picks = read_picks(run.path)
    wanted = check_remembered(list(names), picks, run.path)
    check_chain(run.path, steps, picks)
    sources = [_source(run, name, picks.picked[name], observer) for name in wanted]
    with held(out, "a package"):
        folder = _Folder(run, plan, out, observer)
        others = _standing(run, out, {name: pick for name, pick in picks.picked.items() if name not in wanted})
        return folder.end({**others, **{source.name: folder.add(source) for source in sources}})


def _standing(run: Run, out: Path, picks: dict[str, Picked]) -> dict[str, Any]:
    """Of other picks the entries of the manifest that still hold."""
    try:
        there = parse_json((out / MANIFEST).read_text())
        entries = {name: there["picks"][name] for name in picks if there["run"] == run.study.name and name in there["picks"]}
        return {name: entry for name, entry in entries.items() if _holds(out, name, picks[name], entry)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _holds(out: Path, name: str, pick: Picked, entry: dict[str, Any]) -> bool:
    files = {"checkpoint": CHECKPOINT, "onnx": GRAPH, "card": CARD, **({"engine": ENGINE} if "file" in entry["engine"] else {})}
    same = entry["step"] == pick.step and entry["architecture"] == pick.architecture
    return same and all(digest_of(out / name / file) == entry[what]["sha256"] for what, file in files.items())


def _source(run: Run, name: str, pick: Picked, observer: Observer) -> _Source:
    """The weights of a pick. Raises `UserError` where they are gone, or not those that were trained."""
    full = training_folder(run.path, pick.architecture)
    path, training = finished_weights(full, pick.architecture), FULL
    if path and (other := _other_data(run, read_metadata(path))):
        observer.note(f"{name}: the full training in {full} is of {other}; the short one is taken")
        path = None
    if path is None:
        path, training = run.weights_path(Architecture.parse(pick.architecture)), SHORT
    if not path.is_file():
        again = f"train it with lps-search train --from {run.path} --pick {name}"
        raise UserError(f"the weights of pick {name} are gone: {path}; {again}")
    told, digest = read_metadata(path), digest_of(path)
    if told.architecture != pick.architecture:
        raise UserError(f"{path} holds {told.architecture}, not {pick.architecture} of pick {name}")
    if training == SHORT:
        trained = {record.weights_sha256 for record in run.study.records()}
        if digest not in trained:
            raise UserError(f"the weights of pick {name} are not those that were trained: {path} has another SHA-256")
        told = _completed(run, told)
    return _Source(name=name, pick=pick, path=path, sha256=digest, training=training, told=told)


def _other_data(run: Run, told: Metadata) -> str:
    """What a checkpoint is of, where that is not what the run's latencies are of; else empty."""
    data, classes = told.provenance.get("data", ""), len(told.class_names)
    same = data == data_name(run.config.data) and classes == len(run.class_names)
    return "" if same else f"{data or 'unknown data'} with {classes} classes, not of the run's"


def _completed(run: Run, told: Metadata) -> Metadata:
    """What the checkpoint of a search leaves to its run to tell."""
    began, data = read_json(run.path / "environment.json"), DataSpec.parse(run.config.data).name
    origin = {name: began[name] for name in ("commit", "command", "created") if began.get(name)}
    origin |= {"data": data, "splits": ["train"], "seed": run.config.seed}
    return dataclasses.replace(told, licence=DATASETS[data].licence, provenance=origin)


class _Folder:
    """A package while it is written."""

    def __init__(self, run: Run, plan: PackagePlan, out: Path, observer: Observer) -> None:
        self._run, self._plan, self._out, self._observer = run, plan, out, observer

    def add(self, source: _Source) -> dict[str, Any]:
        """Write the files of a pick; returns its entry of the manifest."""
        folder = self._out / source.name
        for cut_short in (path for name in (CHECKPOINT, GRAPH, ENGINE, CARD) for path in folder.glob(f".{name}*")):
            cut_short.unlink()  # a kill while it was written left it
        if digest_of(folder / CHECKPOINT) != source.sha256:
            self._write(folder / CHECKPOINT, source.path.read_bytes())
        graph = self._graph(source, folder)
        engine = self._engine(source, folder)
        latency = self._latency(source.pick)
        text = card(CHECKPOINT, source.told, _more(self._run, source, latency, graph, engine)).encode()
        if not (folder / CARD).is_file() or (folder / CARD).read_bytes() != text:
            self._write(folder / CARD, text)
        shown = {name: graph[name] for name in ("boundary", "precision", "difference_to_torch", "opset")}
        return {
            **dataclasses.asdict(source.pick),
            "miou_percent": source.told.metrics.get("miou_percent"),
            "weights_from": source.training,
            "data": source.told.provenance.get("data", ""),
            "class_names": list(source.told.class_names),
            "input": list(source.told.input_size),
            "latency_input": list(self._run.config.size),
            "latency": latency,
            "checkpoint": self._file(folder / CHECKPOINT),
            "onnx": {**self._file(folder / GRAPH), **shown},
            "engine": {**self._file(folder / ENGINE), "runs_on": engine["runs_on"]} if "runs_on" in engine else engine,
            "card": self._file(folder / CARD),
        }

    def end(self, entries: dict[str, Any]) -> dict[str, Any]:
        """Write the manifest, unless the one that is there says the same already."""
        path, run = self._out / MANIFEST, self._run
        same = {
            "format": FORMAT,
            "run": run.study.name,
            "latency_environment": dataclasses.asdict(run.environment),
            "picks": json.loads(json.dumps(entries)),
        }
        if path.is_file():
            there = read_json(path)
            if all(there.get(name) == value for name, value in same.items()):
                return there
        manifest = {**same, **provenance()}
        write_atomic(path, (json.dumps(manifest, indent=2) + "\n").encode())
        return manifest

    def _graph(self, source: _Source, folder: Path) -> dict[str, Any]:
        """Write the graph, where there is none that fits; returns its description."""
        path, plan = folder / GRAPH, self._plan
        export = ExportPlan(size=source.told.input_size, boundary=plan.boundary, precision=plan.precision, normalised=plan.normalised)
        wanted = {**json.loads(json.dumps(dataclasses.asdict(export))), "weights_sha256": source.sha256}
        if (known := _described(path, wanted)) is not None:
            return known
        self._changing(path)
        try:
            network = load(folder / CHECKPOINT)
            return export_onnx(network, export, path, weights=CHECKPOINT, weights_sha256=source.sha256, told=source.told)
        except MeasurementFailed as failure:
            raise UserError(f"pick {source.name} cannot be exported: {failure}") from failure

    def _engine(self, source: _Source, folder: Path) -> dict[str, Any]:
        """Build the engine, where there is none that fits; returns its description, or the reason why there is none."""
        path, options = folder / ENGINE, self._plan.engine
        reason = self._plan.no_engine
        if options is not None:
            wanted = {name: getattr(options, name) for name in ("precision", "optimization_level", "max_aux_streams", "workspace_bytes")}
            wanted |= {"compute_capabilities": list(options.compute_capabilities), "flavour": self._plan.flavour}
            wanted |= {"graph_sha256": digest_of(folder / GRAPH)} | (
                {} if options.compute_capabilities else {"built_on": compute_capability()}
            )
            if (known := _described(path, wanted)) is not None:
                return known
            self._changing(path)
            try:
                return export_engine(folder / GRAPH, self._plan.flavour, options, path)
            except (BackendError, MeasurementFailed) as failure:
                reason = " ".join(str(failure).split())
                self._observer.note(f"{source.name}: no engine: {reason}")
        for stale in (path, _beside(path)):
            if stale.exists():
                self._changing(stale)
                stale.unlink()
        return {"none": reason}

    def _latency(self, pick: Picked) -> dict[str, Any]:
        """What was measured of a pick at the search's boundary and at the labels, with the memory where it is known."""
        run, network = self._run, Architecture.parse(pick.architecture)
        shown = ("latency_ms", "min_ms", "p90_ms", "p95_ms", "p99_ms", "samples", "stable", "precision", "threads", "backend")
        told: dict[str, Any] = {}
        for boundary in dict.fromkeys((run.config.boundary, "labels")):
            found = run.store.find(subject(network, len(run.class_names)), conditions(run.config, boundary), run.environment)
            if isinstance(found, Measurement):
                summary = found.summary()
                memory = known_memory(run, [network], boundary).get(network)
                told[boundary] = {name: summary[name] for name in shown}
                told[boundary] |= {"memory_bytes": memory} if isinstance(memory, int) else {}
        return told

    def _file(self, path: Path) -> dict[str, Any]:
        return {"file": str(path.relative_to(self._out)), "bytes": path.stat().st_size, "sha256": digest_of(path)}

    def _write(self, path: Path, data: bytes) -> None:
        self._changing(path)
        write_atomic(path, data)

    def _changing(self, path: Path) -> None:
        """A file is about to change: what the manifest says holds no longer."""
        (self._out / MANIFEST).unlink(missing_ok=True)
        self._observer.note(f"writing {path}")


def _more(run: Run, source: _Source, latency: dict[str, Any], graph: dict[str, Any], engine: dict[str, Any]) -> list[str]:
    """What a model card tells of a pick besides its training."""
    extent = "x".join(map(str, run.config.size))
    columns = ["to the", "median ms", "95th percentile ms", "memory MiB"]
    rows = [
        [name, f"{m['latency_ms']:.4g}", f"{m['p95_ms']:.4g}", f"{m['memory_bytes'] / 2**20:.1f}" if "memory_bytes" in m else "-"]
        for name, m in latency.items()
    ]
    iterations = source.told.recipe.get("iterations", "unknown")
    weights = f"Its weights are those of the {source.training}, {iterations} iterations."
    if source.training == SHORT:
        weights += " They rank candidates; a full training gives better ones."
    built = f"`{ENGINE}` runs on {engine['runs_on']}." if "runs_on" in engine else f"There is no engine: {engine['none']}."
    return [
        "## In its family",
        "",
        f"Step {source.pick.step} of a search, picked as {source.pick.why}. {weights}",
        "",
        f"Latency at {extent}, batch 1, by {run.config.backend} on {run.environment.device}:",
        "",
        *markdown_table(columns, rows),
        "",
        f"`{GRAPH}` ends at the {graph['boundary']}, in {graph['precision']}, and takes {graph['input']}. {built}",
        "",
    ]


def _described(path: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The description beside a file, None where one of them is missing, they do not belong together, or something else is wanted."""
    try:
        told = dict(parse_json(_beside(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    wanted = {**wanted, "sha256": digest_of(path)}
    return told if path.is_file() and all(told.get(name) == value for name, value in wanted.items()) else None


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")
