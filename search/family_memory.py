"""How much memory the networks of a family take on the run's device: measured on demand, kept beside the run's latencies.

`memory/record.jsonl` of the run's folder holds each figure, or why there is none, under its conditions and environment. Measured is
the growth of a process of its own from before loading a network to its peak after running it (`latency/memory.py`).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latency.measurement import Conditions, TimingPlan
from lpsnet.architecture import Architecture
from lpsnet.errors import UserError
from search.compare_record import FILE, ReadRecord, Record
from search.executor import conditions, current_environment, subject
from search.observer import Observer
from search.run import Run

FOLDER = "memory"
LIMIT_S = 300.0
"""Seconds that preparing or running a network may take."""


def known_memory(run: Run, architectures: Sequence[Architecture], boundary: str) -> dict[Architecture, int | str]:
    """Bytes of each network whose memory was measured, or why there is no figure. Raises `UserError` for a damaged file."""
    if not (run.path / FOLDER / FILE).is_file():
        return {}
    record = ReadRecord(run.path / FOLDER)
    facts = {architecture: record.find(_key(run, architecture, boundary)) for architecture in architectures}
    return {architecture: _told(fact) for architecture, fact in facts.items() if fact is not None}


def measure_memory(run: Run, architectures: Sequence[Architecture], boundary: str, observer: Observer) -> None:
    """Measure the memory of each network that is not known yet, on the device and with the backend of the run.

    Raises:
        BackendError: the run's backend cannot be used here.
        UserError: this is another environment than the run's, or the folder cannot be written.
    """
    here = current_environment(run.config)
    if different := run.environment.differences(here):
        raise UserError(f"memory is measured where the latencies of {run.path} were ({'; '.join(different)})")
    record = Record(run.path / FOLDER)
    try:
        missing = [a for a in architectures if record.find(_key(run, a, boundary)) is None]
        with tempfile.TemporaryDirectory(prefix="lps-search-") as folder:
            for number, architecture in enumerate(missing):
                observer.work("latencies", number, len(missing), f"memory of {architecture}")
                if (fact := _measured(run, architecture, boundary, Path(folder), observer)) is not None:
                    record.add(_key(run, architecture, boundary), fact)
                observer.work("latencies", number + 1, len(missing), f"memory of {architecture}")
    finally:
        record.close()


def _told(fact: dict[str, Any]) -> int | str:
    found = fact.get("memory_bytes")
    return int(found) if found is not None else str(fact.get("failure", "this system does not tell"))


def _at(run: Run, boundary: str) -> Conditions:
    """A single run takes the memory; there is nothing to sample."""
    return dataclasses.replace(conditions(run.config, boundary), plan=TimingPlan(min_s=0.0, warmup_s=0.0))


def _key(run: Run, architecture: Architecture, boundary: str) -> dict[str, Any]:
    at = _at(run, boundary)
    name = subject(architecture, len(run.class_names))
    return {"what": "memory", "subject": name, "conditions": at.key(), "environment": run.environment.key()}


def _measured(run: Run, architecture: Architecture, boundary: str, folder: Path, observer: Observer) -> dict[str, Any] | None:
    """The fact of a network, None where a failure says as much about the moment as about the network.

    Each part has a process of its own: what exporting took must not be there to be taken again unseen.
    """
    from latency.lock import device_lock
    from latency.protocols import MeasurementFailed, is_out_of_memory
    from latency.worker import Worker, WorkerLost
    from search import compare_worker
    from search.compare_entries import NETWORK, Entry

    text, at, stem = str(architecture), _at(run, boundary), folder / f"{architecture}"
    entry = Entry(label=text, kind=NETWORK, network=text, classes=len(run.class_names), size=run.config.size)
    found: Any = None
    try:
        for function, arguments in ((compare_worker.prepare, (entry, {stem: at})), (compare_worker.turn, (entry, at, stem, True))):
            worker = Worker(LIMIT_S)
            try:
                with device_lock(at.device, alone=True):
                    found = worker.call(function, *arguments)
            finally:
                worker.close()
    except MeasurementFailed as failure:
        reason = " ".join(str(failure).split())
        observer.note(f"memory of {architecture}: {reason}")
        return None if isinstance(failure, WorkerLost) or is_out_of_memory(failure) else {"failure": reason}
    return {"memory_bytes": found.memory_bytes}
