"""The mIoU of what is compared: as a checkpoint tells it, scored here, or of a training here under one recipe for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpsnet.checkpoint import read_metadata
from lpsnet.data import DataSpec, data_name, native_size
from lpsnet.errors import UserError
from lpsnet.recipe import TrainRecipe
from search import compare_worker
from search.apart import Call, run_apart, run_here
from search.compare_entries import CHECKPOINT, NETWORK
from search.compare_plan import ComparePlan, Found, extent
from search.compare_record import Record, digest
from search.observer import Observer
from search.scoring import ScorePlan, seen_in_training
from search.training_folder import read_curve
from search.training_run import Means, TrainPlan

TRAININGS = "trainings"


@dataclass(frozen=True)
class _Job:
    """A score that is to be found: of what, what finding it is called, its key in the record, where the score is from, at which input.

    With a call that gives it, and the folder of a training; or with the fact itself.
    """

    found: Found
    what: str
    key: dict[str, Any]
    where: str
    size: str
    call: Call | None = None
    folder: Path | None = None
    fact: dict[str, Any] | None = None


class Scorer:
    """Finds scores and keeps them.

    Args:
        plan: what is compared, and how.
        out: the folder of the comparison.
        record: what was found so far.
        observer: told of progress and of failures.
    """

    def __init__(self, plan: ComparePlan, out: Path, record: Record, observer: Observer) -> None:
        self._plan, self._out, self._record, self._observer = plan, out, record, observer

    def score(self, found: list[Found], on_part: Callable[[], None]) -> None:
        """Find the mIoU of every entry that has weights or is to be trained: all with the first seed, then with the next.

        Args:
            found: what is known of the entries; it is added to.
            on_part: called after each score.
        """
        jobs = [self._scoring(one) for one in found if one.entry.kind == CHECKPOINT]
        if self._plan.recipe is not None:
            trained = [one for one in found if one.entry.kind == NETWORK]
            jobs += [self._training(one, seed, self._plan.recipe) for seed in self._plan.seeds for one in trained]
        missing = []
        for job in jobs:
            if (fact := self._record.find(job.key) if job.call else job.fact) is None:
                missing.append(job)
            else:
                self._keep(job, fact)
        for number, value in self._values(missing):
            job = missing[number]
            if isinstance(value, (RuntimeError, MemoryError, UserError)):
                job.found.failures[job.what] = " ".join(str(value).split())
                self._observer.note(f"{job.found.entry.label}: {job.what}: {job.found.failures[job.what]}")
            elif isinstance(value, Exception):
                raise value
            else:
                self._record.add(job.key, fact := {"miou_percent": value})
                self._keep(job, fact)
            on_part()

    def _values(self, jobs: list[_Job]) -> Iterator[tuple[int, Any]]:
        """What jobs give, or their exceptions, as they end."""
        folders = [job.folder for job in jobs if job.folder]
        total = len(folders) * (self._plan.recipe.iterations if self._plan.recipe else 0)

        def tick() -> None:
            rows = [read_curve(folder / "curve.csv") for folder in folders]
            self._observer.work("iterations", sum(int(curve[-1]["iteration"]) for curve in rows if curve), total)

        # A process of its own each, unless this one is to do everything; there progress is read from the curves.
        apart = self._plan.limit_s > 0 or self._plan.parallel > 1
        observer = Observer() if apart else self._observer
        calls = [Call(job.call.function, (*job.call.arguments, observer)) for job in jobs if job.call]
        for done, ended in enumerate(run_apart(calls, self._plan.parallel, tick) if apart else run_here(calls)):
            self._observer.work("candidates", done + 1, len(jobs), jobs[ended[0]].found.entry.label)
            yield ended

    def _training(self, found: Found, seed: int, recipe: TrainRecipe) -> _Job:
        entry, at = found.entry, self._plan
        plan = TrainPlan(architecture=entry.network, data=at.data, recipe=recipe, seed=seed)
        key = {"what": "training", **plan.to_dict(), "precision": at.precision}
        folder = self._out / TRAININGS / f"{entry.network}-{digest(key)[:8]}"
        threads = max(1, at.conditions.threads // at.parallel)
        means = Means(device=at.training_device, precision=at.precision, threads=threads, save_s=60.0, validations=0)
        size = extent(recipe.input_size(native_size(DataSpec.parse(at.data))))
        where = f"trained here for {recipe.iterations} iterations of {recipe.batch_size} images in {at.precision}"
        call = Call(compare_worker.train, (plan, means, folder))
        return _Job(found, f"training with seed {seed}", key, where, size, call=call, folder=folder)

    def _scoring(self, found: Found) -> _Job:
        entry, told = found.entry, read_metadata(found.entry.file)
        size = extent(told.input_size)
        if not self._plan.data:
            found.miou_data = told.provenance.get("data", "unknown")
            fact = {"miou_percent": told.metrics.get("miou_percent")}
            return _Job(found, "scoring", {}, "told by the checkpoint", size, fact=fact)
        key = {"what": "score", "sha256": entry.digest, "data": self._plan.data, "split": "val"}
        plan = ScorePlan(checkpoint=entry.file, data=self._plan.data, split="val")
        found.seen = seen_in_training(told, plan)
        return _Job(found, "scoring", key, "scored here", size, call=Call(compare_worker.evaluate, (plan, self._plan.training_device)))

    def _keep(self, job: _Job, fact: dict[str, Any]) -> None:
        if fact["miou_percent"] is None:  # of a checkpoint that does not tell
            return
        job.found.mious.append(fact["miou_percent"])
        job.found.miou_from, job.found.miou_input = f"{job.where}, at {job.size}", job.size
        job.found.miou_data = data_name(self._plan.data) or job.found.miou_data
