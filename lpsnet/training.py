"""Training a network by a recipe: the loop, its state, and what happens when the loss is lost.

The same loop trains a candidate of a search for a minute and a network of a family for days. What it is given besides
network, data and recipe decides which: a lane (`parallel.py`), a keeper of its state (`resume.py`), a teacher.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lpsnet.architecture import Architecture
from lpsnet.data.augment import Augment, normalise
from lpsnet.data.frames import Batch, Frames
from lpsnet.data.prefetch import ahead
from lpsnet.errors import TrainingFailed
from lpsnet.evaluation import OnProgress, evaluate
from lpsnet.inherit import inherit
from lpsnet.interactions import resize
from lpsnet.losses import SegmentationLoss, class_weights, distillation_loss
from lpsnet.metrics import Scores
from lpsnet.network import LPSNet
from lpsnet.parallel import Alone, Lane, lane_for
from lpsnet.recipe import TrainRecipe
from lpsnet.resume import Keeper
from lpsnet.tensors import CheckpointError
from lpsnet.zoo import Network, build

__all__ = ["Paused", "Point", "Trained", "TrainingFailed", "first_images", "fit", "train"]

CURVE_POINTS = 25
"""A learning curve holds about this many mean losses."""

BACK_OFF = 0.5
"""By what the learning rate is multiplied after the loss was lost and the last good state was taken up again."""

Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network, its scores on the validation split, and the mean loss at points of the training."""

    network: Network
    scores: Scores
    curve: Curve


