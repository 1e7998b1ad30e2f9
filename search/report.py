"""The files derived from a run: `candidates.csv`, `family.csv` and `trajectory.png`. They can be deleted and rebuilt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.files import replace_file
from latency.measurement import Measurement
from lpsnet.architecture import Architecture
from lpsnet.complexity import complexity
from lpsnet.data import data_name
from search.executor import conditions, subject
from search.files import digest_of, new_figure, png
from search.run import Run, RunError
from search.step import Failure, Step, Trial
from search.study import TrainingRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLOURS = {"depth": "#0072b2", "width": "#d55e00", "scale": "#009e73", "start": "#555555"}
"""One colour a dimension, told apart by the colour-blind, too."""


def write_report(run: Run, steps: list[Step]) -> None:
    """Write the derived files of a run into its folder.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        for name, frame in (("candidates.csv", candidates_frame(run, steps)), ("family.csv", family_frame(run, steps))):
            replace_file(run.path / name, frame.to_csv(index=False, float_format="%.6g").encode())
        write_trajectory(run.path / "trajectory.png", run, steps)
    except OSError as error:
        raise RunError(f"cannot write candidates.csv, family.csv and trajectory.png of {run.path}: {error}") from error


def candidates_frame(run: Run, steps: list[Step]) -> pd.DataFrame:
    """One row a candidate of every decided step, the start included; IoU a class in columns of their own."""
    import pandas as pd

    return pd.DataFrame([candidate_row(run, step, trial, record) for step, trial, record in records(run, steps)])


def records(run: Run, steps: list[Step]) -> Iterator[tuple[Step, Trial, TrainingRecord]]:
    """Every candidate of every step with the record of its training."""
    trials: dict[Architecture, str] = {}
    for step in steps:
        parent = trials[step.parent.architecture] if step.parent else ""
        for trial in step.trials:
            architecture = trial.candidate.architecture
            spent = trial.gain.iterations if trial.gain else 0
            rung = spent if spent in run.config.race.rungs else 0
            record = run.study.find(run.key(architecture, parent, rung=rung)) or TrainingRecord()
            trials[architecture] = record.trial
            yield step, trial, record


def candidate_row(run: Run, step: Step, trial: Trial, record: TrainingRecord) -> dict[str, Any]:
    """A row of `candidates.csv`."""
    architecture = trial.candidate.architecture
    failed = isinstance(trial.outcome, Failure)
    measured = _measured(run, architecture, run.config.boundary)
    return {
        "step": step.number,
        "architecture": str(architecture),
        "expansion": trial.candidate.text,
        "k": trial.candidate.k,
        "target_ms": step.target_ms,
        "latency_ms": trial.candidate.latency_ms,
        "latency_stable": measured.verdict().stable if measured else None,
        "miou_percent": None if failed else trial.outcome,
        "failure": trial.outcome.reason if isinstance(trial.outcome, Failure) else "",
        "gain": trial.gain.percent if trial.gain else None,
        "gain_error": trial.gain.error if trial.gain else None,
        "iterations": trial.gain.iterations if trial.gain else run.config.proxy.iterations,
        "seeds": trial.gain.seeds if trial.gain else 1,
        "slope": trial.slope,
        "chosen": architecture == step.chosen.architecture,
        "trial": record.trial,
        "train_s": record.seconds,
        "last_loss": record.curve[-1][1] if record.curve else None,
        **{f"iou_{name}": value for name, value in zip(run.class_names, record.class_iou_percent, strict=False)},
    }


def family_frame(run: Run, steps: list[Step]) -> pd.DataFrame:
    """One row a network of the chain, the columns of the paper's Table 4 and the latency to the labels beside them."""
    import pandas as pd

    return pd.DataFrame([family_row(run, step, record) for step, trial, record in records(run, steps) if trial is step.chosen_trial])


