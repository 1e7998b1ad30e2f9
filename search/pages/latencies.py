"""Latency of the chain in full: percentiles, spread, and what a difference is worth."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from latency.measurement import Measurement
from latency.told import parse_json
from lpsnet.errors import UserError
from search.executor import conditions, subject
from search.pages.content import Cell, Column, Facts, Item, Plot, Section, Series, Table
from search.pages.facts import Omission, RunFacts
from search.pages.plots import bars, by_step, logarithmic, points

NOISE_FILES = ("noise_floor.json", "noise-floor.json")
"""What `lps-search noise-floor --json` printed, kept in a file."""

COLUMNS = (
    *(("step", "d"), ("to the", ""), ("median ms", ".3f"), ("min", ".3f"), ("p5", ".3f"), ("p25", ".3f"), ("p75", ".3f"), ("p90", ".3f")),
    *(("p95", ".3f"), ("p99", ".3f"), ("spread", ".1%"), ("samples", "d"), ("stable", ""), ("measured", "")),
)

Measured = tuple[int, Measurement]
"""Number of a step, and a latency of its network."""


def latency_section(facts: RunFacts, noise: tuple[Path, dict[str, Any]] | None) -> Section:
    """Percentiles and noise floor; `noise` is a file of `NOISE_FILES` with its content."""
    found = chain_latencies(facts)
    items: list[Item] = [latency_plot(facts, found), latency_table(found)] if found else []
    items += [unstable_table(found)] if not all(m.verdict().stable for _, m in found) else []
    config, environment = facts.run.config, facts.run.environment
    text = [
        f"{config.backend} on {environment.device}, {config.threads} threads, input {config.height}x{config.width}, batch 1, of the "
        "deployed network. A latency is the median of its samples; all samples are in the run's latency.sqlite.",
    ]
    return Section(key="latency", title="Latency", text=tuple(text), items=(*items, noise_facts(facts, noise)))


def chain_latencies(facts: RunFacts) -> list[Measured]:
    """Of every network of the chain its latency at the search's boundary and to the labels; where there is none, an omission."""
    run, found = facts.run, []
    for step in facts.steps:
        for boundary in dict.fromkeys((run.config.boundary, "labels")):
            name = subject(step.chosen.architecture, len(run.class_names))
            measured = run.store.find(name, conditions(run.config, boundary), run.environment)
            if isinstance(measured, Measurement):
                found.append((step.number, measured))
            else:
                facts.omissions.append(Omission(f"step {step.number}", f"latency to the {boundary}", measured or "not measured"))
    return found


def latency_plot(facts: RunFacts, found: list[Measured]) -> Plot:
    """Median, quartiles and the 5th and 95th percentile over the steps, a colour a boundary."""
    traces, series = [], []
    styles = (("series-1", "circle"), ("series-2", "square"))
    for (boundary, (colour, shape)), shift in zip(
        zip(dict.fromkeys((facts.run.config.boundary, "labels")), styles, strict=False), (-0.12, 0.12), strict=False
    ):
        mine = [(number, m) for number, m in found if m.conditions.boundary == boundary]
        if not mine:
            continue
        x, y = [number + shift for number, _ in mine], [m.latency_ms for _, m in mine]
        told = [_told(number, m) for number, m in mine]
        thin = points(x, y, told, colour=colour, shape=shape, size=7)
        thick = {**points(x, y, told, colour=colour, size=1), "hoverinfo": "skip"}
        thin["error_y"] = bars(
            [m.latency_ms - m.percentile_ms(5) for _, m in mine], [m.percentile_ms(95) - m.latency_ms for _, m in mine], colour
        )
        low, high = [m.latency_ms - m.percentile_ms(25) for _, m in mine], [m.percentile_ms(75) - m.latency_ms for _, m in mine]
        thick["error_y"] = bars(low, high, colour, width=5, cap=0)
        traces += [thin, thick]
        series.append(Series(name=f"to the {boundary}", colour=colour, shape=shape, traces=(len(traces) - 2, len(traces) - 1)))
    ends = [m.percentile_ms(p) for _, m in found for p in (5, 95)]
    numbers = [step.number for step in facts.steps]
    steps = by_step(numbers, range=[numbers[0] - 0.5, numbers[-1] + 0.5])
    return Plot(
        key="latency-spread",
        title="Latency of the chain and its spread",
        description=f"Medians from {min(ends):.3g} to {max(ends):.3g} ms over {len(numbers)} networks, with quartiles and percentiles.",
        traces=tuple(traces),
        layout={"xaxis": steps, "yaxis": logarithmic("latency (ms)", ends)},
        series=tuple(series),
        table="latency",
        note="Point: median. Thick: quartiles. Thin: 5th to 95th percentile of the samples.",
    )


