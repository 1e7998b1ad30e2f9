"""What a search took, on what, and what it passed over."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from search.executor import conditions
from search.journal import without_password
from search.pages.content import Column, Facts, Item, Plot, Section, Table
from search.pages.facts import Omission, RunFacts
from search.pages.plots import by_step, linear
from search.report import weight_faults
from search.step import Failure, Step

COLUMNS = (
    ("step", "d"),
    ("trainings", "d"),
    ("failed", "d"),
    ("lost", "d"),
    ("iterations", ",d"),
    ("training s", ",.0f"),
    ("elapsed s", ",.0f"),
)


class StepCost(NamedTuple):
    """What the trainings of a step took, as the columns of a table."""

    step: int | str
    trainings: int
    failed: int
    lost: int
    iterations: int
    training_s: float
    elapsed_s: float


def cost_section(facts: RunFacts) -> Section:
    """Seconds of training by step, and of the latencies."""
    costs = [_cost(step.number, facts.run.study.trials(step.number)) for step in facts.steps]
    total = StepCost("all", *(sum(column) for column in list(zip(*costs, strict=True))[1:]))
    at = conditions(facts.run.config)
    kept = [m for m in facts.measurements if m.environment == facts.run.environment]
    sampled, loaded = sum(sum(m.samples_ms) for m in kept) / 1e3, sum(m.load_s for m in kept)
    text = (
        f"{total.trainings} trainings took {_time(total.training_s)} of training and scoring, on {facts.run.config.training_device}. The "
        f"{len(kept)} latencies used ({sum(m.conditions == at for m in kept)} to the {at.boundary}) hold {_time(sampled)} of samples and "
        f"{_time(loaded)} of building and loading, without warm-up; some may come from another run on the same machine.",
    )
    table = Table(
        key="cost",
        title="Trainings by step",
        columns=tuple(Column(name=name, form=form) for name, form in COLUMNS),
        rows=(*costs, total),
        totals=1,
        note="Rungs, further seeds and controls count as trainings. Lost: begun, but the driver ended before them. Elapsed: from the first "
        "beginning to the last end, pauses of a stopped search included.",
    )
    return Section(key="cost", title="Cost of the search", text=text, items=(_plot(costs), table))


def _cost(number: int, trials: list[FrozenTrial]) -> StepCost:
    stored = [trial.user_attrs["record"] for trial in trials if "record" in trial.user_attrs and "orphaned" not in trial.user_attrs]
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    return StepCost(
        step=number,
        trainings=len(stored),
        failed=sum(record["miou_percent"] is None for record in stored),
        lost=len(trials) - len(stored),
        iterations=_iterations(trials),
        training_s=sum(float(record["seconds"]) for record in stored),
        elapsed_s=(max(ends) - min(starts)).total_seconds() if starts and ends else 0.0,
    )


def _iterations(trials: list[FrozenTrial]) -> int:
    """What was trained: the rungs of a training go on from each other, so that its last counts."""
    most: dict[str, int] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            training = re.sub(r" rung=\d+", "", str(trial.user_attrs.get("key", trial.number)))
            most[training] = max(most.get(training, 0), int(trial.user_attrs.get("iterations", 0)))
    return sum(most.values())


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _plot(costs: list[StepCost]) -> Plot:
    steps, seconds = [int(cost.step) for cost in costs], [cost.training_s for cost in costs]
    told = [f"step {cost.step}: {cost.trainings} trainings, {_time(cost.training_s)}" for cost in costs]
    bars = {"type": "bar", "x": steps, "y": seconds, "hoverinfo": "text", "hovertext": told, "customdata": told, "textposition": "none"}
    return Plot(
        key="cost-bars",
        title="Seconds of training by step",
        description=f"Between {min(seconds):.0f} and {max(seconds):.0f} seconds of training and scoring a step.",
        traces=({**bars, "marker": {"color": "--depth"}},),
        layout={"xaxis": by_step(steps), "yaxis": linear("seconds of training")},
        table="cost",
        height=300,
    )


def environment_section(facts: RunFacts, told: dict[str, Any]) -> Section:
    """Device, software and configuration; `told` is what `environment.json` says."""
    environment, config = facts.run.environment, facts.run.config
    device = [("device of the latency", environment.device), ("cores", str(environment.cores)), ("driver", environment.driver or "-")]
    device += [(f"{name} (latency)", version) for name, version in environment.versions.items()]
    device += [(name, str(told[name])) for name in ("python", "system", "processor") if told.get(name)]
    packages = told.get("packages")
    device += [(str(name), str(version)) for name, version in (packages.items() if isinstance(packages, dict) else [])]
    made = [(name, without_password(str(told.get(name) or "unknown"))) for name in ("command", "commit", "created")]
    values = _flat(dataclasses.asdict(config))
    items: list[Item] = [
        Facts(key="device", title="Device and software", rows=tuple(device)),
        Facts(key="made", title="How the run was made", rows=tuple(made), wide=True),
        Facts(key="configuration", title="Configuration", rows=tuple((name, without_password(text)) for name, text in values)),
    ]
    return Section(key="environment", title="Device and environment", items=tuple(items))


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    flat = []
    for name, value in values.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return flat


def omissions_section(facts: RunFacts) -> Section:
    """What was skipped or failed, and why; what the report itself could not have is in `facts.omissions`."""
    config, taken = facts.run.config, len(facts.steps) - 1
    end = f"{taken} of {config.steps} steps are taken."
    if facts.progress.stopped:
        end += f" The search stopped: {facts.progress.stopped}"
    omissions = [omission for step in facts.steps for omission in _step_omissions(step)]
    omissions += [Omission("weights", "", fault) for fault in weight_faults(facts.run, facts.steps)]
    omissions += facts.omissions
    if not omissions:
        return Section(key="omissions", title="Skipped and failed", text=(end, "Nothing was skipped, and nothing failed."))
    table = Table(
        key="omissions",
        title="What was skipped or failed, and why",
        columns=(Column(name="where"), Column(name="what", breaks=True), Column(name="why")),
        rows=tuple((omission.where, omission.what, omission.why) for omission in omissions),
    )
    return Section(key="omissions", title="Skipped and failed", text=(end,), items=(table,))


def _step_omissions(step: Step) -> list[Omission]:
    where = f"step {step.number}"
    omissions = [Omission(where, name, reason) for name, reason in step.skipped.items()]
    omissions += [Omission(where, name, f"{text} excluded by the predictor, not measured") for name, text in step.excluded.items()]
    failed = ((trial, trial.outcome) for trial in step.trials)
    omissions += [Omission(where, trial.candidate.text, outcome.reason) for trial, outcome in failed if isinstance(outcome, Failure)]
    omissions += [Omission(where, "latency", tie.text) for tie in step.ties]
    return omissions + [Omission(where, "choice", warning) for warning in step.warnings]


def when(text: str) -> str:
    """A time for a reader, from ISO 8601; the text itself where it is none."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text
