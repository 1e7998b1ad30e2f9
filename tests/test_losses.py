"""Losses against arithmetic, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lpsnet.data.frames import IGNORE_INDEX
from lpsnet.losses import SegmentationLoss, class_weights, dice_loss, distillation_loss
from lpsnet.recipe import TrainRecipe

CLASSES = 4


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES - 1, (2, 6, 5), generator=generator)  # one class never occurs
    labels[0, :2] = IGNORE_INDEX
    return 2 * torch.randn(2, CLASSES, 6, 5, generator=generator), labels


def loss(maps: Tensor, labels: Tensor, weights: Tensor | None = None, **changes: object) -> Tensor:
    recipe = TrainRecipe(iterations=1, loss_stride=1, **changes)  # type: ignore[arg-type]
    return SegmentationLoss(recipe, weights)(maps, labels)


def each(maps: Tensor, labels: Tensor) -> list[tuple[np.ndarray, int]]:
    """Probabilities and label of every labelled pixel."""
    shares = maps.double().softmax(1).permute(0, 2, 3, 1).numpy()
    return [(shares[where], int(labels[where])) for where in np.ndindex(*labels.shape) if labels[where] != IGNORE_INDEX]


def test_the_hardest_pixels_are_those_below_the_threshold() -> None:
    maps, labels = batch()
    own = [shares[label] for shares, label in each(maps, labels)]
    below = [-math.log(share) for share in own if share <= 0.3]
    assert 3 < len(below) < len(own)
    assert float(loss(maps, labels, loss="ohem", ohem_threshold=0.3, ohem_min_kept=1)) == pytest.approx(np.mean(below), rel=1e-5)


def test_where_too_few_pixels_are_hard_the_hardest_of_the_others_count_too() -> None:
    maps, labels = batch()
    hardest = sorted(-math.log(shares[label]) for shares, label in each(maps, labels))[-12:]
    assert float(loss(maps, labels, loss="ohem", ohem_threshold=1e-9, ohem_min_kept=12)) == pytest.approx(np.mean(hardest), rel=1e-5)
    all_ = float(loss(maps, labels, loss="ohem", ohem_threshold=1e-9, ohem_min_kept=10_000))
    assert all_ == pytest.approx(float(loss(maps, labels)), rel=1e-5)


def test_smoothing_spreads_a_share_of_the_target() -> None:
    maps, labels = batch()
    expected = [-0.8 * math.log(shares[label]) - 0.2 / CLASSES * sum(map(math.log, shares)) for shares, label in each(maps, labels)]
    assert float(loss(maps, labels, label_smoothing=0.2)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_weights_make_a_weighted_mean() -> None:
    maps, labels = batch()
    weights = torch.tensor([1.0, 3.0, 0.5, 9.0])
    pixels = [(float(weights[label]), -math.log(shares[label])) for shares, label in each(maps, labels)]
    expected = sum(weight * value for weight, value in pixels) / sum(weight for weight, _ in pixels)
    assert float(loss(maps, labels, weights)) == pytest.approx(expected, rel=1e-5)


def test_dice_counts_the_classes_that_are_labelled() -> None:
    maps, labels = batch()
    pixels, found = each(maps, labels), []
    for index in range(CLASSES - 1):
        overlap = sum(shares[index] for shares, label in pixels if label == index)
        total = sum(shares[index] for shares, _ in pixels) + sum(label == index for _, label in pixels)
        found.append(2 * overlap / total)
    expected = 1 - np.mean(found)
    assert float(dice_loss(maps, labels, labels != IGNORE_INDEX)) == pytest.approx(expected, rel=1e-5)
    plain = float(loss(maps, labels))
    assert float(loss(maps, labels, dice_weight=0.5)) == pytest.approx(plain + 0.5 * expected, rel=1e-5)


@pytest.mark.parametrize("changes", [{"loss": "ohem"}, {"dice_weight": 1.0}, {"label_smoothing": 0.1}])
def test_a_batch_without_a_labelled_pixel_costs_nothing_and_has_a_gradient(changes: dict[str, object]) -> None:
    maps = torch.randn(1, CLASSES, 4, 4, requires_grad=True)
    value = loss(maps, torch.full((1, 4, 4), IGNORE_INDEX), **changes)
    value.backward()
    assert float(value.detach()) == 0 and maps.grad is not None and not maps.grad.any()


def test_a_teachers_own_scores_cost_nothing_and_others_their_divergence() -> None:
    maps, taught = batch(1)[0], batch(2)[0]
    assert float(distillation_loss(maps, maps, 2.0)) == pytest.approx(0, abs=1e-6)
    own, aim = (tensor.double().div(2).softmax(1) for tensor in (maps, taught))
    expected = 4 * (aim * (aim.log() - own.log())).sum(1).mean()
    assert float(distillation_loss(maps, taught, 2.0)) == pytest.approx(float(expected), rel=1e-5)
    assert distillation_loss(maps, batch(3)[0][:, :, ::2, ::2], 1.0) > 0  # of another size


def test_rare_classes_weigh_more_and_the_mean_is_1() -> None:
    weights = class_weights(torch.tensor([900, 90, 10, 0]))
    assert weights.tolist() == sorted(weights.tolist()) and float(weights.mean()) == pytest.approx(1)
    assert float(weights[0] / weights[2]) == pytest.approx(math.log(1.02 + 0.01) / math.log(1.02 + 0.9), rel=1e-5)
