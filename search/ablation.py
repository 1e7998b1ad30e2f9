"""What an ablation compares: the blocks of the paper's Table 2 at equal latency, or the interactions of its Table 3.

The network of both is B = (1,2,4,7,7), C = (c,2c,4c,8c,8c), R = (1,1/4). Nothing here measures or trains (`ablation_run.py`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from latency.measurement import Conditions
from latency.protocols import MeasurementFailed
from latency.told import check_fields
from lpsnet.architecture import BLOCK_NAMES, DEFAULT_BLOCK, EIGHTHS, INTERACTION_NAMES, Architecture
from lpsnet.data import MOST_CLASSES
from lpsnet.errors import UserError
from lpsnet.recipe import TrainRecipe
from search.config import MOST_SEEDS
from search.published import TABLE_2, TABLE_3, Ablated
from search.widths import MOST_WIDTH, nearest_width

DEPTHS, MULTIPLES, SCALES = (1, 2, 4, 7, 7), (1, 2, 4, 8, 8), (EIGHTHS, EIGHTHS // 4)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper.

    Args:
        number: in the paper.
        kinds: what is compared.
        baseline: the kind that gains are over.
        width: c of the baseline in the paper.
        paper: what the paper found, by kind.
    """

    number: int
    kinds: tuple[str, ...]
    baseline: str
    width: int
    paper: MappingProxyType[str, Ablated]


TABLES: MappingProxyType[str, Table] = MappingProxyType(
    {
        "blocks": Table(number=2, kinds=BLOCK_NAMES, baseline=DEFAULT_BLOCK, width=14, paper=TABLE_2),
        "interactions": Table(number=3, kinds=INTERACTION_NAMES, baseline="none", width=16, paper=TABLE_3),
    }
)
"""The ablations there are, by name."""


def network_of(table: str, kind: str, width: int) -> Architecture:
    """The network of a kind at a width c."""
    widths = tuple(multiple * width for multiple in MULTIPLES)
    if table == "blocks":
        return Architecture(DEPTHS, widths, SCALES, block=kind, interaction="none")
    return Architecture(DEPTHS, widths, SCALES, interaction=kind)


@dataclass(frozen=True, kw_only=True)
class AblationPlan:
    """What is compared, and how.

    Args:
        table: one of `TABLES`.
        conditions: of the latencies; the input's size is the network's in training and scoring, too.
        classes: of the data set.
        data: `NAME` or `NAME:PATH`.
        recipe: of every training.
        width: c of the baseline, and of every interaction.
        target_ms: latency that widths are fitted to; None for that of the baseline at `width`.
        fit: interactions also at widths fitted to equal latency; blocks always are.
        kinds: those to compare; the baseline is always among them.
        seeds: trainings of each network.
        precision: of the trainings, one of `lpsnet.recipe.PRECISIONS`.
        training_device: "cpu" or "cuda".

    Raises:
        UserError: a kind the table does not have, or a number out of range.
    """

    table: str
    conditions: Conditions
    classes: int
    data: str
    recipe: TrainRecipe
    width: int
    target_ms: float | None = None
    fit: bool = False
    kinds: tuple[str, ...]
    seeds: int = 3
    precision: str = "fp32"
    training_device: str = "cpu"

    def __post_init__(self) -> None:
        told = TABLES[self.table]
        for kind in self.kinds:
            if kind not in told.kinds:
                raise UserError(f"unknown {self.table.removesuffix('s')} {kind!r}; there are: {', '.join(told.kinds)}")
        wanted = {told.baseline, *self.kinds}
        object.__setattr__(self, "kinds", tuple(kind for kind in told.kinds if kind in wanted))
        for name, most in (("seeds", MOST_SEEDS), ("classes", MOST_CLASSES)):
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"{name} are from 1 to {most}, got {getattr(self, name)}")
        if not 1 <= self.width <= MOST_WIDTH:
            raise UserError(f"a width is from 1 to {MOST_WIDTH}, got {self.width}")
        if self.target_ms is not None and not 0 < self.target_ms < float("inf"):
            raise UserError(f"a target latency is above 0 ms and finite, got {self.target_ms:g}")
        if self.target_ms is not None and self.table == "interactions" and not self.fit:
            raise UserError("interactions have one width unless they are fitted to a latency; add --fit, or leave out --target-ms")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.conditions.shape[2], self.conditions.shape[3]

    def joined(self, other: AblationPlan) -> AblationPlan:
        """With the kinds, seeds and fits of another call in the same folder, too."""
        kinds = (*self.kinds, *other.kinds)
        return dataclasses.replace(self, kinds=kinds, seeds=max(self.seeds, other.seeds), fit=self.fit or other.fit)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "conditions": json.loads(self.conditions.key()), "recipe": self.recipe.to_dict(), "kinds": list(self.kinds)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AblationPlan:
        """The inverse of `to_dict`. Raises `KeyError`, `TypeError` or `ValueError` for something else."""
        parts = {"conditions": Conditions.from_key(json.dumps(values["conditions"])), "recipe": TrainRecipe(**values["recipe"])}
        found = cls(**{**values, **parts, "kinds": tuple(values["kinds"])})
        for part in (found, found.recipe):
            check_fields(part)
        return found


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A row of the table before any training.

    Args:
        kind: block or interaction.
        fitted: whether at the width whose latency comes nearest `target_ms`, else at the plan's.
        network: None where no width could be fitted.
        width: c, 0 without a network.
        latency_ms: None where it could not be measured, or is not yet.
        stable: the verdict on it.
        target_ms: None where nothing is fitted.
        failure: why there is no latency.
    """

    kind: str
    fitted: bool
    network: Architecture | None = None
    width: int = 0
    latency_ms: float | None = None
    stable: bool = True
    target_ms: float | None = None
    failure: str = ""


Ask = Callable[[Architecture], dict[str, Any]]
"""The fact of a network's latency: `latency_ms` and `stable`, or `failure`."""


