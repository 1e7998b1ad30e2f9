"""Gathers the figures of the proxy's targets into `results/proxy/targets.csv`, for docs/results.md: `python results/proxy_targets.py RUN`.

RUN is the folder of the four-step search by the default proxy.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

from search.proxy_study import candidates_of
from search.rivals_live import chain_of
from search.run import Run
from search.runner import replay

RESULTS = Path(__file__).parent
SETTING, RACE = "identity-rate2-200", "race-identity-rate2-200x2"
"""The default proxy's trainings, and how it spends them."""

STUDY, RIVAL = "lps-search validate-proxy", "lps-search rival --seeds 100"
LATER = ("not yet measured", "-", "no GPU at hand yet")


def ranking() -> list[tuple[Any, ...]]:
    """Of the default proxy, its regret within the steps and its Spearman over all candidates, where it was chosen and held out."""
    rows = []
    for folder, where in (("proxy", "it was chosen on"), ("proxy_held_out", "held out")):
        told = json.loads((RESULTS / folder / "summary.json").read_text())
        steps = [row for row in told["races"] if row["setting"] == RACE]
        whole = next(row for row in told["rows"] if row["setting"] == SETTING and row["step"] == "all")
        lost = sum(row["regret"] for row in steps) / len(steps)
        spreads = [row["regret_sd"] for row in steps]
        told_all = all(spread is not None and math.isfinite(spread) for spread in spreads)  # by two full seeds or more
        within = sum(spread <= 1 for spread in spreads) if told_all else 0
        share = (
            f"{within} of {len(steps)}; {lost:.2f} points on average"
            if told_all
            else f"{lost:.2f} points in {len(steps)}, by one full seed"
        )
        spearman = f"{whole['spearman']:.2f} ({whole['spearman_low']:.2f} to {whole['spearman_high']:.2f})"
        regret, order = (
            f"steps {where}: top-1 regret within one seed deviation",
            f"{whole['candidates']:.0f} candidates {where}: Spearman of mIoU",
        )
        met = within >= 0.8 * len(steps) if told_all else "not yet told"
        rows += [(regret, share, ">= 80 %", met, STUDY), (order, spearman, ">= 0.95", whole["spearman"] >= 0.95, STUDY)]
    return rows


def search(folder: Path) -> list[tuple[Any, ...]]:
    """Iterations and minutes of the four-step search."""
    full = json.loads((RESULTS / "proxy" / "summary.json").read_text())["full_iterations"]
    with Run.read(folder) as run:
        steps, proxy = replay(run).steps, run.config.proxy
        trained = sum(len(run.study.trials(step.number)) for step in steps)
    minutes = chain_of(folder).spent_s / 60
    spent, fully = trained * proxy.iterations, full * (1 + sum(len(candidates_of(step)) for step in steps if step.parent is not None))
    share = f"{spent} of {fully} ({spent / fully:.1%})"
    return [
        ("training iterations of 4 steps, of training all fully", share, "<= 10 %", spent <= 0.1 * fully, "lps-search expand --steps 4"),
        ("minutes of a 4-step search on 2 cores", f"{minutes:.1f}", "< 30", minutes < 30, "lps-search expand --steps 4 --parallel 2"),
        ("minutes of a 14-step search with one GPU", LATER[0], "< 30", LATER[1], LATER[2]),
    ]


def rivals() -> list[tuple[Any, ...]]:
    """Greedy against the best of the other searches, variants of it left out, at each cost."""
    file = RESULTS / "rivals" / "summary.json"
    if not file.exists():
        return [("hypervolume of greedy above the best rival", "not yet measured", "not below 0", "-", RIVAL)]
    found: list[dict[str, Any]] = json.loads(file.read_text())["samplers"]  # by cost, then the largest first
    rows = []
    for moment, when in zip(
        sorted({row["spent_s"] for row in found}), ("at the cost of its chain", "with all the hour spent"), strict=True
    ):
        best = next(row for row in found if row["spent_s"] == moment and row["sampler"] in ("random", "tpe", "nsga2", "compound"))
        gap = f"{best['greedy_ahead']:+.2f} ({best['greedy_ahead_low']:+.2f} to {best['greedy_ahead_high']:+.2f}) above {best['sampler']}"
        verdict = best["greedy_ahead_low"] >= 0 or ("not told apart" if best["greedy_ahead_high"] >= 0 else False)
        rows.append((f"hypervolume of greedy above the best rival, {when}", gap, "not below 0", verdict, RIVAL))
    return rows + live()


def live() -> list[tuple[Any, ...]]:
    """Greedy against searches for real, each of one seed, by fronts that were measured and trained anew."""
    rows = []
    for file in sorted((RESULTS / "rivals").glob("live_*_against.csv")):
        with file.open() as lines:
            found = {row["sampler"]: float(row["fresh_hypervolume"]) for row in csv.DictReader(lines) if row["fresh_hypervolume"]}
        (name,) = set(found) - {"greedy"}
        gap, command = found["greedy"] - found[name], f"lps-search rival --live camvid --sampler {name} --against RUN"
        rows.append(("hypervolume of greedy above a live search, one seed", f"{gap:+.2f} above {name}", "not below 0", gap >= 0, command))
    return rows


if __name__ == "__main__":
    with (RESULTS / "proxy" / "targets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "figure", "target", "met", "command"])
        writer.writerows(ranking() + search(Path(sys.argv[1])) + rivals())
