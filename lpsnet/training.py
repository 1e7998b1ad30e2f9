"""Training a network by a recipe and scoring it on a split.

One process, one device, single precision. Resuming within a training, mixed precision and several devices are not
covered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.architecture import Architecture
from lpsnet.data.augment import Augment, normalise
from lpsnet.data.frames import IGNORE_INDEX, Batch, Frames
from lpsnet.interactions import resize
from lpsnet.metrics import Scores, confusion_matrix, scores
from lpsnet.network import LPSNet
from lpsnet.recipe import TrainRecipe

CURVE_POINTS = 25
"""A learning curve holds about this many mean losses."""

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done ("iterations" or "validation"), how many are done, and how many there are."""


class TrainingFailed(RuntimeError):
    """A training that cannot give a score: its loss stopped being finite."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network, its scores on the validation split, and the mean loss at points of the training."""

    network: LPSNet
    scores: Scores
    curve: tuple[tuple[int, float], ...]


def train(
    architecture: Architecture,
    training: Frames,
    validation: Frames,
    recipe: TrainRecipe,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_progress: OnProgress = lambda what, done, total: None,
) -> Trained:
    """Train a network from random weights and score it.

    Seed, recipe, data and number of threads decide the result to the last bit on a CPU; the caller's random state is
    left as it was.

    Raises:
        TrainingFailed: the loss became NaN or infinite.
        ValueError: the input is too small for the architecture.
    """
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        network = LPSNet(architecture, training.num_classes, branches=recipe.branches).to(device)
        curve = fit(network, training, recipe, seed=seed, on_progress=on_progress)
    return Trained(network=network, scores=evaluate(network, validation, on_progress=on_progress), curve=curve)


def fit(network: LPSNet, training: Frames, recipe: TrainRecipe, *, seed: int, on_progress: OnProgress) -> tuple[tuple[int, float], ...]:
    """Run the updates of `recipe` on `network` in place; returns its learning curve, (iteration, mean loss) pairs."""
    device = network.head.weight.device
    optimizer = _optimizer(network, recipe)
    augment = Augment(recipe)
    curve: list[tuple[int, float]] = []
    window: list[float] = []
    every = max(1, recipe.iterations // CURVE_POINTS)
    network.train()
    for iteration, indices in enumerate(_draws(len(training), recipe, seed)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(iteration)
        held = training.batch(indices)
        images, labels = augment(Batch(held.images.to(device), held.labels.to(device)))
        loss = segmentation_loss(network.scores(images), labels, recipe.loss_stride)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingFailed(f"the loss is {value} at iteration {iteration + 1} of {recipe.iterations}; a lower learning rate may help")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        window.append(value)
        if (iteration + 1) % every == 0 or iteration + 1 == recipe.iterations:
            curve.append((iteration + 1, sum(window) / len(window)))
            window.clear()
        on_progress("iterations", iteration + 1, recipe.iterations)
    return tuple(curve)


def segmentation_loss(score_maps: Tensor, labels: Tensor, stride: int) -> Tensor:
    """Mean cross-entropy over the labelled pixels of every `stride`-th row and column.

    Args:
        score_maps: (N, classes, h, w), as `LPSNet.scores` gives them.
        labels: (N, H, W), int64.
        stride: 1 compares at full resolution, 4 at a quarter of it.
    """
    thinned = labels[:, ::stride, ::stride]
    logits = resize(score_maps, (thinned.shape[-2], thinned.shape[-1]))
    # A crop may hold no labelled pixel at all; a sum over a floor of one keeps the loss finite there.
    total = F.cross_entropy(logits, thinned, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (thinned != IGNORE_INDEX).sum().clamp(min=1)


def evaluate(
    network: nn.Module,
    frames: Frames,
    *,
    batch_size: int = 4,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Scores:
    """Score whole frames at full resolution: no flip, no scales, no crops. The network is left in eval mode.

    Raises:
        TrainingFailed: the network's output is not finite.
    """
    device = next(network.parameters()).device
    confusion = torch.zeros(frames.num_classes, frames.num_classes, dtype=torch.long, device=device)
    network.eval()
    done = 0
    with torch.inference_mode():
        for batch in frames.batches(batch_size):
            logits = network(normalise(batch.images.to(device)))
            if not math.isfinite(float(logits.sum())):  # divergence in the last update shows in no loss
                raise TrainingFailed("the network's output is not finite; a lower learning rate may help")
            predicted = logits.max(1).indices  # ten times as fast as argmax on a CPU
            confusion += confusion_matrix(predicted, batch.labels.to(device).long(), frames.num_classes)
            done += len(batch.images)
            on_progress("validation", done, len(frames))
    return scores(confusion)


def _optimizer(network: nn.Module, recipe: TrainRecipe) -> torch.optim.SGD:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
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
