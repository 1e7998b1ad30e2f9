"""The picks of a run, with what their full trainings reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpsnet.data import data_name
from lpsnet.errors import UserError
from search.files import digest_of
from search.pages.content import Cell, Column, Item, Section, Table
from search.pages.facts import Omission, RunFacts
from search.picks import Picked, read_picks, training_folder, why_stale
from search.run import read_json
from search.training_folder import CONFIG, SCORES, finished_weights


@dataclass(frozen=True, kw_only=True)
class FullTraining:
    """A finished training of a pick by a full recipe.

    Args:
        weights: its checkpoint.
        sha256: of that file.
        data: name of the data set.
        iterations: of the recipe.
        miou_percent: on the validation split.
        class_iou_percent: None where a class never occurs.
        remark: what a reader must know of the score.
    """

    weights: Path
    sha256: str
    data: str
    iterations: int
    miou_percent: float
    class_iou_percent: tuple[float | None, ...]
    remark: str


def full_training(facts: RunFacts, architecture: str) -> FullTraining | None:
    """The full training of a network of the run, None where none has ended. Raises `UserError` where its files are damaged."""
    folder = training_folder(facts.run.path, architecture)
    if (weights := finished_weights(folder, architecture)) is None:
        return None
    told, config = read_json(folder / SCORES), read_json(folder / CONFIG)
    try:
        data = data_name(str(config["data"]))
        remarks = ["trained on the validation split, too"] * bool(told["trained_on_val"]) + [f"on {data}"] * (data != facts.data)
        return FullTraining(
            weights=weights,
            sha256=digest_of(weights),
            data=data,
            iterations=int(config["recipe"]["iterations"]),
            miou_percent=_percent(told["miou_percent"]),
            class_iou_percent=tuple(None if value is None else _percent(value) for value in told["class_iou_percent"]),
            remark="; ".join(remarks),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} holds no training: {error!r}") from error


def _percent(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no percentage")
    return number


def picked_section(facts: RunFacts) -> Section | None:
    """The picks; None where nothing was picked. What is stale or cannot be read becomes an omission of `facts`."""
    rows: list[tuple[Cell, ...]] = []
    classes: dict[str, tuple[float | None, ...]] = {}
    for name, pick in sorted(read_picks(facts.run.path).picked.items(), key=lambda one: one[1].step):
        if why := why_stale(facts.steps, pick.step, pick.architecture):
            facts.omissions.append(Omission("picks", name, f"it {why}"))
            continue
        try:
            full = full_training(facts, pick.architecture)
        except UserError as error:
            facts.omissions.append(Omission("picks", name, str(error)))
            full = None
        rows.append(_row(facts, name, pick, full))
        if full and full.data == facts.data and len(full.class_iou_percent) == len(facts.run.class_names):
            classes[name] = full.class_iou_percent
    if not rows:
        return None
    columns = (
        *(Column(name="pick"), Column(name="picked as"), Column(name="step", form="d"), Column(name="network")),
        *(Column(name=facts.latency_name, form=".3f"), Column(name="mIoU % of the search", form=".2f")),
        *(Column(name="mIoU % trained fully", form=".2f"), Column(name="iterations", form="d"), Column(name="remarks")),
    )
    note = "lps-search train --from RUN --pick NAME trains a pick fully; the search's own mIoU is of short trainings and ranks only."
    items: list[Item] = [Table(key="picks", title="The picks", columns=columns, rows=tuple(rows), note=note)]
    if classes:
        items.append(_classes(facts, classes))
    return Section(key="picks", title="Picks", items=tuple(items))


def _row(facts: RunFacts, name: str, pick: Picked, full: FullTraining | None) -> tuple[Cell, ...]:
    member = facts.steps[pick.step].chosen
    found = (full.miou_percent, full.iterations, full.remark) if full else (None, None, "not trained fully")
    return (name, pick.why, pick.step, pick.architecture, member.latency_ms, member.miou_percent, *found)


def _classes(facts: RunFacts, found: dict[str, tuple[float | None, ...]]) -> Table:
    columns = (Column(name="class"), *(Column(name=name, form=".2f") for name in found))
    rows = tuple((name, *(values[index] for values in found.values())) for index, name in enumerate(facts.run.class_names))
    return Table(key="picked-classes", title="IoU of each class in percent, of the picks trained fully", columns=columns, rows=rows)
