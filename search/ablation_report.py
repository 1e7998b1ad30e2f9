"""The files of an ablation: `ablation.csv`, `ablation.md`, `ablation.json`, `ablation.png` and `trainings.csv`, derived from its record.

Ours and the paper's stand side by side and are never mixed. A verdict needs paired seeds and an interval that excludes 0.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from latency.files import replace_file
from lpsnet.complexity import network_cost
from lpsnet.data import data_name
from lpsnet.errors import UserError
from search.ablation import TABLES, Placed
from search.ablation_run import Ablation
from search.compare_record import ReadRecord
from search.files import csv_text, made_by, markdown_table, name_points, new_figure, png
from search.interval import mean_interval
from search.run import provenance

BETTER, WORSE = "better", "worse"


def rows_of(known: Ablation) -> list[dict[str, Any]]:
    """A row a kind, and one more where it was fitted, too, as the columns of the CSV file."""
    found, paper = [], TABLES[known.plan.table].paper
    papers = _ranks({kind: paper[kind].miou_percent for kind in known.plan.kinds})
    for fitted in (False, True):
        placed = [row for row in known.placed if row.fitted == fitted]
        scores = {row.kind: _scores(known, row) for row in placed}
        ours = _ranks(_on_shared_seeds(scores))
        for row in placed:
            gains = _gains(scores[row.kind], scores[TABLES[known.plan.table].baseline])
            measured = {**_cost(known, row), **_means("miou", scores[row.kind]), "rank": ours.get(row.kind)}
            found.append({**measured, **gains, **_paper(known, row), "paper_rank": papers[row.kind], "failure": _failure(known, row)})
    return found


def _scores(known: Ablation, row: Placed) -> dict[int, float]:
    """mIoU in percent by seed."""
    facts = {seed: known.trainings.get((str(row.network), seed), {}) for seed in range(known.plan.seeds)}
    return {seed: fact["miou_percent"] for seed, fact in facts.items() if "miou_percent" in fact}


def _on_shared_seeds(scores: dict[str, dict[int, float]]) -> dict[str, float]:
    """Mean over the seeds that every kind with a score has, so that a study cut short ranks nobody by luck of the seed."""
    scored = {kind: by_seed for kind, by_seed in scores.items() if by_seed}
    shared = set.intersection(*(set(by_seed) for by_seed in scored.values())) if scored else set()
    return {kind: sum(by_seed[seed] for seed in shared) / len(shared) for kind, by_seed in scored.items()} if shared else {}


def _ranks(values: dict[str, float]) -> dict[str, int]:
    """1 for the highest; equal values share a rank."""
    return {kind: 1 + sum(other > value for other in values.values()) for kind, value in values.items()}


def _means(name: str, values: dict[int, float]) -> dict[str, Any]:
    """Seeds, mean and Student's 95 % interval; a single seed has no interval."""
    if not values:
        return {"seeds": 0, f"{name}_percent": None, f"{name}_low": None, f"{name}_high": None}
    mean, low, high = (None if math.isnan(value) else value for value in mean_interval(list(values.values())))
    return {"seeds": len(values), f"{name}_percent": mean, f"{name}_low": low, f"{name}_high": high}


def _gains(mine: dict[int, float], baseline: dict[int, float]) -> dict[str, Any]:
    """Gain over the baseline, paired by seed, and a verdict only where its interval excludes 0; the baseline has none over itself."""
    pairs = {} if mine is baseline else {seed: score - baseline[seed] for seed, score in mine.items() if seed in baseline}
    found = _means("gain", pairs)
    low, high = found["gain_low"], found["gain_high"]
    verdict = "" if low is None else BETTER if low > 0 else WORSE if high < 0 else ""
    return {"pairs": found.pop("seeds"), **found, "verdict": verdict}


def _cost(known: Ablation, row: Placed) -> dict[str, Any]:
    """What a row costs on paper and on the device, with the gap to the target that remains."""
    plan, cost = known.plan, None
    if row.network is not None:
        try:
            cost = network_cost(row.network, plan.classes, plan.size)
        except ValueError:  # an input too small for it, which its failure says
            cost = None
    ms, target = row.latency_ms, row.target_ms
    return {
        "kind": row.kind,
        "fitted": row.fitted,
        "width": row.width or None,
        "network": str(row.network or ""),
        "parameters": cost and cost.deployed,
        "macs_giga": cost and cost.macs / 1e9,
        "macs_and_biases_giga": cost and (cost.macs + cost.bias_adds) / 1e9,
        "latency_ms": ms,
        "stable": None if ms is None else row.stable,
        "target_ms": target,
        "gap_percent": None if ms is None or target is None else 100 * (ms - target) / target,
        "macs_giga_per_ms": None if ms is None or cost is None else cost.macs / 1e9 / ms,
    }


