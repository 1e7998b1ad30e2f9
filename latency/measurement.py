"""A latency as a fact: raw samples with the conditions and the environment they were taken under, and a verdict.

Pure values: nothing here runs a network, reads a clock or touches a file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from latency.told import check_fields, is_number, parse_json, shortened

BOUNDARIES = ("scores", "logits", "labels")
"""Where the timed graph ends: coarse score maps, full-resolution logits, or full-resolution class indices."""

DEVICES = ("cpu", "cuda")
"""Kinds of device a runtime may be asked to use."""

PRECISIONS = ("fp32", "tf32", "fp16")

MAX_SPREAD = {"perf_counter": 0.10, "cuda-events": 0.025}
"""By clock: the interquartile range over the median above which samples are called unstable."""

MAX_DRIFT = 0.05
"""Relative change of the median from the first to the second half of the samples above which they are called unstable."""

MAX_OTHER_CORES = 0.15
"""Cores that other processes may keep busy beyond those a measurement leaves free."""

MAX_SLOWNESS = 1.25
"""Time of a small graph that is run beside a measurement on a CPU, over the least it took before, from which the machine is slow."""

MAX_ENQUEUE = 0.8
"""Share of a GPU's latency that the host may spend on enqueuing (NVIDIA's trtexec warns from there on)."""


def too_busy(others: float, cores: int, threads: int) -> bool:
    """Whether other processes keep more cores busy than a measurement with so many threads leaves free."""
    return others > cores - threads + MAX_OTHER_CORES


@dataclass(frozen=True, kw_only=True)
class TimingPlan:
    """How long to warm up and to sample.

    Args:
        warmup_s: seconds of unrecorded runs before the first sample; at least 3 runs are made.
        min_samples: sample at least this often ...
        min_s: ... and for at least this many seconds ...
        max_s: ... but stop after this many seconds once `MIN_SAMPLES_EVER` are there.
    """

    warmup_s: float = 0.2
    min_samples: int = 30
    min_s: float = 0.4
    max_s: float = 20.0

    def __post_init__(self) -> None:
        for name in ("warmup_s", "min_s", "max_s"):  # 1 and 1.0 seconds are the same plan and must give the same key
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.min_samples < MIN_SAMPLES_EVER:
            raise ValueError(f"min_samples must be at least {MIN_SAMPLES_EVER}, got {self.min_samples}")
        if min(self.warmup_s, self.min_s) < 0 or self.max_s <= 0:
            raise ValueError(f"warmup_s, min_s and max_s must not be negative, got {self.warmup_s}, {self.min_s} and {self.max_s}")


MIN_SAMPLES_EVER = 5


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What is timed and how: two latencies compare only under equal conditions.

    Args:
        backend: name of the backend.
        device: "cpu" or "cuda".
        shape: of the input, (1, 3, H, W).
        boundary: one of `BOUNDARIES`.
        precision: one of `PRECISIONS`.
        threads: CPU threads the runtime may use.
        plan: warm-up and sampling.
        cuda_graph: on a GPU, whether the runs are recorded once and launched as one.
    """

    backend: str
    device: str
    shape: tuple[int, int, int, int]
    boundary: str
    precision: str = "fp32"
    threads: int = 1
    plan: TimingPlan = field(default_factory=TimingPlan)
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        for name, known in (("device", DEVICES), ("boundary", BOUNDARIES), ("precision", PRECISIONS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"unknown {name} {value!r}; there are: {', '.join(known)}")
        if self.device == "cpu" and self.precision != "fp32":
            raise ValueError(f"precision {self.precision!r} needs --device cuda; a CPU is measured in fp32")

    def key(self) -> str:
        """Canonical text, equal for equal conditions. What was added since the first stores appears only when not the default."""
        values = dataclasses.asdict(self)
        if self.cuda_graph:
            del values["cuda_graph"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_key(cls, key: str) -> Conditions:
        """The inverse of `key`. Raises `ValueError`, `KeyError` or `TypeError` for something else."""
        values = parse_json(key)
        plan = TimingPlan(**values["plan"])
        found = cls(**{**values, "shape": tuple(values["shape"]), "plan": plan})
        check_fields(plan)
        check_fields(found)
        if min(found.shape) < 1 or found.threads < 1:
            raise ValueError(f"shape and threads must be at least 1, got {found.shape} and {found.threads}")
        return found


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The device and the software a latency depends on. A latency holds for equal environments only.

    Args:
        device: name of the processor or GPU.
        cores: CPU cores the process may use.
        driver: GPU driver and its CUDA version, empty on a CPU.
        versions: version by package, of the runtime and of what builds its graph.
    """

    device: str
    cores: int
    driver: str
    versions: dict[str, str]

    def key(self) -> str:
        """Canonical text, equal for equal environments."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_key(cls, key: str) -> Environment:
        """The inverse of `key`. Raises as `from_dict` does."""
        return cls.from_dict(parse_json(key))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Environment:
        """The environment of plain values by field name. Raises `ValueError`, `KeyError` or `TypeError` for something else."""
        found = cls(**values)
        check_fields(found)
        return found

    def differences(self, other: Environment) -> list[str]:
        """What differs, each as `name: this, not that`."""
        mine, theirs = (_flat(dataclasses.asdict(value)) for value in (self, other))
        return [
            f"{name}: {mine.get(name)!r}, not {theirs.get(name)!r}" for name in sorted(mine | theirs) if mine.get(name) != theirs.get(name)
        ]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "versions"} | dict(values["versions"])


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether samples can be trusted, and why not."""

    stable: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Samples of one network's latency.

    Args:
        subject: which network, for example an architecture's text and its number of classes.
        conditions: what was timed and how.
        environment: where.
        samples_ms: every sample in the order taken, milliseconds a run.
        clock: "perf_counter" (host, synchronised) or "cuda-events" (device).
        warmup_runs: runs before the first sample.
        load_s: seconds to build the graph and to load it.
        created: UTC time, ISO 8601.
        found: what the runtime reported of itself: providers, precision and the like.
    """

    subject: str
    conditions: Conditions
    environment: Environment
    samples_ms: tuple[float, ...]
    clock: str
    warmup_runs: int
    load_s: float
    created: str
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.samples_ms) < MIN_SAMPLES_EVER or not all(0 < sample < math.inf for sample in self.samples_ms):
            raise ValueError(f"a measurement needs at least {MIN_SAMPLES_EVER} samples above 0 ms, got {list(self.samples_ms[:5])} ...")
        if self.clock not in MAX_SPREAD:
            raise ValueError(f"unknown clock {self.clock!r}; there are: {', '.join(MAX_SPREAD)}")
        if not isinstance(self.found, dict):
            raise ValueError(f"what a runtime reports must be a table, got {self.found!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Measurement:
        """A measurement of values by field name, as a store holds them. Raises `ValueError` or `TypeError` for something else."""
        found = cls(**{**values, "samples_ms": tuple(values["samples_ms"])})
        check_fields(found)
        state, parts = found.found.get("state", {}), found.found.get("parts_ms", {})
        if not (isinstance(state, dict) and all(is_number(state.get(name) or 0.0) for name in ("other_cores", "slowness"))):
            raise ValueError(f"the state of the machine must be a table of numbers, got {shortened(state)}")
        if not (isinstance(parts, dict) and all(map(is_number, parts.values()))):
            raise ValueError(f"the parts of a latency must be a table of numbers, got {shortened(parts)}")
        second = found.found.get("second_ms")
        whole = isinstance(second, list | tuple) and len(second) == len(found.samples_ms) and all(map(_is_sample, second))
        if "second_ms" in found.found and not whole:
            raise ValueError(f"the second network's samples must be as many as the first's, above 0 ms, got {shortened(second)}")
        return found

    @property
    def latency_ms(self) -> float:
        """The median, which is what the search and every table call the latency."""
        return statistics.median(self.samples_ms)

    def percentile_ms(self, percent: float) -> float:
        """The sample below which `percent` of the samples lie, linearly interpolated."""
        ordered = sorted(self.samples_ms)
        position = (len(ordered) - 1) * percent / 100
        below = int(position)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (ordered[above] - ordered[below]) * (position - below)

    @property
    def spread(self) -> float:
        """Interquartile range over the median: a spread that single interruptions do not decide."""
        return (self.percentile_ms(75) - self.percentile_ms(25)) / self.latency_ms

    @property
    def coefficient_of_variation(self) -> float:
        """Standard deviation over the mean."""
        return statistics.stdev(self.samples_ms) / statistics.mean(self.samples_ms)

    def verdict(self) -> Verdict:
        """Whether spread and drift stay within their limits, and what to do where they do not."""
        reasons = []
        limit = MAX_SPREAD[self.clock]
        if self.spread > limit:
            reasons.append(
                f"interquartile range {self.spread:.1%} of the median, above {limit:.1%}: something else uses the device; "
                "stop it, or compare in turns (measure A B --interleave)"
            )
        half = len(self.samples_ms) // 2
        drift = statistics.median(self.samples_ms[half:]) / statistics.median(self.samples_ms[:half]) - 1
        if abs(drift) > MAX_DRIFT:
            reasons.append(
                f"median drifted by {drift:+.1%} while sampling: clocks or temperature change, or the warm-up was too short; sample longer"
            )
        state = self.found.get("state", {})
        others, cores, threads = state.get("other_cores") or 0.0, self.environment.cores, self.conditions.threads
        if self.conditions.device == "cpu" and too_busy(others, cores, threads):
            reasons.append(f"other processes kept {others:.1f} cores busy, {cores - threads} of {cores} were free; stop them")
        if (slowness := state.get("slowness") or 1.0) > MAX_SLOWNESS:
            reasons.append(
                f"a small graph that is run beside took {slowness:.1f} times as long as before: the machine is slower for the moment, "
                "perhaps for what others do on a shared one; measure again later"
            )
        enqueue = self.found.get("parts_ms", {}).get("enqueue", 0.0)
        if enqueue > MAX_ENQUEUE * self.latency_ms:
            reasons.append(f"enqueuing takes {enqueue:.3f} ms of {self.latency_ms:.3f}: the host holds the GPU up; use CUDA graphs")
        return Verdict(stable=not reasons, reasons=tuple(reasons))

    def summary(self) -> dict[str, Any]:
        """The figures a table or a machine reads; milliseconds unless named otherwise."""
        verdict = self.verdict()
        return {
            "subject": self.subject,
            "backend": self.conditions.backend,
            "device": self.environment.device,
            "shape": list(self.conditions.shape),
            "boundary": self.conditions.boundary,
            "precision": self.conditions.precision,
            "threads": self.conditions.threads,
            "latency_ms": self.latency_ms,
            "min_ms": min(self.samples_ms),
            "p90_ms": self.percentile_ms(90),
            "p95_ms": self.percentile_ms(95),
            "p99_ms": self.percentile_ms(99),
            "mean_ms": statistics.mean(self.samples_ms),
            "coefficient_of_variation": self.coefficient_of_variation,
            "spread": self.spread,
            "samples": len(self.samples_ms),
            "clock": self.clock,
            "caches": "warm",  # every run follows another on the same input
            **{f"{name}_ms": value for name, value in self.found.get("parts_ms", {}).items()},
            **({"layout": self.found["layout"]} if "layout" in self.found else {}),
            "stable": verdict.stable,
            "reasons": list(verdict.reasons),
            "created": self.created,
        }


def _is_sample(value: Any) -> bool:
    return is_number(value) and 0 < value < math.inf