def begin(architecture: Architecture | str, num_classes: int, recipe: TrainRecipe) -> Network:
    """A network with random weights as a recipe starts it. Raises as `zoo.build` does."""
    return build(architecture, num_classes, branches=recipe.branches, identity_start=recipe.identity_start)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of the learning curve: updates done, and since the last point the mean loss, rate, speed and wait for data."""

    iteration: int
    loss: float
    learning_rate: float
    images_per_s: float
    waiting_percent: float
    """Share of the time that this process waited for its frames."""


def train(
    architecture: Architecture,
    training: Frames,
    validation: Frames,
    recipe: TrainRecipe,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    teacher: nn.Module | None = None,
    parent: LPSNet | None = None,
    keeper: Keeper | None = None,
    until: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Trained:
    """Train a network from random weights, or from a parent's, and score it.

    Seed, recipe, data, precision and number of threads decide the result to the last bit on a CPU; the caller's random
    state is left as it was.

    Raises:
        TrainingFailed: the loss became NaN or infinite.
        ValueError: the input is too small for the architecture.
    """
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        network: Network
        if parent is None:
            network = begin(architecture, training.num_classes, recipe).to(device)
        else:
            network = inherit(parent.to(device), architecture, first_images(training, recipe).to(device))
        lane = lane_for(device, precision)
        curve = fit(network, training, recipe, seed=seed, lane=lane, keeper=keeper, teacher=teacher, until=until, on_progress=on_progress)
    found = evaluate(network, validation, input_size=recipe.input_size(validation.size), on_progress=on_progress)
    return Trained(network=network, scores=found.scores, curve=curve)


def fit(
    network: Network,
    training: Frames,
    recipe: TrainRecipe,
    *,
    seed: int,
    lane: Lane | None = None,
    keeper: Keeper | None = None,
    teacher: nn.Module | None = None,
    restarts: int = 0,
    until: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
    on_point: Callable[[Point, Network], None] = lambda point, network: None,
    on_note: Callable[[str], None] = lambda text: None,
    pause: Callable[[], bool] = lambda: False,
) -> Curve:
    """Run the updates of a recipe on a network in place; returns its learning curve, (iteration, mean loss) pairs.

    Args:
        network: in training form, on the lane's device; with an average of weights it ends as that average.
        training: the split.
        recipe: how.
        seed: of the order of frames; weights and augmentation follow torch's global generator.
        lane: devices and precision; by default the network's device alone, in single precision.
        keeper: of the state, so that a killed training goes on where it stopped.
        teacher: gives the scores that `recipe.distillation` weighs.
        restarts: how often a training whose loss is lost goes back to its last good state, at half the rate.
        until: stop after this many iterations, with the state kept to go on from; 0 for all of the recipe's.
        on_progress, on_point, on_note: told of updates done; of each point of the curve with the network to evaluate; of a restart.
        pause: asked after each update whether to stop; the state is kept then.

    Raises:
        Paused: `pause` said so.
        TrainingFailed: the loss became NaN or infinite once too often.
    """
    lane = lane or Alone(next(network.parameters()).device)
    loop, end = _Loop(network, training, recipe, seed, lane, teacher), until or recipe.iterations
    loop.go_on(keeper, on_note)
    guard = _Guard(loop, restarts)
    while loop.iteration < end:
        if not math.isfinite(value := loop.update()):
            on_note(guard.go_back(value))
            continue
        if loop.pass_point(on_point):
            guard.keep()
        on_progress("iterations", loop.iteration, recipe.iterations)
        loop.keep(keeper, ending=loop.iteration == end, pausing=loop.iteration < end and pause())
    loop.finish()
    return tuple(loop.curve)


class Paused(Exception):
    """A training was stopped on request; what it holds is the number of updates done."""


class _Loop:
    """A training between two updates: everything that decides what comes next."""

    def __init__(self, network: Network, training: Frames, recipe: TrainRecipe, seed: int, lane: Lane, teacher: nn.Module | None) -> None:
        self.network, self.training, self.recipe, self.lane = network, training, recipe, lane
        self.teacher = teacher.eval() if teacher is not None else None
        self.iteration = 0
        self.curve: list[tuple[int, float]] = []
        self.window: list[float] = []
        self.rate_factor = 1.0
        self._seed = seed
        self._batches = self._ahead()
        self._optimizer = _optimizer(network, recipe)
        self._scoring, self._stepper = lane.prepare(_Scoring(network), self._optimizer)
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(network, multi_avg_fn=average, use_buffers=True) if recipe.ema_decay else None
        self._augment = Augment(recipe)
        weights = class_weights(training.class_counts()) if recipe.class_weighting == "log" else None
        self._weighted, self._unweighted = SegmentationLoss(recipe, weights), SegmentationLoss(recipe)
        self._every = max(1, recipe.iterations // CURVE_POINTS)
        self.start_clock()
        network.train()

    def update(self) -> float:
        """One update of the weights, unless its loss is not finite; returns the loss."""
        rate = self.recipe.rate_at(self.iteration) * self.rate_factor
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        asked = time.perf_counter()
        held, device = next(self._batches), self.lane.device
        self._waited += time.perf_counter() - asked
        images, labels = self._augment(Batch(held.images.to(device, non_blocking=True), held.labels.to(device, non_blocking=True)))
        with self.lane.autocast():
            scores = self._scoring(images)
            weighs = self.iteration < self.recipe.class_weighting_end * self.recipe.iterations
            loss = (self._weighted if weighs else self._unweighted)(scores, labels)
            if self.teacher is not None and self.recipe.distillation:
                with torch.no_grad():
                    taught = self.teacher.scores(images)  # type: ignore[operator]
                loss = loss + self.recipe.distillation * distillation_loss(scores, taught, self.recipe.distillation_temperature)
        value = float(loss.detach())
        if not math.isfinite(value):
            return value
        self._stepper.zero_grad(set_to_none=True)
        self.lane.backward(loss)
        if self.recipe.gradient_clip:
            self.lane.clip(list(self.network.parameters()), self.recipe.gradient_clip)
        self._stepper.step()
        if self._average is not None:
            self._average.update_parameters(self.network)
        self.iteration += 1
        self.window.append(value)
        self._seen += len(images)
        return value

    def _ahead(self) -> Generator[Batch, None, None]:
        """The batches from this iteration on, decoded while the network works on those before."""
        draws = islice(_draws(len(self.training), self.recipe, self._seed), self.iteration, None)
        return ahead((self.lane.share(indices) for indices in draws), partial(self.training.batch, pin=self.lane.device.type == "cuda"))

    def point(self) -> Point | None:
        """The point of the curve that is due after the last update, if one is."""
        if self.iteration % self._every and self.iteration != self.recipe.iterations:
            return None
        mean, now = sum(self.window) / len(self.window), time.perf_counter()
        elapsed = now - self._since
        speed, waiting = self._seen / elapsed, 100 * self._waited / elapsed
        self.curve.append((self.iteration, mean))
        self.window = []
        rate = float(self._optimizer.param_groups[0]["lr"])
        return Point(iteration=self.iteration, loss=mean, learning_rate=rate, images_per_s=speed, waiting_percent=waiting)

    def pass_point(self, on_point: Callable[[Point, Network], None]) -> bool:
        """Tell of the point of the curve that is due, if one is; what is done there is no part of speed and waiting."""
        point = self.point()
        if point is not None:
            on_point(point, self.current())
            self.network.train()
            self.start_clock()
        return point is not None

    def keep(self, keeper: Keeper | None, *, ending: bool, pausing: bool) -> None:
        """Save the state where it is due. Raises `Paused` where the training is to stop here."""
        if keeper is not None and self.lane.is_main and (pausing or ending or keeper.due()):
            keeper.save(self.state())
        if pausing:
            self.close()
            raise Paused(self.iteration)

    def go_on(self, keeper: Keeper | None, on_note: Callable[[str], None]) -> None:
        """Become what was kept, where something was."""
        if keeper and (state := keeper.load()):
            try:
                self.restore(state)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:  # torch's own are RuntimeErrors
                raise CheckpointError(f"{keeper.path} is damaged: {' '.join(str(error).split())}; move it away to start anew") from error
            on_note(f"going on after {self.iteration} of {self.recipe.iterations} iterations")

    def start_clock(self) -> None:
        """Measure speed and waiting from here on."""
        self._since, self._seen, self._waited = time.perf_counter(), 0, 0.0

    def state(self) -> dict[str, Any]:
        """A copy of all of it, as values that `torch.load` reads without executing anything."""
        values: dict[str, Any] = {
            "iteration": self.iteration,
            "curve": list(self.curve),
            "window": list(self.window),
            "rate_factor": self.rate_factor,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.lane.device.type == "cuda" else None,
        }
        return copy.deepcopy(values)

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` was."""
        self.iteration, self.rate_factor = state["iteration"], state["rate_factor"]
        self.curve, self.window = [(int(i), float(loss)) for i, loss in state["curve"]], list(state["window"])
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None and self.lane.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu())
        self._batches.close()
        self._batches = self._ahead()
        self.start_clock()

    def current(self) -> Network:
        """The network as it would be kept now: the average of its weights where there is one."""
        average: Network | None = None if self._average is None else self._average.module  # type: ignore[assignment]
        return average or self.network

    def close(self) -> None:
        """End the thread that decodes."""
        self._batches.close()

    def finish(self) -> None:
        """Leave the average of the weights in the network, where there is one."""
        self.close()
        if self._average is not None:
            self.network.load_state_dict(self._average.module.state_dict())