def _told(number: int, m: Measurement) -> list[str]:
    spread = f"5 % to 95 %: {m.percentile_ms(5):.4g} to {m.percentile_ms(95):.4g} ms"
    return [f"step {number}, to the {m.conditions.boundary}", f"median {m.latency_ms:.4g} ms", spread, f"{len(m.samples_ms)} samples"]


def latency_table(found: list[Measured]) -> Table:
    """A row a network and boundary."""
    return Table(
        key="latency",
        title="Percentiles of the latency in milliseconds",
        columns=tuple(Column(name=name, form=form, whole=name == "measured") for name, form in COLUMNS),
        rows=tuple(_row(number, measured) for number, measured in found),
        note="Spread: interquartile range over the median. Measured: UTC.",
    )


def _row(number: int, m: Measurement) -> tuple[Cell, ...]:
    percentiles = [m.percentile_ms(p) for p in (5, 25, 75, 90, 95, 99)]
    when = m.created[:16].replace("T", " ")
    samples = (m.spread, len(m.samples_ms), m.verdict().stable, when)
    return (number, m.conditions.boundary, m.latency_ms, min(m.samples_ms), *percentiles, *samples)


def unstable_table(found: list[Measured]) -> Table:
    """Which latencies vary too much to be trusted, and why."""
    unstable = [(number, m, m.verdict()) for number, m in found if not m.verdict().stable]
    return Table(
        key="unstable",
        title="Latencies of the chain that are not stable, and why",
        columns=(Column(name="step", form="d"), Column(name="to the"), Column(name="why")),
        rows=tuple((number, m.conditions.boundary, "; ".join(verdict.reasons)) for number, m, verdict in unstable),
    )


def noise_facts(facts: RunFacts, noise: tuple[Path, dict[str, Any]] | None) -> Facts:
    """What a difference of two latencies is worth here: by the run's own samples, its ties, and a noise floor that was measured."""
    config = facts.run.config
    at = conditions(config)
    kept = [m for m in facts.measurements if m.conditions == at and m.environment == facts.run.environment and "second_ms" not in m.found]
    halves = sorted(map(_half_gap, kept))
    ties = [tie for step in facts.steps for tie in step.ties]
    rows = [("latencies of the search", f"{len(kept)} networks, {sum(m.verdict().stable for m in kept)} of them stable")]
    if halves:
        within = halves[min(len(halves) - 1, int(0.95 * len(halves)))]
        rows.append(
            ("first against second half of a measurement", f"{statistics.median(halves):.1%} in the middle, 95 % within {within:.1%}")
        )
    settled = f"{config.noise:.1%}: {len(ties)} pairs nearer than that were run in turns" if config.noise else "not set: every gap counted"
    rows.append(("gap below which networks are run in turns", settled))
    rows += (
        [_measured_floor(*noise)]
        if noise
        else [("noise floor", "not measured; put what lps-search noise-floor --json prints into noise_floor.json beside the run")]
    )
    return Facts(key="noise", title="Noise floor", rows=tuple(rows), wide=True)


def _half_gap(measured: Measurement) -> float:
    """Relative gap between the medians of the first and the second half of the samples."""
    half = len(measured.samples_ms) // 2
    first, second = statistics.median(measured.samples_ms[:half]), statistics.median(measured.samples_ms[half:])
    return abs(second / first - 1)


def _measured_floor(path: Path, told: dict[str, Any]) -> tuple[str, str]:
    size = "x".join(map(str, told["size"]))
    what = f"{told['architecture']} at {size} to the {told['boundary']}, {told['backend']} on {told['device']}"
    return "noise floor", f"{told['floor']:.1%}, measured with {what} ({path})"


def read_noise(path: Path) -> dict[str, Any]:
    """What `lps-search noise-floor --json` told. Raises `UserError` for a file of something else."""
    try:
        told: dict[str, Any] = parse_json(path.read_text())
        told = {**told, "floor": float(told["floor"]), "size": [int(side) for side in told["size"]]}
        for name in ("architecture", "boundary", "backend"):
            told[name] = str(told[name])
        told["device"] = str(told.get("environment", {}).get("device") or told["device"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is no noise floor, as lps-search noise-floor --json prints it: {error!r}") from error
    return told
