"""What a comparison does in a process of its own: build and export a network, take a turn, train, score."""

from __future__ import annotations

import dataclasses
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latency.backends import usable_backend
from latency.export import graph_for, seeded_input
from latency.files import replace_file
from latency.graph import GraphFile
from latency.measure import at_boundary
from latency.measurement import Conditions
from latency.protocols import MeasurementFailed
from latency.rounds import Turn, take_turn
from lpsnet.checkpoint import load
from lpsnet.interactions import resize
from lpsnet.zoo import Network, build
from search.compare_entries import GRAPH, Entry
from search.observer import Observer
from search.scoring import ScorePlan, score
from search.training_run import Means, TrainPlan, run_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """Where what is prepared of a network for a boundary lies: its output for the seeded input, and its graph."""

    expected: Path
    graph: Path


def prepare(entry: Entry, ends: dict[Path, Conditions]) -> None:
    """Build a network in deployed form, and write its output and its graph under each conditions to the stem of each path.

    The output is torch's in fp32 on the CPU. No graph is written for a backend that takes none.

    Raises:
        MeasurementFailed: it cannot be built, run by torch, or exported.
    """
    torch.set_num_threads(max(at.threads for at in ends.values()))
    (shape,) = {at.shape for at in ends.values()}
    try:
        network = network_of(entry)
        with torch.inference_mode():
            scores = network.scores(torch.from_numpy(seeded_input(shape)))
            outputs = {boundary: _ending(scores, boundary, shape).numpy() for boundary in {at.boundary for at in ends.values()}}
    except Exception as error:  # whatever is wrong with a network is a reason, not the end of the comparison
        raise MeasurementFailed(f"torch cannot build and run the network: {type(error).__name__}: {error}") from error
    for stem, at in ends.items():
        files = files_of(stem)
        stem.parent.mkdir(parents=True, exist_ok=True)
        if takes_graphs(at):
            replace_file(files.graph, graph_for(at_boundary(network, at.boundary), at))
        expected = io.BytesIO()
        np.save(expected, outputs[at.boundary])
        replace_file(files.expected, expected.getvalue())  # last: where it is, all is


def turn(entry: Entry, at: Conditions, stem: Path, with_memory: bool) -> Turn:
    """A turn of what was prepared to a stem, or of a graph as it is. Raises as `take_turn` does."""
    if entry.kind == GRAPH:
        return take_turn(lambda: GraphFile(Path(entry.file)), at, with_memory=with_memory)
    files = files_of(stem)

    def make() -> nn.Module:
        return GraphFile(files.graph) if takes_graphs(at) else at_boundary(_kept(entry), at.boundary)

    return take_turn(make, at, expected=np.load(files.expected), with_memory=with_memory)


def train(plan: TrainPlan, means: Means, out: Path, observer: Observer) -> float:
    """Train a network, or go on with it; returns its mIoU in percent. Raises as `run_training` does."""
    return run_training(plan, means, out, observer).scores.miou_percent


def evaluate(plan: ScorePlan, device: str, observer: Observer) -> float:
    """mIoU in percent of a checkpoint. Raises as `score` does."""
    return score(plan, device, observer).scores.miou_percent


def files_of(stem: Path) -> Files:
    """What is prepared to a stem."""
    return Files(expected=stem.with_name(f"{stem.name}.npy"), graph=stem.with_name(f"{stem.name}.onnx"))


def takes_graphs(at: Conditions) -> bool:
    """Whether the backend of these conditions loads ONNX graphs."""
    return bool(getattr(usable_backend(at.backend, at.device), "takes_graphs", False))


def network_of(entry: Entry) -> Network:
    """The network in deployed form, in eval mode; without weights of a file the same random ones every time."""
    if entry.file:
        loaded = load(entry.file)
        return (loaded if loaded.deployed else loaded.deploy()).eval()
    torch.manual_seed(0)
    return build(entry.network, entry.classes, deployed=True).eval()


_kept = lru_cache(maxsize=1)(network_of)
"""The last network that was built here, for its turns at several boundaries."""


def _ending(scores: Tensor, boundary: str, shape: tuple[int, int, int, int]) -> Tensor:
    """What score maps become at a boundary, as every network here makes it of them."""
    if boundary == "scores":
        return scores
    logits = resize(scores, (shape[2], shape[3]))
    return logits.argmax(1) if boundary == "labels" else logits
