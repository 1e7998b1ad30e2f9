"""The files of a comparison: `compare.csv`, `compare.md`, `compare.json` and `compare.png`. They are derived from its record."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from latency.files import replace_file
from latency.rounds import MAX_SPREAD, Rounds
from lpsnet.baselines import BASELINES
from lpsnet.data import data_name
from lpsnet.errors import UserError
from lpsnet.zoo import complexity_of, paper_of
from search.compare_entries import AS_GIVEN, GRAPH, NETWORK, Entry
from search.compare_plan import ComparePlan, Found, extent
from search.compare_record import ReadRecord
from search.files import csv_text, latency_axis, made_by, markdown_table, name_points, new_figure, png
from search.interval import mean_interval
from search.pareto import front
from search.published import PUBLISHED
from search.run import provenance

MIB = 2**20
CROWD = 15
"""Of more networks a picture is larger, so that their names find room."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""One a paper, told apart by the colour-blind, too."""


def rows_of(found: list[Found], plan: ComparePlan) -> list[dict[str, Any]]:
    """A row an entry, as the columns of the CSV file."""
    rows = [_row(one, plan) for one in found]
    scored = [row for row in rows if _comparable(row, plan) and _fairly_scored(row)]
    if len({row["data"] for row in scored}) == 1:  # mIoU on different data sets do not compare
        for index in front([(row[_column(plan.boundary)], row["miou_percent"]) for row in scored]):
            scored[index]["front"] = True
    return rows


def _column(boundary: str) -> str:
    return f"latency_{boundary.replace(' ', '_')}_ms"


def _comparable(row: dict[str, Any], plan: ComparePlan) -> bool:
    """Whether a row was measured under the conditions of most: to the same boundary, at the same size."""
    return row[_column(plan.boundary)] is not None and row["input"] == extent(plan.conditions.shape[2:])


def _fairly_scored(row: dict[str, Any]) -> bool:
    """Whether a mIoU is of frames that were not trained on, at the size of the latency."""
    return row["miou_percent"] is not None and not row["seen"] and row["miou_input"] == row["input"]


def _row(found: Found, plan: ComparePlan) -> dict[str, Any]:
    entry = found.entry
    parameters, macs = _cost(entry)
    turns = {boundary: Rounds(turns=tuple(turns)) for boundary, turns in found.turns.items()}
    ranked = turns.get(plan.boundary)
    columns = dict.fromkeys((plan.boundary, "scores", "labels"))
    if entry.kind == GRAPH:
        turns = {AS_GIVEN: ranked} if ranked else {}
    return {
        "network": entry.label,
        "kind": entry.kind,
        "paper": _paper(entry.network) if entry.network else "",
        "architecture": entry.network,
        "classes": entry.classes or None,
        "input": extent(entry.size),
        "parameters": parameters,
        "macs_giga": None if macs is None else macs / 1e9,
        **_published(entry),
        "boundary": AS_GIVEN if entry.kind == GRAPH else plan.boundary,
        **{_column(name): turns[name].latency_ms if name in turns else None for name in (*columns, AS_GIVEN)},
        "slowest_turn_ms": ranked.slowest_ms if ranked else None,
        "macs_giga_per_ms": None if macs is None or "scores" not in turns else macs / 1e9 / turns["scores"].latency_ms,
        "stable": ranked.stable if ranked else None,
        "unstable": ", ".join(name for name, taken in turns.items() if not taken.stable),
        "slowness": _slowness(found, plan.boundary),
        "rounds": len(ranked.turns) if ranked else 0,
        "samples": ranked.samples if ranked else 0,
        "output": found.output.get(plan.boundary, ""),
        "memory_mib": None if found.memory_bytes is None else found.memory_bytes / MIB,
        **_scores(found),
        "miou_from": found.miou_from,
        "miou_input": found.miou_input,
        "data": found.miou_data,
        "seen": found.seen,
        "front": False,
        "failure": "; ".join(f"{what}: {reason}" for what, reason in found.failures.items()),
    }


def _slowness(found: Found, boundary: str) -> float | None:
    """How much slower than it can be the machine seemed in the turn that counts, None where that is not known."""
    turns = zip(map(statistics.median, found.turns.get(boundary, [])), found.slowness.get(boundary, []), strict=True)
    slowness = min(turns, default=(0.0, math.nan))[1]
    return None if math.isnan(slowness) else slowness