class _Guard:
    """Remembers the last good state of a training, and takes it up again when the loss is lost."""

    def __init__(self, loop: _Loop, restarts: int) -> None:
        self._loop, self._left = loop, restarts
        self._good: dict[str, Any] | None = None
        self.keep()

    def keep(self) -> None:
        """Call the state now good."""
        if self._left:
            self._good = self._loop.state()

    def go_back(self, value: float) -> str:
        """Take the good state up again at a lower rate, and say so; raises `TrainingFailed` where that was done too often."""
        loop, lost_at = self._loop, self._loop.iteration + 1
        if self._good is None or not self._left:
            loop.close()
            raise TrainingFailed(f"the loss is {value} at iteration {lost_at} of {loop.recipe.iterations}; a lower learning rate may help")
        self._left -= 1
        loop.restore(self._good)
        loop.rate_factor *= BACK_OFF
        return f"the loss was {value} at iteration {lost_at}; again from {loop.iteration}, at {loop.rate_factor:g} of the learning rate"


class _Scoring(nn.Module):
    """What is called forward in training: the score maps, which is where the loss is taken."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.scores(images)


def first_images(training: Frames, recipe: TrainRecipe) -> Tensor:
    """A normalised batch (N, 3, H, W) of the split at the network's input size, for the statistics of normalisations that start anew."""
    images = normalise(training.batch(range(min(recipe.batch_size, len(training)))).images)
    return resize(images, recipe.input_size(training.size))


def _optimizer(network: nn.Module, recipe: TrainRecipe) -> torch.optim.Optimizer:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)


def _draws(count: int, recipe: TrainRecipe, seed: int) -> Iterator[list[int]]:
    """Frame numbers of each batch: every frame once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    pool: list[int] = []
    for _ in range(recipe.iterations):
        while len(pool) < recipe.batch_size:
            pool += torch.randperm(count, generator=generator).tolist()
        yield pool[: recipe.batch_size]
        del pool[: recipe.batch_size]
