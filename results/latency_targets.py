"""Gathers the figures of the latency targets into `results/latency/targets.csv`: `python results/latency_targets.py`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

LATENCY = Path(__file__).parent / "latency"


def read(name: str) -> Any:
    """A JSON file below the folder of latencies."""
    return json.loads((LATENCY / name).read_text())


def rows() -> list[tuple[str, str, str, bool | str, str]]:
    """What, figure, target, whether it is met, and the command that gives it."""
    error, noise = read("xeon-2-cores/predictor_error.json"), read("xeon-2-cores/noise_floor.json")
    counted, measured = read("measurements.json"), read("targets.json")
    graph, overhead = measured["published_over_ours"], measured["harness_over_bare_loop"]
    predictor, check = "lps-search latency-predictor --check", "python results/check_latency.py"
    no_gpu = ("not yet measured", "-", "no GPU at hand yet")
    return [
        ("CV of one engine, GPU", no_gpu[0], "<= 1 %", no_gpu[1], no_gpu[2]),
        ("rebuild spread, GPU", no_gpu[0], "<= 2 %", no_gpu[1], no_gpu[2]),
        ("CV of S on this shared CPU", f"{noise['coefficient_of_variation']:.1%}", "reported", "-", "lps-search noise-floor"),
        ("noise floor of S's median on this CPU", f"{noise['floor']:.1%}", "reported", "-", "lps-search noise-floor"),
        (
            f"predictor, Spearman on {error['networks']} unseen networks",
            f"{error['spearman']:.4f}",
            ">= 0.99",
            error["spearman"] >= 0.99,
            predictor,
        ),
        ("predictor, share within 10 %", f"{error['within_10_percent']:.0%}", ">= 90 %", error["within_10_percent"] >= 0.9, predictor),
        (
            "distinct measurements of 14 steps, of the authors'",
            f"{counted['with_forecast_distinct']} of {counted['authors_distinct']} ({counted['ratio']:.0%})",
            "<= 50 %",
            counted["ratio"] <= 0.5,
            "python results/count_measurements.py",
        ),
        ("measurements repeated", str(counted["repeats"]), "0", counted["repeats"] == 0, "python results/count_measurements.py"),
        (
            "published graph over ours",
            f"{graph['ratio']:.3f} ({graph['low']:.3f} to {graph['high']:.3f})",
            "never below 1",
            measured["never_slower"],
            check,
        ),
        (
            "harness over a bare loop",
            f"{overhead['ratio']:.3f} ({overhead['low']:.3f} to {overhead['high']:.3f})",
            "<= 1.01",
            measured["overhead_within_limit"],
            check,
        ),
    ]


if __name__ == "__main__":
    with (LATENCY / "targets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "figure", "target", "met", "command"])
        writer.writerows(rows())
