"""What many fault drills came to: a summary, a table by kind of fault, and where the faults struck, as a table and a picture."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from latency.files import replace_file
from search.files import csv_text, new_figure, png
from search.run import write_json
from tests.drill_faults import COMMITS

Rows = list[dict[str, str]]
WORK = ("training", "latency", "frame", "any moment")
"""Points of the work between commits; what is done in a worker counts as the same work."""

_COLOURS = {"killed": "#d55e00", "full disk": "#0072b2", "torn journal tail": "#009e73", "damaged": "#cc79a7", "other": "#999999"}


def write_report(out: Path, rows: Rows, provenance: dict[str, Any]) -> bool:
    """Write `summary.json`, `kinds.csv`, `points.csv` and `strikes.png`; returns whether every drill went well and every point was hit."""
    points = by_point(rows)
    summary = {
        "faults": len(rows),
        "searches": len({row["drill"] for row in rows}),
        **totals(rows),
        "commit_points": len(COMMITS),
        "commit_points_hit": sum(points[point].total() > 0 for point in COMMITS),
        "commits": sorted({row["commit"] for row in rows}),
    }
    write_json(out / "summary.json", {**summary, **provenance})
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    told = [{"fault": kind, **_told(rows, kind)} for kind in kinds] + [{"fault": "all", **_told(rows)}]
    replace_file(out / "kinds.csv", csv_text(told).encode())
    lines = [{"point": point, "faults": counts.total(), **{kind: counts[kind] for kind in kinds}} for point, counts in points.items()]
    replace_file(out / "points.csv", csv_text(lines).encode())
    replace_file(out / "strikes.png", _picture(points))
    print(json.dumps(summary))
    good = summary["not_survived"] == summary["chains_differ"] == summary["lost_more_than_running"] == 0
    return good and summary["commit_points_hit"] == summary["commit_points"]


def totals(rows: Rows) -> dict[str, int]:
    """How many searches went wrong in which way, and what was done again."""
    searches = list({row["drill"]: row for row in rows}.values())
    return {
        "not_survived": sum(row["survived"] != "True" for row in searches),
        "chains_differ": sum(row["same"] != "True" for row in searches),
        "lost_more_than_running": sum(row["within"] != "True" for row in searches),
        "finished_trained_again": sum(int(row["finished_again"]) for row in searches),
        "most_trained_again_at_once": max((int(row["most_at_once"]) for row in searches), default=0),
    }


def by_point(rows: Rows) -> dict[str, Counter[str]]:
    """How many faults of each kind struck at each commit point, and in the work between."""
    points: dict[str, Counter[str]] = {point: Counter() for point in (*COMMITS, *WORK)}
    for row in rows:
        points[row["place"].partition(":")[0].removesuffix(" in a worker")][row["kind"]] += 1
    return points


def _told(rows: Rows, kind: str = "") -> dict[str, int]:
    chosen = [row for row in rows if kind in ("", row["kind"])]
    found = totals(chosen)
    names = ("chains_differ", "finished_trained_again", "most_trained_again_at_once")
    survived = sum(row["survived"] == "True" for row in chosen)
    return {"faults": len(chosen), "survived": survived, **{name: found[name] for name in names}}


def _group(kind: str) -> str:
    return next((name for name in _COLOURS if name in kind), "other")


def _picture(points: dict[str, Counter[str]]) -> bytes:
    """Faults a point as bars, coloured by what struck."""
    figure = new_figure(8, 7)
    axes = figure.add_subplot()
    names = list(points)[::-1]
    left = [0] * len(names)
    for group, colour in _COLOURS.items():
        counts = [sum(count for kind, count in points[name].items() if _group(kind) == group) for name in names]
        axes.barh(names, counts, left=left, color=colour, label=group)
        left = [before + count for before, count in zip(left, counts, strict=True)]
    axes.set_xlabel("faults that struck there")
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, loc="lower right")
    return png(figure)
