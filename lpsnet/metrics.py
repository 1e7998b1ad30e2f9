"""Scores of a segmentation from its confusion matrix, and along the borders between classes.

A class that occurs neither in the labels nor in the predictions has no score: it is None, and means leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lpsnet.data.frames import IGNORE_INDEX

BOUNDARY_SHARE = 0.005
"""Width of the band along borders that boundary IoU looks at, as a share of the image's diagonal."""

PerClass = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores in percent.

    Args:
        miou_percent: mean of the classes' IoU over the classes that occur in label or prediction.
        class_iou_percent: IoU a class; None for a class that occurs in neither.
        pixel_accuracy_percent: share of labelled pixels predicted right.
        classes_scored: how many classes the mean is over.
        mean_accuracy_percent: mean of the classes' recall over the classes that are labelled.
        dice_percent: mean of the classes' Dice coefficient, over the classes that occur.
        frequency_weighted_iou_percent: IoU weighed by the share of labelled pixels.
        class_precision_percent: share of the pixels predicted as a class that are it; None where none is.
        class_recall_percent: share of a class's pixels predicted as it; None where none is labelled.
    """

    miou_percent: float
    class_iou_percent: PerClass
    pixel_accuracy_percent: float
    classes_scored: int = 0
    mean_accuracy_percent: float = math.nan
    dice_percent: float = math.nan
    frequency_weighted_iou_percent: float = math.nan
    class_precision_percent: PerClass = ()
    class_recall_percent: PerClass = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (num_classes, num_classes) of pixels, rows by label, columns by prediction; ignored pixels are left out.

    Args:
        predicted: class indices of any shape.
        labels: class indices or `IGNORE_INDEX`, of the same shape.
        num_classes: number of classes.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix  # takes two seconds, and predicting needs none

    return multiclass_confusion_matrix(predicted.flatten(), labels.flatten(), num_classes, ignore_index=IGNORE_INDEX, validate_args=False)


def scores(confusion: Tensor) -> Scores:
    """Scores of a confusion matrix as `confusion_matrix` gives it, or of a sum of several.

    Raises:
        ValueError: a matrix without any pixel.
    """
    counts = confusion.double()
    total = counts.sum()
    if total == 0:
        raise ValueError("no labelled pixel to score")
    hits, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    union = labelled + predicted - hits
    iou, dice = _share(hits, union), _share(2 * hits, labelled + predicted)
    precision, recall = _share(hits, predicted), _share(hits, labelled)
    return Scores(
        miou_percent=float(iou.nanmean()),
        class_iou_percent=_optional(iou),
        pixel_accuracy_percent=float(100 * hits.sum() / total),
        classes_scored=int((union > 0).sum()),
        mean_accuracy_percent=float(recall.nanmean()),
        dice_percent=float(dice.nanmean()),
        frequency_weighted_iou_percent=float((labelled * iou.nan_to_num()).sum() / total),
        class_precision_percent=_optional(precision),
        class_recall_percent=_optional(recall),
    )


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, 100 * part / whole.clamp(min=1), torch.nan)


def _optional(values: Tensor) -> PerClass:
    return tuple(None if math.isnan(value) else value for value in values.tolist())


def category_iou(confusion: Tensor, categories: Sequence[str]) -> dict[str, float | None]:
    """IoU in percent of each category: pixels of one class of it predicted as another count as right (Cityscapes).

    Args:
        confusion: as `confusion_matrix` gives it.
        categories: of each class.
    """
    names = list(dict.fromkeys(categories))
    member = F.one_hot(torch.tensor([names.index(category) for category in categories])).double().to(confusion.device)
    return dict(zip(names, scores(member.T @ confusion.double() @ member).class_iou_percent, strict=True))


def boundary_counts(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (num_classes, 2) of intersection and union of each class's band along its borders (boundary IoU).

    The band of a mask is what lies within it, nearer to its border than `BOUNDARY_SHARE` of the image's diagonal
    (Cheng et al., CVPR 2021). Sums over images give the score; ignored pixels are in no band.

    Args:
        predicted: class indices (N, H, W).
        labels: class indices or `IGNORE_INDEX`, of the same shape.
        num_classes: number of classes.
    """
    height, width = labels.shape[-2:]
    reach = max(1, round(BOUNDARY_SHARE * math.hypot(height, width)))
    known = labels != IGNORE_INDEX
    counts = torch.zeros(num_classes, 2, dtype=torch.long, device=labels.device)
    for index in torch.unique(torch.cat([labels[known], predicted[known]])).tolist():
        bands = [_band((mask == index), reach) & known for mask in (predicted, labels)]
        counts[index, 0] = (bands[0] & bands[1]).sum()
        counts[index, 1] = (bands[0] | bands[1]).sum()
    return counts


def boundary_iou(counts: Tensor) -> PerClass:
    """Boundary IoU in percent a class from `boundary_counts` or a sum of several; None for a class without a border."""
    return _optional(_share(counts[:, 0].double(), counts[:, 1].double()))


def _band(mask: Tensor, reach: int) -> Tensor:
    """What of masks (N, H, W) lies within `reach` pixels of their border; the image's edge is a border, too."""
    outside = F.pad((~mask).float().unsqueeze(1), (1, 1, 1, 1), value=1.0)
    near = F.max_pool2d(outside, 2 * reach + 1, 1, reach)[:, 0, 1:-1, 1:-1]
    return mask & (near > 0)