def _scores(found: Found) -> dict[str, Any]:
    """Mean, number of seeds of trainings here, and Student's 95 % interval, which a single one does not have."""
    if not found.mious:
        return {"miou_percent": None, "seeds": None, "miou_low": None, "miou_high": None}
    mean, low, high = (None if math.isnan(value) else value for value in mean_interval(found.mious))
    seeds = len(found.mious) if found.entry.kind == NETWORK else None
    return {"miou_percent": mean, "seeds": seeds, "miou_low": low, "miou_high": high}


def _cost(entry: Entry) -> tuple[int | None, int | None]:
    if entry.kind == GRAPH:
        return entry.parameters, entry.macs
    try:
        cost = complexity_of(entry.network, entry.classes, entry.size)
    except ValueError:  # an image too small for the network, which its failure says
        return None, None
    return cost.parameters, cost.macs


def _paper(network: str) -> str:
    title, number = paper_of(network)
    return f"{title} ({number})" if number else title


def _published(entry: Entry) -> dict[str, Any]:
    """What the network's paper says it costs, by its own count."""
    told = PUBLISHED.get(entry.network)
    return {
        "paper_parameters_millions": told.parameters_millions if told else None,
        "paper_gflops": told.gflops if told else None,
        "paper_gflops_input": extent(told.size) if told and told.size else "",
        "paper_gflops_counts": BASELINES[entry.network].paper.flops if told and told.gflops else "",
    }


def write_files(out: Path, rows: list[dict[str, Any]], plan: ComparePlan, environment: dict[str, Any], *, picture: bool = True) -> None:
    """Write the files of a comparison, each whole or not at all. Raises `UserError` where they cannot be written."""
    conditions = {**json.loads(plan.conditions.key()), "ranked_at": plan.boundary, "rounds": plan.rounds}
    training = {"data": data_name(plan.data), "recipe": plan.recipe.to_dict() if plan.recipe else None, "seeds": list(plan.seeds)}
    told = {
        "conditions": conditions,
        "environment": environment,
        "scores": training,
        **provenance(),
        "seconds": ReadRecord(out).seconds,
        "rows": rows,
    }
    try:
        replace_file(out / "compare.csv", csv_text(rows).encode())
        replace_file(out / "compare.md", _markdown(rows, plan, told).encode())
        replace_file(out / "compare.json", (json.dumps(told, indent=2) + "\n").encode())
        if picture:
            replace_file(out / "compare.png", _picture(rows, plan, environment["device"]))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error


