"""The Pareto front of a run, among its own candidates and against comparison networks and rival searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.pages.chain import candidate_text, member_text
from search.pages.content import Cell, Column, Item, Plot, Section, Series, Table, listed
from search.pages.facts import RunFacts
from search.pages.others import Network, Others, Standing
from search.pages.plots import linear, logarithmic, points
from search.pareto import front, knee
from search.step import Failure, Step, Trial

PALETTE = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6", "series-7")
SHAPES = ("square", "diamond", "triangle", "star", "cross")

Drawn = tuple[float, float, list[str]]
"""Latency in ms, mIoU in percent, and what is told of the point."""


def front_section(facts: RunFacts, others: Others) -> Section:
    """Who is beaten by none."""
    members = [(step.chosen.latency_ms, step.chosen.miou_percent) for step in facts.steps]
    bend = knee(members)
    text = [f"{len(front(members))} of the {len(members)} networks of the chain are beaten by none of the others in both latency and mIoU."]
    if bend is not None:
        text.append(f"The knee of the chain, where mIoU begins to cost more, is step {facts.steps[bend].number}.")
    drawn = [network for network in others.networks if not network.apart]
    if others.networks or others.standings:
        text.append(f"Shown beside it: {listed([str(folder) for folder in others.folders])}.")
    else:
        text.append(
            "No other networks or searches are shown: results of lps-search compare, bench-table and rival lie neither in the run's folder "
            "nor beside it, and none were named by --with."
        )
    if drawn:
        text.append(
            f"Scores compare only as far as trainings do. The chain's are those of its proxy, {facts.run.config.proxy.iterations} "
            f"iterations; the others': {'; '.join(sorted({network.scored or 'not told' for network in drawn}))}."
        )
    items: list[Item] = [front_plot(facts, drawn)]
    if others.networks:
        items.append(networks_table(facts, others.networks))
    if others.standings:
        items += [searches_plot(others.standings), searches_table(others.standings)]
    return Section(key="front", title="Pareto front", text=(" ".join(text),), items=tuple(items))


def front_plot(facts: RunFacts, networks: Sequence[Network]) -> Plot:
    """mIoU over latency of the chain, its candidates and the networks shown beside it, with the front of all."""
    chain = [(step.chosen.latency_ms, step.chosen.miou_percent, member_text(step)) for step in facts.steps]
    left = [_drawn(step, trial) for step in facts.steps for trial in step.trials if trial is not step.chosen_trial and _scored(trial)]
    groups: dict[str, list[Drawn]] = {}
    for network in networks:
        assert network.latency_ms is not None and network.miou_percent is not None
        told = [network.name, network.group, f"{network.latency_ms:.4g} ms", f"{network.miou_percent:.2f} % mIoU", network.scored]
        groups.setdefault(network.group, []).append((network.latency_ms, network.miou_percent, [text for text in told if text]))
    everyone = [*chain, *left, *(one for group in groups.values() for one in group)]
    best = [everyone[index] for index in front([(latency, miou) for latency, miou, _ in everyone])]
    traces, series = (
        [_trace(best, colour="muted", size=0, line="dash", stairs=True)],
        [Series(name="front of all", colour="muted", shape="dash", traces=(0,))],
    )
    if left:
        series.append(Series(name="candidates not taken", colour="muted", shape="circle", traces=(len(traces),)))
        traces.append(_trace(left, colour="muted", size=6, opacity=0.5))
    for number, (name, group) in enumerate(groups.items()):
        colour, shape = PALETTE[(number + 1) % len(PALETTE)], SHAPES[number % len(SHAPES)]
        series.append(Series(name=name, colour=colour, shape=shape, traces=(len(traces),)))
        traces.append(_trace(group, colour=colour, shape=shape, size=9))
    series.append(Series(name="chain", colour="depth", shape="circle", traces=(len(traces),)))
    labels = [str(step.number) for step in facts.steps]
    traces.append(_trace(chain, colour="depth", size=10, outlined=True, line="solid", labels=labels))
    last = best[-1]
    return Plot(
        key="front-plot",
        title="Pareto front of mIoU over latency",
        description=f"{len(best)} of {len(everyone)} networks are on the front; its slowest has {last[1]:.1f} % mIoU at {last[0]:.3g} ms.",
        traces=tuple(traces),
        layout={"xaxis": logarithmic(facts.latency_name, [one[0] for one in everyone]), "yaxis": linear("validation mIoU (%)")},
        series=tuple(series),
        table="networks" if networks else "family",
        height=460,
        note="Up and to the left is better. Numbers: steps of the chain.",
    )


def _scored(trial: Trial) -> bool:
    return not isinstance(trial.outcome, Failure)


def _drawn(step: Step, trial: Trial) -> Drawn:
    assert not isinstance(trial.outcome, Failure)
    return trial.candidate.latency_ms, trial.outcome, candidate_text(step, trial)


def _trace(drawn: Sequence[Drawn], **style: Any) -> dict[str, Any]:
    return points([one[0] for one in drawn], [one[1] for one in drawn], [one[2] for one in drawn], **style)


def networks_table(facts: RunFacts, networks: Sequence[Network]) -> Table:
    """The chain and the networks shown beside it, those that cannot be drawn last, with the reason."""
    kept = sorted(networks, key=lambda network: (bool(network.apart), network.latency_ms or 0.0))
    chain: list[tuple[Cell, ...]] = [
        (
            f"step {row['step']}",
            "this run",
            row_step.chosen.latency_ms,
            row["miou_percent"],
            row["parameters"],
            row["macs_giga"],
            "proxy",
            "",
        )
        for row, row_step in zip(facts.family, facts.steps, strict=True)
    ]
    rows: list[tuple[Cell, ...]] = [
        (n.name, n.source, n.latency_ms, n.miou_percent, n.parameters, n.macs_giga, n.scored, n.apart) for n in kept
    ]
    columns = (
        *(
            Column(name="network", breaks=True),
            Column(name="from", breaks=True),
            Column(name=f"ms to the {facts.run.config.boundary}", form=".3f"),
        ),
        *(Column(name="mIoU %", form=".2f"), Column(name="parameters", form=",.0f"), Column(name="G MACs", form=".3f")),
        *(Column(name="mIoU from"), Column(name="not drawn because")),
    )
    return Table(
        key="networks",
        title="The chain and other networks",
        columns=columns,
        rows=(*chain, *rows),
        marked=frozenset(range(len(chain))),
        note="Networks are drawn together only where conditions, environment and data set of their figures are those of the run.",
    )


def searches_plot(standings: Sequence[Standing]) -> Plot:
    """Hypervolume of each search over what it spent."""
    traces: list[dict[str, Any]] = []
    series = []
    for number, one in enumerate(standings):
        colour, dashed = PALETTE[number % len(PALETTE)], "dash" if number >= len(PALETTE) else "solid"
        told = [[one.sampler, f"after {at:.0f} s", f"hypervolume {value:.3f}"] for at, value in one.curve]
        trace = points([at for at, _ in one.curve], [value for _, value in one.curve], told, colour=colour, size=4, line=dashed)
        series.append(Series(name=one.sampler, colour=colour, shape="dash" if dashed == "dash" else "line", traces=(len(traces),)))
        traces.append(trace)
    best = max(standings, key=lambda one: one.hypervolume)
    return Plot(
        key="searches-plot",
        title="Hypervolume of each search over the seconds it spent",
        description=f"{best.sampler} ends highest of {len(standings)} searches, at {best.hypervolume:.3f}.",
        traces=tuple(traces),
        layout={"xaxis": linear("seconds spent on training", rangemode="tozero"), "yaxis": linear("hypervolume")},
        series=tuple(series),
        table="searches",
        note="Means over the seeds, on the surrogate of the tabular benchmark; points of mIoU times the logarithm of latency.",
    )


def searches_table(standings: Sequence[Standing]) -> Table:
    """Where each search ended."""
    columns = (
        *(Column(name="search"), Column(name="seeds", form="d"), Column(name="hypervolume", form=".3f")),
        *(Column(name="95 % from", form=".3f"), Column(name="to", form=".3f")),
    )
    rows = tuple((one.sampler, one.seeds, one.hypervolume, one.low, one.high) for one in standings)
    apart = "; ".join(dict.fromkeys(one.apart for one in standings if one.apart))
    note = f"Their networks do not compare with the run's: {apart}." if apart else ""
    return Table(key="searches", title="Searches at equal cost", columns=columns, rows=rows, note=note)
