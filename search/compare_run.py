"""Networks side by side under the same conditions: latency in turns, memory, cost on paper, mIoU where it is known.

Every fact is kept as soon as it is found (`compare_record.py`), so that a killed comparison goes on where it stopped. A
network that fails anywhere is a row with the reason.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latency.backends import usable_backend
from latency.environment import environment
from latency.lock import device_lock
from latency.measure import is_paced
from latency.measurement import Conditions, Environment
from latency.pace import Patience, slowness
from latency.protocols import MeasurementFailed, is_out_of_memory
from latency.rounds import Rounds
from latency.worker import Worker, WorkerLost
from lpsnet.data import DataSpec
from lpsnet.errors import UserError
from lpsnet.parallel import lane_for
from search import compare_worker
from search.compare_entries import GRAPH, Entry
from search.compare_plan import ComparePlan, Found
from search.compare_record import Record, digest
from search.compare_scores import Scorer
from search.observer import Observer

GRAPHS = "graphs"


def run_comparison(plan: ComparePlan, out: Path, observer: Observer, on_part: Callable[[list[Found]], None]) -> list[Found]:
    """Compare, or go on with the comparison that lies in `out`.

    Args:
        plan: what and how.
        out: the folder.
        observer: told of progress.
        on_part: given what is known after each round and each score.

    Raises:
        BackendError: an unknown or unusable backend.
        UserError: a folder, data set, checkpoint or precision that cannot be used.
    """
    if plan.data:
        DataSpec.parse(plan.data)
    if plan.recipe is not None:
        lane_for(plan.training_device, plan.precision)
    record = Record(out)
    try:
        comparison = _Comparison(plan, out, record, observer)
        comparison.measure(on_part)
        found = list(comparison.found.values())
        Scorer(plan, out, record, observer).score(found, lambda: on_part(found))
        return found
    finally:
        record.close()


class _Here:
    """Calls in this process, in the place of a `Worker`."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def close(self) -> None:
        return