def _paper(known: Ablation, row: Placed) -> dict[str, Any]:
    """What the paper found of a kind."""
    table = TABLES[known.plan.table]
    told, baseline = table.paper[row.kind], table.paper[table.baseline]
    gain = None if row.kind == table.baseline else told.miou_percent - baseline.miou_percent
    same = {"paper_latency_ms": told.latency_ms, "paper_gflops": told.gflops, "paper_miou_percent": told.miou_percent}
    return {**same, "paper_gain": None if gain is None else round(gain, 1)}


def _failure(known: Ablation, row: Placed) -> str:
    """Why there is no latency, and the trainings that gave no score."""
    told = [f"latency: {row.failure}"] if row.failure else []
    for seed in range(known.plan.seeds):
        reason = known.trainings.get((str(row.network), seed), {}).get("failure")
        told += [f"seed {seed}: {reason}"] if reason else []
    return "; ".join(told)


def write_files(out: Path, known: Ablation, *, picture: bool = True) -> list[dict[str, Any]]:
    """Write the files of an ablation, each whole or not at all; returns the rows. Raises `UserError` where they cannot be written."""
    rows, trainings = rows_of(known), _trainings(known)
    plan = {**known.plan.to_dict(), "data": data_name(known.plan.data)}
    told = {
        "plan": plan,
        "environment": dataclasses.asdict(known.environment),
        **provenance(),
        "seconds": ReadRecord(out).seconds,
        "rows": rows,
        "trainings": trainings,
    }
    try:
        replace_file(out / "ablation.csv", csv_text(rows).encode())
        replace_file(out / "ablation.md", _markdown(known, rows, told).encode())
        replace_file(out / "ablation.json", (json.dumps(told, indent=2) + "\n").encode())
        if trainings:
            replace_file(out / "trainings.csv", csv_text(trainings).encode())
        if picture:
            replace_file(out / "ablation.png", _picture(known, rows))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    return rows


def _trainings(known: Ablation) -> list[dict[str, Any]]:
    kinds = {str(row.network): row.kind for row in known.placed}
    blank = {"miou_percent": None, "seconds": None, "failure": ""}
    return [
        {"kind": kinds[network], "network": network, "seed": seed, **blank, **fact} for (network, seed), fact in known.trainings.items()
    ]


def title(known: Ablation) -> str:
    """What an ablation is of, in a line."""
    at, plan = known.plan.conditions, known.plan
    size = f"{plan.size[0]}x{plan.size[1]}"
    return f"Table {TABLES[plan.table].number} here: {plan.table} at {size}, {at.backend} on {known.environment.device}, {_data(known)}"


def _data(known: Ablation) -> str:
    return data_name(known.plan.data)


BRIEF = ("kind", "c", "G MACs", "ms", "gap %", "seeds", "mIoU %", "gain", "verdict", "rank", "paper's ms", "its mIoU %", "its rank", "")
"""Columns that a terminal has room for."""


def table(known: Ablation, rows: list[dict[str, Any]], *, brief: bool = False) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table a reader sees: ours, then the paper's."""
    named = [_cells(row, known) for row in rows]
    columns = [name for name in named[0] if not brief or name in BRIEF]
    return columns, [[cells[name] for name in columns] for cells in named]


def _cells(row: dict[str, Any], known: Ablation) -> dict[str, str]:
    def shown(name: str, form: str) -> str:
        return "-" if row[name] is None else format(row[name], form)

    def spanned(name: str, form: str) -> str:
        span = "" if row[f"{name}_low"] is None else f" ({shown(f'{name}_low', form)} to {shown(f'{name}_high', form)})"
        return shown(f"{name}_percent", form) + span

    notes = ["fitted"] * (row["fitted"] and known.plan.table != "blocks") + ["unstable"] * (row["stable"] is False)
    return {
        "kind": row["kind"],
        "c": shown("width", "d"),
        "parameters": shown("parameters", ","),
        "G MACs": shown("macs_giga", ".4g"),
        "+ biases": shown("macs_and_biases_giga", ".4g"),
        "ms": shown("latency_ms", ".3f"),
        "gap %": shown("gap_percent", "+.1f"),
        "G MACs/ms": shown("macs_giga_per_ms", ".3g"),
        "seeds": "one" if row["seeds"] == 1 else str(row["seeds"]),
        "mIoU %": spanned("miou", ".2f"),
        "gain": "baseline" if row["kind"] == TABLES[known.plan.table].baseline else spanned("gain", "+.2f"),
        "verdict": "one seed" if row["pairs"] == 1 else row["verdict"] or "-",
        "rank": shown("rank", "d"),
        "paper's ms": shown("paper_latency_ms", ".2f"),
        "its G": shown("paper_gflops", ".1f"),
        "its mIoU %": shown("paper_miou_percent", ".1f"),
        "its gain": shown("paper_gain", "+.1f"),
        "its rank": shown("paper_rank", "d"),
        "": "; ".join([*notes, *([row["failure"]] if row["failure"] else [])]),
    }