def table(rows: list[dict[str, Any]], plan: ComparePlan) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table a reader sees; networks that could be ranked come first, from fast to slow."""
    ends = list(dict.fromkeys(("scores", "labels", plan.boundary)))
    graphs = any(row["kind"] == GRAPH for row in rows)
    columns = ["network", "parameters", "G MACs", "paper's own count", *(f"ms to {end}" for end in ends)]
    columns += ["ms as given"] * graphs + ["slowest turn", "G MACs/ms", "MiB", "mIoU %", ""]
    ranked = _column(plan.boundary)
    ordered = sorted(rows, key=lambda row: (row[ranked] is None, row[ranked] or 0.0))
    return columns, [_cells(row, [*ends, *([AS_GIVEN] if graphs else [])], plan) for row in ordered]


def _cells(row: dict[str, Any], ends: list[str], plan: ComparePlan) -> list[str]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    own = "-" if row["paper_gflops"] is None else f"{row['paper_gflops']:g} G at {row['paper_gflops_input']}"
    notes = ["front"] * row["front"] + [f"unstable: {row['unstable']}"] * bool(row["unstable"])
    notes += [f"at {row['input']}"] * (row["input"] != extent(plan.conditions.shape[2:]))
    notes += [f"mIoU at {row['miou_input']}"] * (row["miou_input"] not in ("", row["input"])) + ["trained on these frames"] * row["seen"]
    return [
        row["network"],
        shown(row["parameters"], ","),
        shown(row["macs_giga"], ".3f"),
        own,
        *(shown(row[_column(end)], ".2f") for end in ends),
        shown(row["slowest_turn_ms"], ".2f"),
        shown(row["macs_giga_per_ms"], ".3g"),
        shown(row["memory_mib"], ".0f"),
        shown(row["miou_percent"], ".2f") + ("" if row["miou_low"] is None else f" ({row['miou_low']:.2f} to {row['miou_high']:.2f})"),
        "; ".join([*notes, *([row["failure"]] if row["failure"] else [])]),
    ]


def _seeds(row: dict[str, Any]) -> str:
    if row["seeds"] is None:
        return ""
    return ", one seed" if row["seeds"] == 1 else f", mean and 95 % interval of {row['seeds']} seeds"


def _markdown(rows: list[dict[str, Any]], plan: ComparePlan, told: dict[str, Any]) -> str:
    columns, cells = table(rows, plan)
    at, device = plan.conditions, told["environment"]["device"]
    counts = sorted({f"{row['paper']}: {row['paper_gflops_counts']}" for row in rows if row["paper_gflops_counts"]})
    scores = sorted({f"{row['miou_from']}, {row['data']}{_seeds(row)}" for row in rows if row["miou_percent"] is not None})
    taken = "took on the device" if at.device == "cuda" else "took at its peak, in a process of its own"
    lines = [
        f"# {len(rows)} networks at {extent(at.shape[2:])}, {at.backend} on {device}",
        "",
        f"Batch 1, {at.precision}, {at.threads} threads, batch normalisation folded, input in the device's memory. Every network had a "
        f"turn in each of {plan.rounds} rounds, and more where no second turn came within {MAX_SPREAD:.0%} of the fastest, which counts; "
        f"where none did in {2 * plan.rounds} turns a latency is called unstable. `scores` are at each network's own scale, "
        f"`labels` are classes at the size of the image; rows are sorted by {plan.boundary}, whose slowest turn is shown, too.",
        "",
        *markdown_table(columns, cells),
        "",
        "G MACs: multiply-adds of convolutions and matrix products to the scores, one a multiply-add, counted here. "
        f"G MACs/ms: of these, over the latency to the scores. MiB: memory that loading and running {taken}.",
        *(["", "The papers' own counts: " + "; ".join(counts) + "."] if counts else []),
        *(["", "mIoU: " + "; ".join(scores) + "."] if scores else []),
        "",
        made_by(told),
    ]
    return "\n".join(lines) + "\n"


def _picture(rows: list[dict[str, Any]], plan: ComparePlan, device: str) -> bytes:
    """mIoU over latency with its front (the paper's Fig. 2), or without any mIoU latency over multiply-adds."""
    ranked = _column(plan.boundary)
    usable = [row for row in rows if _comparable(row, plan)]
    scored = [row for row in usable if row["miou_percent"] is not None]
    across, up, drawn = (ranked, "miou_percent", scored) if scored else ("macs_giga", ranked, usable)
    figure = new_figure(11, 7) if len(drawn) > CROWD else new_figure(8, 5)
    axes = figure.subplots()
    papers = list(dict.fromkeys(row["paper"] for row in drawn))
    for number, paper in enumerate(papers):
        mine = [row for row in drawn if row["paper"] == paper]
        axes.scatter([row[across] for row in mine], [row[up] for row in mine], s=26, color=COLOURS[number % len(COLOURS)], label=paper)
    best = sorted((row for row in drawn if row["front"]), key=lambda row: row[ranked])
    axes.plot([row[across] for row in best], [row[up] for row in best], color="#222222", linewidth=1, zorder=0)
    if drawn:
        axes.legend(fontsize=7)
    if scored:
        latency_axis(axes)
    elif drawn:
        axes.set_xscale("log")
        axes.set_yscale("log")
    latency = f"latency to the {plan.boundary} (ms, {plan.conditions.backend} on {device})"
    axes.set_xlabel(latency if scored else "G MACs to the scores")
    axes.set_ylabel(f"validation mIoU (%), {', '.join(sorted({row['data'] for row in scored}))}" if scored else latency, fontsize=8)
    axes.set_title(f"{len(drawn)} networks at {extent(plan.conditions.shape[2:])}", fontsize=10)
    axes.grid(alpha=0.3)
    name_points(axes, [(row[across], row[up], Path(row["network"]).stem) for row in drawn])
    return png(figure)