class _Comparison:
    """A comparison while it runs."""

    def __init__(self, plan: ComparePlan, out: Path, record: Record, observer: Observer) -> None:
        self._plan, self._out, self._record, self._observer = plan, out, record, observer
        at = plan.conditions
        self._environment: Environment = environment(usable_backend(at.backend, at.device), at.device)
        self.found = {entry.subject: Found(entry=entry) for entry in plan.entries}
        self._workers: Worker | _Here | None = None
        self._patience, self._least_ms = Patience(), math.inf

    # Latency

    def measure(self, on_part: Callable[[list[Found]], None]) -> None:
        """Give every entry its turns, and as many more while they do not agree."""
        entries, rounds = self._plan.entries, self._plan.rounds
        done, total = 0, len(entries) * (1 + rounds)
        try:
            for entry in entries:
                self._observer.work("latencies", done, total, f"preparing {entry.label}")
                self._prepare(entry, range(rounds))
                done += 1
            for number in range(2 * rounds):
                again = [entry for entry in entries if number < rounds or self._disagrees(entry)]
                total += len(again) if number >= rounds else 0
                # Whoever comes after a large network might always lose; so the order is turned around.
                for entry in again if number % 2 == 0 else again[::-1]:
                    self._observer.work("latencies", done, total, f"round {number + 1}: {entry.label}")
                    self._prepare(entry, range(number, number + 1))
                    self._turns(entry, number)
                    done += 1
                on_part(list(self.found.values()))
            self._observer.work("latencies", total, total)
        finally:
            self._close()
        if not any(self._missing(entry, number) for entry in entries for number in range(rounds)):
            shutil.rmtree(self._out / GRAPHS, ignore_errors=True)

    def _disagrees(self, entry: Entry) -> bool:
        """Whether an entry's turns so far do not agree; a quick look, which samples for no time, does not mind."""
        turns = self.found[entry.subject].turns.values()
        return self._plan.conditions.plan.min_s > 0 and not all(Rounds(turns=tuple(taken)).stable for taken in turns)

    def _prepare(self, entry: Entry, rounds: range) -> None:
        """Export what turns of these rounds are still to come of."""
        if "build" in self.found[entry.subject].failures:
            return
        key = self._key("prepare", entry, self._plan.ends(entry)[0])
        if known := self._record.find(key):
            self._fail(entry, "build", known["failure"])
        missing = dict.fromkeys(end for number in rounds for end in self._missing(entry, number))
        wanted = {self._stem(entry, end): end for end in missing if not compare_worker.files_of(self._stem(entry, end)).expected.exists()}
        if entry.kind == GRAPH or not wanted:
            return
        failure = self._attempt(key, compare_worker.prepare, entry, wanted)
        if isinstance(failure, str):
            self._fail(entry, "build", failure)

    def _turns(self, entry: Entry, round_number: int) -> None:
        """A turn at every boundary. In the first round a process of its own takes them, for the memory."""
        found = self.found[entry.subject]
        first = round_number == 0
        if first and self._missing(entry, 0):
            self._close()
        for index, end in enumerate(self._plan.ends(entry)):
            if "build" in found.failures or end.boundary in found.failures:
                continue
            fact = self._fact(entry, end, round_number)
            if fact is None:
                with_memory = first and index == 0 and self._plan.limit_s > 0
                fact = self._taken(self._key("turn", entry, end, round_number), entry, end, with_memory)
            if "failure" in fact:
                self._fail(entry, end.boundary, fact["failure"])
                continue
            state = fact["found"]["state"]
            found.turns.setdefault(end.boundary, []).append(fact["samples_ms"])
            found.slowness.setdefault(end.boundary, []).append(state.get("slowness", math.nan))
            self._least_ms = min(self._least_ms, state.get("pace_ms", math.inf))
            found.output[end.boundary] = fact["output"]
            if fact["memory_bytes"] is not None:
                found.memory_bytes = fact["memory_bytes"]

    def _taken(self, key: dict[str, Any], entry: Entry, end: Conditions, with_memory: bool) -> dict[str, Any]:
        """A turn, kept; or its failure, kept where it would fail again."""
        turn = self._attempt(key, compare_worker.turn, entry, end, self._stem(entry, end), with_memory, paced=is_paced(end))
        if isinstance(turn, str):
            return {"failure": turn}
        shape = "x".join(map(str, turn.found["output_shape"]))
        fact = {**dataclasses.asdict(turn), "output": f"{shape} {turn.found['output_type']}"}
        self._record.add(key, fact)
        return fact

    def _attempt(self, key: dict[str, Any], function: Callable[..., Any], *arguments: Any, paced: bool = False) -> Any:
        """What a call gives, or why it fails; a failure is kept unless it says as much of the moment as of the network."""
        at = self._plan.conditions
        try:
            with device_lock(at.device, alone=True):
                worker = self._worker()
                if paced:
                    self._patience.settle(lambda: worker.call(slowness, at.threads, self._least_ms), at.threads)
                return worker.call(function, *arguments)
        except OSError as error:
            raise UserError(f"cannot write {self._out / GRAPHS}: {error}") from error
        except MeasurementFailed as failure:
            reason = " ".join(str(failure).split())
            if not (isinstance(failure, WorkerLost) or is_out_of_memory(failure)):
                self._record.add(key, {"failure": reason})
            return reason

    def _fail(self, entry: Entry, what: str, reason: str) -> None:
        self.found[entry.subject].failures[what] = reason
        self._observer.note(f"{entry.label}: {what}: {reason}")

    def _missing(self, entry: Entry, round_number: int) -> list[Conditions]:
        """The turns of a round that are still to be taken: not those of what is known to fail."""
        if self._record.find(self._key("prepare", entry, self._plan.ends(entry)[0])):
            return []
        return [end for end in self._plan.ends(entry) if self._fact(entry, end, round_number) is None]

    def _fact(self, entry: Entry, end: Conditions, round_number: int) -> dict[str, Any] | None:
        """What is known of a turn: what it gave, or why an earlier one failed."""
        known = [self._record.find(self._key("turn", entry, end, number)) for number in range(round_number + 1)]
        return next((fact for fact in known if fact and "failure" in fact), known[-1])

    def _key(self, what: str, entry: Entry, end: Conditions, round_number: int = 0) -> dict[str, Any]:
        where = {"conditions": end.key(), "environment": self._environment.key()}
        return {"what": what, "subject": entry.subject, "round": round_number, **where}

    def _stem(self, entry: Entry, end: Conditions) -> Path:
        return self._out / GRAPHS / digest(self._key("graph", entry, end))[:24]

    def _worker(self) -> Worker | _Here:
        if self._workers is None:
            self._workers = Worker(self._plan.limit_s) if self._plan.limit_s else _Here()
        return self._workers

    def _close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None