def reading(known: Ablation, rows: list[dict[str, Any]]) -> list[str]:
    """How the table is to be read: how much the seeds tell, and how near the fitted latencies are."""
    pairs, baseline = [row["pairs"] for row in rows if row["pairs"]], TABLES[known.plan.table].baseline
    told = []
    if not pairs:
        told.append(f"No gain over {baseline} has been trained yet.")
    elif max(pairs) == 1:
        told.append("One seed: a difference may be that seed's luck; there is no interval and no verdict.")
    else:
        several = sum(count > 1 for count in pairs)
        told.append(
            f"Gains are over {baseline} with the same seed, in points of mIoU, with Student's 95 % interval; a verdict stands where that "
            f"excludes 0. Each of {several} comparisons stands for itself: of so many one may exclude 0 by chance."
        )
    gaps = [abs(row["gap_percent"]) for row in rows if row["gap_percent"] is not None]
    if gaps:
        target = next(row["target_ms"] for row in rows if row["target_ms"] is not None)
        told.append(f"Widths c are whole and fitted to {target:.3f} ms; the largest gap that remains is {max(gaps):.1f} %.")
    return told


def _markdown(known: Ablation, rows: list[dict[str, Any]], told: dict[str, Any]) -> str:
    (columns, cells), plan = table(known, rows), known.plan
    at, recipe = plan.conditions, plan.recipe
    lines = [
        f"# {title(known)}",
        "",
        "B = (1,2,4,7,7), C = (c,2c,4c,8c,8c), R = (1,1/4). Latency of one image to the "
        f"{at.boundary}, {at.precision}, {at.threads} threads, batch normalisation folded. Trained for {recipe.iterations} iterations of "
        f"{recipe.batch_size} images in {plan.precision}, scored on the validation split of {_data(known)}.",
        "",
        *markdown_table(columns, cells),
        "",
        " ".join(reading(known, rows)),
        "",
        "G MACs: multiply-adds of convolutions to the scores, one a multiply-add; + biases: with sums with biases, as the paper counts. "
        "Ranks are by mIoU among these rows, ours over the seeds that all have. The paper's (`its`): Cityscapes at 1024x2048, TensorRT in "
        "fp32 on a GTX 1070Ti, without intervals.",
        "",
        made_by(told),
    ]
    return "\n".join(lines) + "\n"


def _picture(known: Ablation, rows: list[dict[str, Any]]) -> bytes:
    """mIoU over latency: ours with intervals, and the paper's beside it."""
    figure = new_figure(11, 4.6)
    left, right = figure.subplots(1, 2)
    ours: list[tuple[float, float, str]] = []
    for row in rows:
        colour = "#d55e00" if row["fitted"] else "#0072b2"
        if row["latency_ms"] is not None and row["miou_percent"] is not None:
            at, mean = row["latency_ms"], row["miou_percent"]
            ends = None if row["miou_low"] is None else [[mean - row["miou_low"]], [row["miou_high"] - mean]]
            left.errorbar(at, mean, ends, fmt="o", markersize=5, capsize=2, color=colour)
            ours.append((at, mean, f"{row['kind']} ({row['width']})"))
    paper = [(told.latency_ms, told.miou_percent, kind) for kind, told in TABLES[known.plan.table].paper.items()]
    for across, up, _ in paper:
        right.plot(across, up, "o", markersize=5, color="#555555")
    at = known.plan.conditions
    counts = [row["seeds"] for row in rows if row["seeds"]] or [0]
    least, most = min(counts), max(counts)
    seeds = "one seed" if most == 1 else f"{most if least == most else f'{least} to {most}'} seeds, 95 % intervals"
    left.set_title(f"here ({seeds}; c in brackets)", fontsize=10)
    left.set_xlabel(f"latency to the {at.boundary} (ms, {at.backend} on {known.environment.device})", fontsize=8)
    left.set_ylabel(f"validation mIoU (%), {_data(known)}, {known.plan.recipe.iterations} iterations", fontsize=8)
    right.set_title(f"the paper's Table {TABLES[known.plan.table].number}", fontsize=10)
    right.set_xlabel("latency to the scores (ms, TensorRT fp32 on a GTX 1070Ti)", fontsize=8)
    right.set_ylabel("validation mIoU (%), Cityscapes", fontsize=8)
    for axes, points in ((left, ours), (right, paper)):
        axes.grid(alpha=0.3)
        axes.margins(x=0.2)
        name_points(axes, points, 7)
    return png(figure)