def family_row(run: Run, step: Step, record: TrainingRecord) -> dict[str, Any]:
    """A row of `family.csv`."""
    architecture = step.chosen.architecture
    cost = complexity(architecture, len(run.class_names), run.config.size)
    weights = run.weights_path(architecture)
    labels = _measured(run, architecture, "labels")
    return {
        "step": step.number,
        "expansion": step.chosen_trial.candidate.text,
        "B": "-".join(map(str, architecture.depths)),
        "C": "-".join(map(str, architecture.widths)),
        "R": "-".join(f"{scale}/8" for scale in architecture.scales),
        f"latency_{run.config.boundary}_ms": step.chosen.latency_ms,
        **({"latency_labels_ms": labels.latency_ms if labels else None} if run.config.boundary != "labels" else {}),
        "miou_percent": step.chosen.miou_percent,
        "slope": step.chosen_trial.slope,
        "parameters": cost.parameters,
        "macs_giga": cost.macs / 1e9,
        "architecture": str(architecture),
        "weights": str(weights.relative_to(run.path)) if weights.exists() else "",
        "weights_sha256": record.weights_sha256,
        "sure": step.sure,
        "warnings": "; ".join((*step.warnings, *(tie.text for tie in step.ties))),
    }


def weight_faults(run: Run, steps: list[Step]) -> list[str]:
    """What is wrong with the weights of the chain's networks, a line each: missing, or not those that were trained."""
    faults = []
    for step, trial, record in records(run, steps):
        path = run.weights_path(trial.candidate.architecture)
        if trial is not step.chosen_trial or not record.weights_sha256:
            continue
        if not path.is_file():
            faults.append(f"the weights of step {step.number} are gone: {path}; lpsnet.training.train makes them again")
        elif digest_of(path) != record.weights_sha256:
            faults.append(f"the weights of step {step.number} are not those that were trained: {path} has another SHA-256")
    return faults


def _measured(run: Run, architecture: Architecture, boundary: str) -> Measurement | None:
    found = run.store.find(subject(architecture, len(run.class_names)), conditions(run.config, boundary), run.environment)
    return found if isinstance(found, Measurement) else None


def write_trajectory(path: Path, run: Run, steps: list[Step]) -> None:
    """The search as a picture (the paper's Fig. 7): every candidate, the chain, and the dimension taken at each step."""
    figure = new_figure(8, 5)
    axes: Axes = figure.add_subplot()
    _draw_candidates(axes, steps, run.config.proxy.iterations)
    chain = [step.chosen for step in steps]
    axes.plot([m.latency_ms for m in chain], [m.miou_percent for m in chain], color="#222222", linewidth=1.2, zorder=2)
    for step in steps:
        dimension = dimension_of(step.chosen_trial)
        point = (step.chosen.latency_ms, step.chosen.miou_percent)
        axes.scatter(*point, s=46, color=COLOURS[dimension], edgecolor="#222222", zorder=3)
        axes.annotate(str(step.number), point, textcoords="offset points", xytext=(6, -12), fontsize=9)
    for dimension, colour in COLOURS.items():
        axes.scatter([], [], s=46, color=colour, edgecolor="#222222", label=dimension)
    axes.scatter([], [], s=14, color="#bbbbbb", label="not taken")
    axes.set_xscale("log")
    axes.set_xlabel(f"latency to the {run.config.boundary} (ms, {run.config.backend} on {run.environment.device})", fontsize=9)
    axes.set_ylabel("validation mIoU (%)")
    name, recipe = data_name(run.config.data), run.config.proxy
    title = f"{name} at {run.config.height}x{run.config.width}, {recipe.iterations} iterations a candidate"
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="lower right")
    replace_file(path, png(figure))


def _draw_candidates(axes: Axes, steps: list[Step], iterations: int) -> None:
    """Those not taken; crosses for what left a race on its way, whose score lies low for want of training."""
    left_early = False
    for step in steps:
        for trial in step.trials:
            if isinstance(trial.outcome, Failure) or trial.candidate.architecture == step.chosen.architecture:
                continue
            short = trial.gain is not None and trial.gain.iterations < iterations
            style = {"marker": "x" if short else "o", "color": COLOURS[dimension_of(trial)], "alpha": 0.35}
            axes.scatter(trial.candidate.latency_ms, trial.outcome, s=14, zorder=1, **style)  # type: ignore[arg-type]
            left_early |= short
    if left_early:
        axes.scatter([], [], s=14, color="#bbbbbb", marker="x", label="left a race, trained less")


def dimension_of(trial: Trial) -> str:
    """What a candidate expands: depth, width or scale; "start" for the start."""
    return trial.candidate.expansions[0][0].partition("-")[0] if trial.candidate.expansions else "start"


def sure_text(step: Step) -> tuple[str, ...]:
    """How sure the choice of a step was, for a reader; nothing where it had no rival."""
    if math.isnan(step.sure):
        return ()
    return (f"the chosen slope is above its nearest rival's with a likelihood of {step.sure:.0%}",)
