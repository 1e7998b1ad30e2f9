"""Scores of a segmentation from its confusion matrix: intersection over union a class, their mean, pixel accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from lpsnet.data.frames import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores in percent.

    Args:
        miou_percent: mean of the classes' IoU over the classes that occur in label or prediction.
        class_iou_percent: IoU a class; None for a class that occurs in neither.
        pixel_accuracy_percent: share of labelled pixels predicted right.
    """

    miou_percent: float
    class_iou_percent: tuple[float | None, ...]
    pixel_accuracy_percent: float


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (num_classes, num_classes) of pixels, rows by label, columns by prediction; ignored pixels are left out.

    Args:
        predicted: class indices of any shape.
        labels: class indices or `IGNORE_INDEX`, of the same shape.
        num_classes: number of classes.
    """
    return multiclass_confusion_matrix(predicted.flatten(), labels.flatten(), num_classes, ignore_index=IGNORE_INDEX, validate_args=False)


def scores(confusion: Tensor) -> Scores:
    """Scores of a confusion matrix as `confusion_matrix` gives it, or of a sum of several.

    Raises:
        ValueError: a matrix without any pixel.
    """
    counts = confusion.double()
    if counts.sum() == 0:
        raise ValueError("no labelled pixel to score")
    hits = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hits
    occurs = union > 0
    iou = torch.where(occurs, 100 * hits / union.clamp(min=1), torch.nan)
    return Scores(
        miou_percent=float(iou[occurs].mean()),
        class_iou_percent=tuple(float(value) if seen else None for value, seen in zip(iou, occurs, strict=True)),
        pixel_accuracy_percent=float(100 * hits.sum() / counts.sum()),
    )
