"""What is compared: networks by name or text, checkpoints, and ONNX files of any tool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency.graph import read_graph
from latency.protocols import MeasurementFailed
from lpsnet.architecture import NAMED
from lpsnet.checkpoint import TRAIN_ONLY, checkpoint_folder, read_description
from lpsnet.errors import UserError
from lpsnet.zoo import canonical, names
from search.files import digest_of

NETWORK, CHECKPOINT, GRAPH = "network", "checkpoint", "graph"
"""Kinds of entries: random weights, weights of a file, and a graph that is run as it is."""

AS_GIVEN = "as given"
"""The boundary of a graph of another tool: where it ends is its own affair."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something that is compared.

    Args:
        label: what it is called in tables.
        kind: one of the kinds above.
        network: name of the network, as `canonical` gives it; empty for a graph.
        classes: number of classes; 0 for a graph.
        size: (height, width) of the image.
        file: of the weights or the graph; empty for a network by name.
        digest: SHA-256 of that file.
        parameters: numbers in the weights of a graph; 0 for what can be built.
        macs: multiply-adds of a graph, None where they are unknown.
    """

    label: str
    kind: str
    network: str
    classes: int
    size: tuple[int, int]
    file: str = ""
    digest: str = ""
    parameters: int = 0
    macs: int | None = None

    @property
    def subject(self) -> str:
        """What it is called in the record: equal for what takes equally long."""
        what = f"{self.network} classes={self.classes}" if self.network else "graph"
        return f"{what} sha256={self.digest[:16]}" if self.digest else what


def parse_entries(texts: list[str], size: tuple[int, int], classes: int, *, every: bool = False) -> tuple[Entry, ...]:
    """What texts stand for, in their order, each once.

    Args:
        texts: names and texts of networks, files that end in `.safetensors` or `.onnx`, names of shipped networks that end in `-train`.
        size: (height, width) of the image; graphs of a fixed size keep their own.
        classes: of networks without weights.
        every: every network that has a name, too, first.

    Raises:
        UserError: nothing to compare, something that is none of these, or two files of the same content.
    """
    found: dict[str, Entry] = {}
    for text in ([*names()] if every else []) + texts:
        entry = _entry(text, size, classes)
        other = found.setdefault(entry.subject, entry)
        if entry.file != other.file:
            raise UserError(f"{other.label} and {text} have the same content; leave out one of them")
    if not found:
        raise UserError("nothing to compare: give names of networks (lps-search networks), checkpoints or ONNX files, or --all")
    return tuple(found.values())


def _entry(text: str, size: tuple[int, int], classes: int) -> Entry:
    path = _shipped(text) or Path(text)
    if path.suffix == ".onnx":
        return _graph(text, path, size)
    if path.suffix == ".pth":
        raise UserError(f"{text} does not say its network; read it with lpsnet.load and write it with lpsnet.save to compare it")
    if path.suffix == ".safetensors" or path.is_file():
        told = read_description(path)
        assert told is not None
        name = canonical(told.architecture)
        return Entry(
            label=text, kind=CHECKPOINT, network=name, classes=len(told.class_names), size=size, file=str(path), digest=digest_of(path)
        )
    known = {name.casefold(): name for name in names()}
    name = canonical(text)
    return Entry(label=known.get(text.strip().casefold(), name), kind=NETWORK, network=name, classes=classes, size=size)


def _shipped(text: str) -> Path | None:
    """The checkpoint of a shipped network that was trained on the train split alone; its plain name stands for the architecture."""
    names = {f"{name}{TRAIN_ONLY}".casefold(): f"{name}{TRAIN_ONLY}" for name in NAMED}
    name = names.get(text.casefold())
    if name is None or Path(text).exists():
        return None
    read_description(name)  # says how to get one that is not there
    return checkpoint_folder() / f"{name}.safetensors"


def _graph(text: str, path: Path, size: tuple[int, int]) -> Entry:
    if not path.is_file():
        raise UserError(f"no ONNX file at {path}")
    try:
        facts = read_graph(path, size)
    except MeasurementFailed as failure:
        raise UserError(str(failure)) from failure
    own = (facts.shape[2] or size[0], facts.shape[3] or size[1])
    same = {"file": str(path), "digest": digest_of(path), "parameters": facts.parameters, "macs": facts.macs}
    return Entry(label=text, kind=GRAPH, network="", classes=0, size=own, **same)  # type: ignore[arg-type]
