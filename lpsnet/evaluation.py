"""Scoring a network on a split: whole images one after another, at the labels' own size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.data.augment import normalise
from lpsnet.data.frames import Frames
from lpsnet.errors import TrainingFailed
from lpsnet.interactions import resize
from lpsnet.metrics import PerClass, Scores, boundary_counts, boundary_iou, category_iou, confusion_matrix, scores

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done ("iterations" or "validation"), how many are done, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a split says of a network.

    Args:
        scores: from the confusion matrix.
        confusion: (classes, classes), rows by label, columns by prediction.
        boundary_iou_percent: IoU of each class along its borders; empty where it was not asked for.
        category_iou_percent: IoU by category, where the data set has categories.
        images: how many were scored.
        class_names: in the order of the scores.
    """

    scores: Scores
    confusion: Tensor
    boundary_iou_percent: PerClass
    category_iou_percent: dict[str, float | None]
    images: int
    class_names: tuple[str, ...]


def evaluate(
    network: nn.Module,
    frames: Frames,
    *,
    input_size: tuple[int, int] | None = None,
    batch_size: int = 4,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    boundary: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Evaluation:
    """Score a network on whole frames. The network is left in eval mode.

    Args:
        network: gives logits at its input's size.
        frames: the split; scored at the labels' size.
        input_size: (height, width) the images are resized to for the network; by default that of the frames.
        batch_size: images at a time; the scores do not depend on it.
        flip: also predict the mirrored image, and take the mean of both probabilities.
        scales: of the input, all of whose probabilities are averaged.
        boundary: also the IoU along borders, which takes as long again.
        on_progress: told of images done.

    Raises:
        TrainingFailed: the network's output is not finite.
    """
    device = next(network.parameters()).device
    confusion = torch.zeros(frames.num_classes, frames.num_classes, dtype=torch.long, device=device)
    borders = torch.zeros(frames.num_classes, 2, dtype=torch.long, device=device)
    network.eval()
    done = 0
    with torch.inference_mode():
        for batch in frames.batches(batch_size):
            labels = batch.labels.to(device).long()
            logits = predict(network, normalise(batch.images.to(device)), input_size or frames.size, frames.size, flip, scales)
            predicted = _labels_of(logits)
            confusion += confusion_matrix(predicted, labels, frames.num_classes)
            if boundary:
                borders += boundary_counts(predicted, labels, frames.num_classes)
            done += len(labels)
            on_progress("validation", done, len(frames))
    categories = getattr(frames.source, "categories", ())
    return Evaluation(
        scores=scores(confusion),
        confusion=confusion.cpu(),
        boundary_iou_percent=boundary_iou(borders) if boundary else (),
        category_iou_percent=category_iou(confusion, categories) if categories else {},
        images=done,
        class_names=frames.class_names,
    )


def _labels_of(logits: Tensor) -> Tensor:
    """Class indices of logits. Raises `TrainingFailed` where they are not finite: divergence in the last update shows in no loss."""
    if not math.isfinite(float(logits.sum())):
        raise TrainingFailed("the network's output is not finite; a lower learning rate may help")
    return logits.max(1).indices  # ten times as fast as argmax on a CPU


def predict(
    network: nn.Module,
    images: Tensor,
    input_size: tuple[int, int],
    output_size: tuple[int, int],
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> Tensor:
    """Logits (N, classes, *output_size) of normalised images (N, 3, H, W); with flip or scales, the sum of probabilities.

    A network with `scores` is asked for these, and they are resized once, as in training.
    """
    infer: Callable[[Tensor], Tensor] = getattr(network, "scores", network)
    if not flip and tuple(scales) == (1.0,):
        return resize(infer(fit_to(images, input_size)), output_size)
    total: Tensor | None = None
    for scale in scales:
        scaled = fit_to(images, scaled_size(input_size, scale))
        for mirrored in (False, True) if flip else (False,):
            logits = infer(scaled.flip(-1) if mirrored else scaled)
            found = resize(logits.flip(-1) if mirrored else logits, output_size).softmax(1)
            total = found if total is None else total + found
    assert total is not None
    return total


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) at a scale, a pixel at least."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fit_to(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, 3, H, W) at another size, pixel centres kept as in the training's augmentation."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
