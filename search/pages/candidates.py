"""Every candidate of every step: what it gains for its latency, and how sure that is."""

from __future__ import annotations

import math
from typing import Any

from search.pages.chain import candidate_text
from search.pages.content import SLOPE, Cell, Column, Plot, Section, Series, Table
from search.pages.facts import RunFacts
from search.pages.plots import DIMENSIONS, bars, by_step, linear, points
from search.report import dimension_of
from search.space import OPERATIONS
from search.step import Failure, Step, Trial

PLACES = {operation.name: number for number, operation in enumerate(OPERATIONS)}
COLUMNS = (
    *(("step", "step", "d"), ("expansion", "expansion", ""), ("architecture", "network", "")),
    *(("latency_ms", "ms", ".3f"), ("latency_stable", "stable", ""), ("miou_percent", "mIoU %", ".2f")),
    *(("gain", "gain", "+.2f"), ("gain_error", "± gain", ".2f"), ("slope", "gain/ms", SLOPE), ("chosen", "taken", "")),
    *(("iterations", "iterations", "d"), ("seeds", "seeds", "d"), ("train_s", "training s", ".1f"), ("failure", "failure", "")),
)


def candidates_section(facts: RunFacts) -> Section:
    """All candidates with gains and their uncertainty."""
    race = facts.run.config.race
    told = (
        f"A gain is over the parent{' trained as long and with the same seeds' if race.needs_control else ''}; ± is one standard error. "
        f"From seed to seed a gain varies by {race.seed_noise_percent:g} points (standard deviation): an assumption, until several seeds "
        "of a step have told better."
    )
    if not any(trial.gain for step in facts.steps for trial in step.trials):
        told = "A gain is over the parent. This run holds no errors of its gains."
    failed = sum(isinstance(trial.outcome, Failure) for step in facts.steps for trial in step.trials)
    count = len(facts.candidates) - 1
    text = (f"{count} candidates were trained" + (f", {failed} of them failed and are in the table only. " if failed else ". ") + told,)
    items = (*((gains_plot(facts),) if count else ()), candidates_table(facts))
    return Section(key="candidates", title="All candidates", text=text, items=items)


def gains_plot(facts: RunFacts) -> Plot:
    """Gain of every candidate with its error, the steps side by side and in each the operations in the order of Table 1."""
    traces: list[dict[str, Any]] = []
    series = []
    for dimension, shape in DIMENSIONS.items():
        first = len(traces)
        for taken in (False, True):
            mine = [
                (s, t) for s in facts.steps for t in s.trials if _drawn(s, t) and dimension_of(t) == dimension and _taken(s, t) == taken
            ]
            if not mine:
                continue
            x, y = [_place(step, trial) for step, trial in mine], [gain_of(step, trial) for step, trial in mine]
            told = [candidate_text(step, trial) for step, trial in mine]
            trace = points(x, y, told, colour=dimension, shape=shape, size=11 if taken else 7, outlined=taken)
            errors = [trial.gain.error if trial.gain else 0.0 for _, trial in mine]
            traces.append({**trace, "error_y": bars(errors, errors, dimension, cap=2)})
        if len(traces) > first:
            series.append(Series(name=dimension, colour=dimension, shape=shape, traces=tuple(range(first, len(traces)))))
    numbers = [step.number for step in facts.steps if step.parent]
    return Plot(
        key="gains",
        title="Gain in mIoU of every candidate, by step",
        description=f"Points of mIoU gained over the parent, with one standard error, for the candidates of {len(numbers)} steps.",
        traces=tuple(traces),
        layout={
            "xaxis": by_step(numbers, range=[0.5, numbers[-1] + 0.5]),
            "yaxis": linear("gain (points of mIoU)", zeroline=True),
        },
        series=tuple(series),
        table="candidates",
        ranges={"": [0.5, numbers[-1] + 0.5], **{f"step {number}": [number - 0.5, number + 0.5] for number in numbers}},
        note="Outlined: the candidate a step took. In a step the operations stand as in the paper's Table 1: depth, width, scale.",
    )


def gain_of(step: Step, trial: Trial) -> float:
    """Points of mIoU a scored candidate gains over its parent."""
    assert step.parent is not None and not isinstance(trial.outcome, Failure)
    return trial.gain.percent if trial.gain else trial.outcome - step.parent.miou_percent


def _drawn(step: Step, trial: Trial) -> bool:
    return step.parent is not None and not isinstance(trial.outcome, Failure)


def _taken(step: Step, trial: Trial) -> bool:
    return trial is step.chosen_trial


def _place(step: Step, trial: Trial) -> float:
    """Where a candidate stands: at its step, to the left or right by its operation."""
    return step.number + 0.8 * (PLACES[trial.candidate.expansions[0][0]] / (len(PLACES) - 1) - 0.5)


def candidates_table(facts: RunFacts) -> Table:
    """A row a candidate."""
    columns = [column for column in COLUMNS if column[0] != "failure" or any(row["failure"] for row in facts.candidates)]
    if len({row["seeds"] for row in facts.candidates}) == 1:
        columns = [column for column in columns if column[0] != "seeds"]

    def cell(value: Cell) -> Cell:
        return None if isinstance(value, float) and math.isnan(value) else value

    return Table(
        key="candidates",
        title="Every candidate of every step",
        columns=tuple(Column(name=title, form=form, breaks=name == "architecture") for name, title, form in columns),
        rows=tuple(tuple(cell(row[name]) for name, _, _ in columns) for row in facts.candidates),
        marked=frozenset(number for number, row in enumerate(facts.candidates) if row["chosen"]),
        groups=tuple(f"step {row['step']}" for row in facts.candidates),
        group_name="step",
        note="Stable: whether spread and drift of the latency's samples stay within their limits.",
    )
