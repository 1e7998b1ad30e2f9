"""Everything that decides a search, as one frozen value that is stored with the run. Pure; nothing here runs."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from latency.measurement import BOUNDARIES, DEVICES, TimingPlan
from latency.told import check_fields
from lpsnet.architecture import EIGHTHS, Architecture
from lpsnet.data import DataSpec
from lpsnet.errors import UserError
from lpsnet.recipe import MOST, PRECISIONS, TrainRecipe, proxy_recipe
from search.space import Bounds


@dataclass(frozen=True, kw_only=True)
class RacePlan:
    """How the trainings of a step are spent (`search/race.py`).

    Args:
        rungs: iterations at which all candidates that remain are scored on their way; those that are surely worse stop there.
        seeds: most seeds a close call is trained with.
        sure: likelihood at which a candidate is dropped or a choice made without another seed, from 0.5 to 1.
        seed_noise_percent: standard deviation of a gain from seed to seed in points of mIoU, until the step's own seeds tell.
        inherit: candidates start from their parent's weights, not from random ones.

    Raises:
        UserError: a value outside its range.
    """

    rungs: tuple[int, ...] = ()
    seeds: int = 1
    sure: float = 0.8
    seed_noise_percent: float = 1.2
    inherit: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rungs", tuple(self.rungs))
        if list(self.rungs) != sorted({rung for rung in self.rungs if rung > 0}):
            raise UserError(f"rungs are iterations above 0 that rise, got {', '.join(map(str, self.rungs))}")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UserError(f"seeds must be at least 1 and at most {MOST_SEEDS}, got {self.seeds}")
        if not 0.5 <= self.sure < 1:
            raise UserError(f"sure is a likelihood from 0.5 to below 1, got {self.sure}")
        if not 0 < self.seed_noise_percent < math.inf:
            raise UserError(f"seed_noise_percent must be above 0 and finite, got {self.seed_noise_percent}")

    @property
    def needs_control(self) -> bool:
        """Whether the parent's own score is not what the candidates compare with."""
        return self.inherit or bool(self.rungs) or self.seeds > 1


MOST_SEEDS = 1000
"""Of a training."""

MOST_STEPS = 100_000
"""No chain gets there; what is reckoned from a search's steps stays within numbers."""

_FIRST_RACE = {"sure": 0.9, "seed_noise_percent": 2.0}
"""What was assumed in runs from before there were races, which store none."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search.

    Args:
        data: `NAME` or `NAME:PATH` of the data set.
        height: input height in pixels, of training and of latency.
        width: input width.
        steps: steps to take after the start.
        start: text or name of the first network.
        backend: runtime the latency is measured with.
        device: "cpu" or "cuda", for the latency.
        boundary: where the timed graph ends; the paper times "scores".
        threads: CPU threads of the runtime and of the training.
        training_device: "cpu" or "cuda", for the proxy.
        plan: warm-up and sampling of a latency.
        proxy: how a candidate is trained.
        race: how the trainings of a step are spent.
        precision: of the training, "fp32", "bf16" or "fp16".
        parallel: trainings at a time, each in a process of its own with its share of the threads; 1 trains in this process.
        validation_frames: score on so many frames, evenly spread over the split; 0 for all.
        bounds: what no network may exceed.
        seed: of weights, order of frames and augmentation.
        storage: database URL of the studies; empty for a journal file in the run's folder.
        predictor: folder of a latency predictor that spares measurements; empty to measure everything.
        noise: relative gap within which two latencies are a tie, settled by running the networks in turns; 0 trusts every gap.

    Raises:
        UserError: a value outside its range; the message names it.
        ArchitectureError: a start that is no network, or one that `race.inherit` or `predictor` does not know.
    """

    data: str
    height: int
    width: int
    steps: int = 2
    start: str = "N0"
    backend: str = "ort"
    device: str = "cpu"
    boundary: str = "scores"
    threads: int = 1
    training_device: str = "cpu"
    plan: TimingPlan = field(default_factory=TimingPlan)
    proxy: TrainRecipe = field(default_factory=proxy_recipe)
    race: RacePlan = field(default_factory=RacePlan)
    precision: str = "fp32"
    parallel: int = 1
    validation_frames: int = 0
    bounds: Bounds = field(default_factory=Bounds)
    seed: int = 0
    storage: str = ""
    predictor: str = ""
    noise: float = 0.0

    def __post_init__(self) -> None:
        DataSpec.parse(self.data)
        # The text is stored canonically, so that a name and its text are the same start.
        object.__setattr__(self, "start", str(Architecture.parse(self.start)))
        for name in ("height", "width", "threads", "parallel"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if max(self.size) > MOST["input_height"]:
            raise UserError(f"an input is at most {MOST['input_height']} pixels high and wide, got {self.height}x{self.width}")
        if not 0 <= self.steps <= MOST_STEPS:
            raise UserError(f"steps must be 0 to {MOST_STEPS}, got {self.steps}")
        for name, known in (("device", DEVICES), ("training_device", DEVICES), ("boundary", BOUNDARIES), ("precision", PRECISIONS)):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"unknown {name.replace('_', ' ')} {value!r}; there are: {', '.join(known)}")
        if self.validation_frames < 0:
            raise UserError(f"validation_frames must not be negative, got {self.validation_frames}")
        if self.race.rungs and self.race.rungs[-1] >= self.proxy.iterations:
            raise UserError(f"rungs lie before the end of {self.proxy.iterations} iterations, got {self.race.rungs[-1]}")
        least = -(-EIGHTHS // self.start_architecture.scales[-1])
        if min(self.size) < least:
            raise UserError(
                f"input {self.height}x{self.width} is too small for the start {self.start}; the least size that works is {least}x{least}"
            )
        if self.race.inherit:
            self.start_architecture.require_plain("weights are inherited")
        if self.predictor:
            self.start_architecture.require_plain("latencies are predicted")
        if not 0 <= self.noise < 1:
            raise UserError(f"noise is a share of a latency and must be at least 0 and below 1, got {self.noise}")
        if self.storage and "://" not in self.storage:
            raise UserError(f"storage takes a database URL, such as postgresql://user@host/name, got {self.storage!r}")
        if not self.bounds.allow(self.start_architecture):
            raise UserError(f"the start {self.start} lies outside the bounds {self.bounds}")

    @property
    def size(self) -> tuple[int, int]:
        """Input size (height, width)."""
        return (self.height, self.width)

    @property
    def training_threads(self) -> int:
        """CPU threads of one training."""
        return max(1, self.threads // self.parallel)

    @property
    def start_architecture(self) -> Architecture:
        """The first network."""
        return Architecture.parse(self.start)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        values = dataclasses.asdict(self)
        return {**values, "race": {**values["race"], "rungs": list(self.race.rungs)}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SearchConfig:
        """The inverse of `to_dict`.

        Raises:
            UserError: a field that is unknown or missing.
        """
        try:
            parts: dict[str, Any] = {
                "plan": TimingPlan(**values["plan"]),
                "proxy": TrainRecipe(**values["proxy"]),
                "bounds": Bounds(**values["bounds"]),
            }
            parts["race"] = RacePlan(**values.get("race", _FIRST_RACE))
            found = cls(**{**values, **parts})
            for part in (found, *parts.values()):
                check_fields(part)
            return found
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"the stored configuration does not fit this version: {error}") from error

    def differences(self, other: SearchConfig) -> list[str]:
        """What differs besides `steps` (which extends a run), each as `field: this, not that`."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        return [f"{name}: {mine[name]!r}, not {theirs[name]!r}" for name in mine if name != "steps" and mine[name] != theirs[name]]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
