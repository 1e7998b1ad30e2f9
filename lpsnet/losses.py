"""What a training minimises: cross-entropy, of all pixels or the hardest, with what a recipe adds to it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lpsnet.data.frames import IGNORE_INDEX
from lpsnet.interactions import resize
from lpsnet.recipe import TrainRecipe


class SegmentationLoss:
    """The loss of a recipe.

    Args:
        recipe: its `loss`, `loss_stride`, `label_smoothing`, `dice_weight`.
        class_weights: (classes,), where the recipe weighs classes.
    """

    def __init__(self, recipe: TrainRecipe, class_weights: Tensor | None = None) -> None:
        self._recipe = recipe
        self._weights = class_weights

    def __call__(self, score_maps: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over the labelled pixels of every `loss_stride`-th row and column.

        Args:
            score_maps: (N, classes, h, w), as `LPSNet.scores` gives them.
            labels: (N, H, W), int64.
        """
        stride, recipe = self._recipe.loss_stride, self._recipe
        thinned = labels[:, ::stride, ::stride]
        logits = resize(score_maps, (thinned.shape[-2], thinned.shape[-1])).float()
        weights = None if self._weights is None else self._weights.to(logits.device)
        pixels = F.cross_entropy(
            logits, thinned, weights, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=recipe.label_smoothing
        )
        known = thinned != IGNORE_INDEX
        if recipe.loss == "ohem":
            loss = hardest(pixels, logits, thinned, known, recipe.ohem_threshold, recipe.ohem_min_kept // stride**2)
        else:
            # A crop may hold no labelled pixel at all; a sum over a floor of one keeps the loss finite there.
            scale = known.sum() if weights is None else (weights[thinned.where(known, 0)] * known).sum()
            loss = pixels.sum() / scale.clamp(min=1)
        if recipe.dice_weight:
            loss = loss + recipe.dice_weight * dice_loss(logits, thinned, known)
        return loss


def hardest(pixels: Tensor, logits: Tensor, labels: Tensor, known: Tensor, threshold: float, least: int) -> Tensor:
    """Mean loss of the pixels whose own class has less than `threshold` probability, and of at least the `least` hardest.

    Online hard example mining as in PaddleSeg's port of the paper's stronger recipe (threshold 0.7, 10,000 pixels).
    """
    if not known.any():
        return (logits * 0).sum()
    with torch.no_grad():
        own = logits.softmax(1).gather(1, labels.where(known, 0).unsqueeze(1)).squeeze(1)[known]
        enough = own.kthvalue(min(max(1, least), own.numel())).values
        kept = own <= torch.clamp(enough, min=threshold)
    return pixels[known][kept].mean()


def dice_loss(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes that are labelled."""
    probabilities = logits.softmax(1) * known.unsqueeze(1)
    truth = F.one_hot(labels.where(known, 0), logits.shape[1]).movedim(-1, 1) * known.unsqueeze(1)
    overlap, total = (probabilities * truth).sum((0, 2, 3)), (probabilities + truth).sum((0, 2, 3))
    seen = truth.sum((0, 2, 3)) > 0
    return 1 - (2 * overlap / total.clamp(min=1e-6))[seen].mean() if seen.any() else (logits * 0).sum()


def distillation_loss(score_maps: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """How far a network's scores are from its teacher's: Kullback-Leibler divergence a pixel, times the squared temperature.

    Args:
        score_maps: (N, classes, h, w).
        taught: of the teacher, at any size; resized to that of `score_maps`.
        temperature: softens both (Hinton et al., 2015).
    """
    aim = resize(taught, (score_maps.shape[-2], score_maps.shape[-1])).float()
    own, other = (F.log_softmax(scores.float() / temperature, 1) for scores in (score_maps, aim))
    return F.kl_div(own, other, log_target=True, reduction="none").sum(1).mean() * temperature**2


def class_weights(counts: Tensor) -> Tensor:
    """Weights from pixel counts (classes,): 1 / log(1.02 + share), scaled to a mean of 1 (as in ENet)."""
    share = counts.double() / counts.sum().clamp(min=1)
    weights = 1 / torch.log(1.02 + share)
    return (weights / weights.mean()).float()