def rows_of_plan(plan: AblationPlan, ask: Ask, told: Callable[[int, int, str], None] = lambda done, total, kind: None) -> list[Placed]:
    """The rows of a plan with their widths; `told` hears of the progress."""
    wanted = [(kind, plan.table == "blocks") for kind in plan.kinds]
    if plan.table == "interactions" and plan.fit:
        wanted += [(kind, True) for kind in plan.kinds]
    found = []
    for number, (kind, fitted) in enumerate(wanted):
        told(number, len(wanted), kind)
        found.append(_fitted(plan, kind, ask) if fitted else _row(plan, kind, plan.width, ask(network_of(plan.table, kind, plan.width))))
    told(len(wanted), len(wanted), "")
    return found


def _fitted(plan: AblationPlan, kind: str, ask: Ask) -> Placed:
    baseline, target_ms = TABLES[plan.table].baseline, plan.target_ms
    if target_ms is None:
        fact = ask(network_of(plan.table, baseline, plan.width))
        if "failure" in fact:
            return Placed(kind=kind, fitted=True, failure=f"no target: {baseline} at c = {plan.width}: {fact['failure']}")
        target_ms = fact["latency_ms"]
        if kind == baseline:
            return _row(plan, kind, plan.width, fact, target_ms)

    def latency_ms(width: int) -> float:
        fact = ask(network_of(plan.table, kind, width))
        if "failure" in fact:
            raise MeasurementFailed(f"at c = {width}: {fact['failure']}")
        return float(fact["latency_ms"])

    try:
        width = nearest_width(latency_ms, target_ms, plan.width)
    except MeasurementFailed as failure:
        return Placed(kind=kind, fitted=True, target_ms=target_ms, failure=str(failure))
    return _row(plan, kind, width, ask(network_of(plan.table, kind, width)), target_ms)


def _row(plan: AblationPlan, kind: str, width: int, fact: dict[str, Any], target_ms: float | None = None) -> Placed:
    same: dict[str, Any] = {"kind": kind, "width": width, "network": network_of(plan.table, kind, width)}
    return Placed(**same, **fact, fitted=target_ms is not None, target_ms=target_ms)
