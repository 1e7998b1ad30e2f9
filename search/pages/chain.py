"""The chain of a run: its trajectory (the paper's Fig. 7) and its Table 4."""

from __future__ import annotations

from search.pages.content import SLOPE, Cell, Column, Plot, Section, Series, Table, shown
from search.pages.facts import RunFacts
from search.pages.plots import DIMENSIONS, linear, logarithmic, points
from search.report import dimension_of
from search.step import Failure, Step, Trial


def chain_section(facts: RunFacts) -> Section:
    """The chain, step by step."""
    config = facts.run.config
    text = (
        f"Each step measures and trains the expansions of the network before it, under the proxy of {config.proxy.iterations} iterations, "
        "and takes the one that gains the most mIoU for each millisecond.",
    )
    return Section(key="chain", title="The chain", text=text, items=(trajectory(facts), family_table(facts)))


def trajectory(facts: RunFacts) -> Plot:
    """mIoU over latency: the chain with the dimension of each step, and every candidate that was not taken."""
    members = [step.chosen for step in facts.steps]
    texts = [member_text(step) for step in facts.steps]
    traces = [points([m.latency_ms for m in members], [m.miou_percent for m in members], texts, colour="ink", size=0, line="solid")]
    series = [Series(name="chain", colour="ink", shape="line", traces=(0,))]
    for dimension, shape in DIMENSIONS.items():
        taken = [step for step in facts.steps if dimension_of(step.chosen_trial) == dimension]
        left = [(step, trial) for step in facts.steps for trial in step.trials if _left(step, trial, dimension)]
        first = len(traces)
        if left:
            x, y = [trial.candidate.latency_ms for _, trial in left], [_miou(trial) for _, trial in left]
            told = [candidate_text(step, trial) for step, trial in left]
            traces.append(points(x, y, told, colour=dimension, shape=shape, size=7, opacity=0.6))
        if taken:
            x, y = [step.chosen.latency_ms for step in taken], [step.chosen.miou_percent for step in taken]
            labels, told = [str(step.number) for step in taken], [member_text(step) for step in taken]
            traces.append(points(x, y, told, colour=dimension, shape=shape, size=12, outlined=True, labels=labels))
        if len(traces) > first:
            series.append(Series(name=dimension, colour=dimension, shape=shape, traces=tuple(range(first, len(traces)))))
    latencies = [trial.candidate.latency_ms for step in facts.steps for trial in step.trials]
    first_member, last = members[0], members[-1]
    return Plot(
        key="trajectory",
        title="mIoU over latency: every candidate, the chain, and the dimension taken at each step",
        description=f"The chain rises from {first_member.miou_percent:.1f} % mIoU at {first_member.latency_ms:.3g} ms to "
        f"{last.miou_percent:.1f} % at {last.latency_ms:.3g} ms in {len(members) - 1} steps.",
        traces=tuple(traces),
        layout={"xaxis": logarithmic(facts.latency_name, latencies), "yaxis": linear("validation mIoU (%)")},
        series=tuple(series),
        table="candidates",
        note="Large: the network a step took, with the step's number. Small: candidates that were not taken.",
    )


def _left(step: Step, trial: Trial, dimension: str) -> bool:
    return trial is not step.chosen_trial and not isinstance(trial.outcome, Failure) and dimension_of(trial) == dimension


def _miou(trial: Trial) -> float:
    assert not isinstance(trial.outcome, Failure)
    return trial.outcome


def member_text(step: Step) -> list[str]:
    """What a plot tells of a network of the chain."""
    return [f"step {step.number}: {step.chosen_trial.candidate.text}", *_told(step.chosen_trial)]


def candidate_text(step: Step, trial: Trial) -> list[str]:
    """What a plot tells of a candidate."""
    return [f"step {step.number}, {'taken' if trial is step.chosen_trial else 'not taken'}: {trial.candidate.text}", *_told(trial)]


def _told(trial: Trial) -> list[str]:
    candidate = trial.candidate
    lines = [str(candidate.architecture), f"{candidate.latency_ms:.4g} ms"]
    lines.append(f"failed: {trial.outcome.reason}" if isinstance(trial.outcome, Failure) else f"{trial.outcome:.2f} % mIoU")
    if trial.gain:
        lines.append(f"gain {trial.gain.percent:+.2f} ± {trial.gain.error:.2f}")
    if trial.candidate.expansions:
        lines.append(f"gain/ms {shown(Column(name='', form=SLOPE), trial.slope)}")
    return lines


def family_table(facts: RunFacts) -> Table:
    """The paper's Table 4 of this run."""
    boundary = facts.run.config.boundary
    columns = [
        *(("step", "step", "d"), ("expansion", "expansion", ""), ("B", "B", ""), ("C", "C", ""), ("R", "R", "")),
        (f"latency_{boundary}_ms", f"ms to the {boundary}", ".3f"),
        *((("latency_labels_ms", "ms to the labels", ".3f"),) if boundary != "labels" else ()),
        *(("miou_percent", "mIoU %", ".2f"), ("slope", "gain/ms", SLOPE), ("sure", "sure", ".0%")),
        *(("parameters", "parameters", ",d"), ("macs_giga", "G MACs", ".4f"), ("warnings", "remarks", "")),
    ]
    if not any(row["warnings"] for row in facts.family):
        del columns[-1]
    rows: tuple[tuple[Cell, ...], ...] = tuple(tuple(row[name] for name, _, _ in columns) for row in facts.family)
    return Table(
        key="family",
        title="The networks of the chain (Table 4 of this run)",
        columns=tuple(Column(name=title, form=form, whole=name in ("B", "C", "R")) for name, title, form in columns),
        rows=rows,
        note="B: blocks a stage. C: channels a stage. R: input scale a path. Sure: how likely the chosen slope is above its nearest "
        "rival's, with the errors of the gains. MACs are to the scores, at the input of the search.",
    )
