"""Two targets of the latency instrument, measured here: `python results/check_latency.py [HEIGHTxWIDTH]`, exit 1 on a miss.

- The deployed graph against a plain export of the published network (restated below, convolution, normalisation and ReLU as
  separate layers, built without this project's network code), at the scores, in ONNX Runtime, in turns: never slower.
- The harness against a bare loop over the same session, in turns: at most 1 % slower.

Writes `results/latency/targets.json` and prints it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latency.backends import usable_backend
from latency.compare import Comparison, compared, interleave
from latency.environment import available_cores
from latency.measure import opened
from latency.measurement import Conditions, TimingPlan
from latency.protocols import Session
from latency.timing import sample
from lpsnet.network import LPSNet
from search.run import provenance

OUT = Path(__file__).parent / "latency" / "targets.json"
OVERHEAD_LIMIT = 1.01
ROUNDS = 30


class PublishedS(nn.Module):
    """LPS-Net-S as its authors state it: two paths, Bilateral-B after stages 3 and 4, one 1x1 head; 19 classes."""

    DEPTHS, WIDTHS, SCALES = (1, 3, 3, 10, 10), (8, 24, 48, 96, 96), (0.75, 0.25)

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = self.path(), self.path()
        self.head = nn.Conv2d(2 * self.WIDTHS[-1], 19, 1)

    def path(self) -> nn.ModuleList:
        before, stages = 3, []
        for number, (depth, width) in enumerate(zip(self.DEPTHS, self.WIDTHS, strict=True)):
            layers: list[nn.Module] = []
            for block in range(depth):
                stride = 2 if block == 0 and number < 4 else 1
                layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            stages.append(nn.Sequential(*layers))
        return nn.ModuleList(stages)

    def scores(self, image: Tensor) -> Tensor:
        """Score maps at 1/16 of the larger path."""

        def like(x: Tensor, size: torch.Size) -> Tensor:
            return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

        height, width = image.shape[-2:]
        high, low = (like(image, torch.Size((int(height * s), int(width * s)))) for s in self.SCALES)
        for number, (upper, lower) in enumerate(zip(self.high, self.low, strict=True)):
            high, low = upper(high), lower(low)
            if number in (2, 3):
                high, low = high + like(low, high.shape[-2:]), low + like(high, low.shape[-2:])
        result: Tensor = self.head(torch.cat([high, like(low, high.shape[-2:])], 1))
        return result


def bare_loop(session: Session, seconds: float) -> float:
    """Median milliseconds of a session's runs, timed by nothing but a loop."""
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        samples.append(session.run_ms())
    return statistics.median(samples)


def figures(comparison: Comparison) -> dict[str, float]:
    """Ratio of the second to the first with its interval."""
    return {"ratio": round(comparison.ratio, 4), "low": round(comparison.low, 4), "high": round(comparison.high, 4)}


if __name__ == "__main__":
    height, width = map(int, (sys.argv[1] if len(sys.argv) > 1 else "512x1024").split("x"))
    plan = TimingPlan(warmup_s=0.2, min_samples=5, min_s=0.3)
    at = Conditions(backend="ort", device="cpu", shape=(1, 3, height, width), boundary="scores", threads=available_cores(), plan=plan)
    ours = LPSNet("LPS-Net-S", 19, deployed=True)
    graph = interleave(ours, PublishedS(), at, turns=60)
    harness, bare = [], []
    with opened(usable_backend("ort", "cpu"), ours, at) as session:
        for turn in range(ROUNDS):
            for harnessed in (turn % 2 == 0, turn % 2 == 1):
                value = statistics.median(sample(session, plan).samples_ms) if harnessed else bare_loop(session, plan.min_s)
                (harness if harnessed else bare).append(value)
    overhead = compared(bare, harness)
    found = {
        "input_size": [height, width],
        "published_over_ours": figures(graph),
        "harness_over_bare_loop": figures(overhead),
        "never_slower": graph.faster != "second",
        "overhead_within_limit": overhead.ratio <= OVERHEAD_LIMIT,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({**found, **provenance()}, indent=2) + "\n")
    print(json.dumps(found))
    sys.exit(not (found["never_slower"] and found["overhead_within_limit"]))
