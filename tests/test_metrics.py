"""Scores against an independent implementation in numpy, to 1e-6, and along borders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet.data.frames import IGNORE_INDEX
from lpsnet.metrics import boundary_counts, boundary_iou, category_iou, confusion_matrix, scores


def by_numpy(predicted: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, object]:
    """Everything `Scores` holds, from sets of pixels."""
    known = labels != IGNORE_INDEX
    rows = []
    for index in range(classes):
        said, true = (predicted == index) & known, (labels == index) & known
        both = int((said & true).sum())
        rows.append((both, int(said.sum()), int(true.sum()), int((said | true).sum())))

    def share(part: float, whole: float) -> float | None:
        return 100 * part / whole if whole else None

    def mean(values: list[float | None]) -> float:
        there = [value for value in values if value is not None]
        return sum(there) / len(there)

    iou = [share(both, union) for both, _, _, union in rows]
    recall = [share(both, true) for both, _, true, _ in rows]
    return {
        "miou_percent": mean(iou),
        "class_iou_percent": iou,
        "pixel_accuracy_percent": 100 * sum(row[0] for row in rows) / known.sum(),
        "classes_scored": sum(value is not None for value in iou),
        "mean_accuracy_percent": mean(recall),
        "dice_percent": mean([share(2 * both, said + true) for both, said, true, _ in rows]),
        "frequency_weighted_iou_percent": sum(
            (true / known.sum()) * (value or 0) for (_, _, true, _), value in zip(rows, iou, strict=True)
        ),
        "class_precision_percent": [share(both, said) for both, said, _, _ in rows],
        "class_recall_percent": recall,
    }


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0, 0.9))
def test_scores_equal_those_of_an_independent_implementation(seed: int, classes: int, ignored: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (2, 7, 9)) // rng.integers(1, 3)  # some classes never occur
    predicted = np.where(rng.random(labels.shape) < 0.5, labels, rng.integers(0, classes, labels.shape))
    labels = np.where(rng.random(labels.shape) < ignored, IGNORE_INDEX, labels)
    labels[0, 0, 0] = 0
    found = scores(confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(labels), classes)).to_dict()
    expected = by_numpy(predicted, labels, classes)
    assert set(found) == set(expected)
    for name, value in expected.items():
        if isinstance(value, list):
            assert len(found[name]) == len(value)
            for one, other in zip(found[name], value, strict=True):
                assert (one is None) == (other is None) and (one is None or one == pytest.approx(other, abs=1e-6))
        else:
            assert found[name] == pytest.approx(value, abs=1e-6), name


def test_a_class_that_never_occurs_has_no_score_and_the_mean_says_over_how_many() -> None:
    found = scores(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert found.class_iou_percent[2] is None and found.class_recall_percent[2] is None and found.classes_scored == 2
    assert found.miou_percent == pytest.approx((75 + 80) / 2)


def test_confusions_within_a_category_count_as_right() -> None:
    confusion = torch.tensor([[5, 5, 0], [0, 0, 0], [1, 0, 9]])
    found = category_iou(confusion, ("flat", "flat", "sky"))
    assert list(found) == ["flat", "sky"] and found["flat"] == pytest.approx(100 * 10 / 11) and found["sky"] == pytest.approx(90)
    assert category_iou(torch.tensor([[4, 0], [0, 0]]), ("a", "b")) == {"a": 100.0, "b": None}


def band_by_hand(mask: np.ndarray, reach: int) -> np.ndarray:
    """What of a mask is within `reach` (as kings move) of a pixel outside it or outside the image."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        for r in range(row - reach, row + reach + 1):
            for c in range(column - reach, column + reach + 1):
                found[row, column] |= not (0 <= r < height and 0 <= c < width) or not mask[r, c]
    return found


@pytest.mark.parametrize("size", [(40, 60), (200, 390)])
def test_the_boundary_iou_is_that_of_bands_counted_pixel_by_pixel(size: tuple[int, int]) -> None:
    reach = max(1, round(0.005 * math.hypot(*size)))
    assert reach == (1 if size[0] == 40 else 2)
    rows, columns = np.mgrid[: size[0], : size[1]]
    labels = ((rows // 13 + columns // 17) % 3).astype(np.int64)
    predicted = np.roll(labels, 1, 1)
    labels[:4, :9] = IGNORE_INDEX
    known = labels != IGNORE_INDEX
    found = boundary_counts(torch.from_numpy(predicted[None]), torch.from_numpy(labels[None]), 4)
    for index in range(3):
        said, true = (band_by_hand(values == index, reach) & known for values in (predicted, labels))
        assert found[index].tolist() == [(said & true).sum(), (said | true).sum()]
    assert found[3].tolist() == [0, 0] and boundary_iou(found)[3] is None
    whole = torch.from_numpy(predicted[None])
    assert boundary_iou(boundary_counts(whole, whole, 3)) == (100.0,) * 3
    assert all(value is not None and value < 90 for value in boundary_iou(found)[:3])  # a shift by a pixel shows there
