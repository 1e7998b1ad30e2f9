"""Distinct latencies a 14-step search measures, counted on one made latency function: `python results/count_measurements.py`.

Compares the authors' procedure (one unit of every operation, then each operation from k = 1 upwards until the target is passed,
every network measured when it is met), Algorithm 1 here, and Algorithm 1 here with a forecast whose interval is that of the
predictor in `results/latency/xeon-2-cores`. Nothing is timed: the function is arithmetic, so the figures are the same everywhere.
Writes `results/latency/measurements.json` and prints it; exits 1 where the forecast measures more than half of the authors'
distinct networks, repeats one, or changes the chain.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from lpsnet.architecture import NAMED, Architecture
from search.bracket import Forecast
from search.expand import expand
from search.space import OPERATIONS, Bounds, expansion
from search.step import Measure, Step, Train

STEPS = 14
BOUNDS = Bounds()
LATENCY = Path(__file__).parent / "latency"


def latency_ms(network: Architecture) -> float:
    """Launches, narrow layers that run badly, and multiply-adds of a 1024x2048 image."""
    total = 0.1
    for scale in network.scales:
        before, pixels = 3, 1024 * 2048 * (scale / 8) ** 2
        for depth, width, stride in zip(network.depths, network.widths, (2, 2, 2, 2, 1), strict=True):
            pixels /= stride**2
            for block in range(depth):
                inner = before if block == 0 else width
                total += 0.004 + 9 * inner * width * pixels * (1 + 16 / min(inner, width)) * 2e-10
            before = width
    return total


def miou_percent(network: Architecture) -> float:
    """Grows with all three dimensions, each with diminishing returns, and a little by chance."""
    depth, width = sum(network.depths) / 5, sum(network.widths) / 92
    scale = sum(s**0.5 for s in network.scales) / 2
    chance = random.Random(str(network)).random()
    return 75 - 30 / (1 + 0.5 * depth) - 25 / (1 + 0.7 * width) - 20 / (1 + 0.6 * scale) + 0.3 * chance


def ours(forecast: Forecast | None) -> tuple[list[Architecture], list[Architecture]]:
    """The chain, and every network measured, in order."""
    search, answers, chain, measured = expand(NAMED["N0"], steps=STEPS, bounds=BOUNDS, forecast=forecast), None, [], []
    while True:
        try:
            request = search.send(answers)
        except StopIteration:
            return chain, measured
        answers = None
        if isinstance(request, Measure):
            measured += request.architectures
            answers = {network: latency_ms(network) for network in request.architectures}
        elif isinstance(request, Train):
            answers = {candidate.architecture: miou_percent(candidate.architecture) for candidate in request.candidates}
        elif isinstance(request, Step):
            chain.append(request.chosen.architecture)


def authors(chain: list[Architecture]) -> list[Architecture]:
    """Every network the authors' procedure measures along a chain, in order, repeats included."""
    measured = []
    for parent in chain[:-1]:
        units = [unit for operation in OPERATIONS if BOUNDS.allow(unit := expansion(parent, operation, 1))]
        measured += units
        target = max(map(latency_ms, units))
        for operation in OPERATIONS:
            for k in range(1, 1000):
                network = expansion(parent, operation, k)
                if not BOUNDS.allow(network):
                    break
                measured.append(network)
                if latency_ms(network) >= target:
                    break
    return measured


def forecaster(low: float, high: float) -> Forecast:
    """Intervals from `low` to `high` times a prediction that is off by chance, but never so far that they miss the latency."""

    def interval(network: Architecture) -> tuple[float, float]:
        predicted = latency_ms(network) / random.Random(f"forecast {network}").uniform(low, high)
        return predicted * low, predicted * high

    return lambda relatives: interval


if __name__ == "__main__":
    predictor = json.loads((LATENCY / "xeon-2-cores" / "predictor.json").read_text())
    interval = predictor["step_low"], predictor["step_high"]
    chain, plain = ours(None)
    forecast_chain, spared = ours(forecaster(*interval))
    theirs = authors(chain)
    found = {
        "interval": [round(end, 4) for end in interval],
        "authors_calls": len(theirs),
        "authors_distinct": len(set(theirs)),
        "ours_distinct": len(set(plain)),
        "with_forecast_distinct": len(set(spared)),
        "repeats": len(plain) - len(set(plain)) + len(spared) - len(set(spared)),
        "ratio": round(len(set(spared)) / len(set(theirs)), 3),
        "same_chain": chain == forecast_chain,
    }
    (LATENCY / "measurements.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    sys.exit(found["ratio"] > 0.5 or found["repeats"] > 0 or not found["same_chain"])
