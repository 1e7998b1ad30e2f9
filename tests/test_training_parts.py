"""Trainings that stop on their way and go on, and trainings that start from a parent's weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from lpsnet.resume import Keeper
from lpsnet.training import train
from search.space import OPERATIONS, expansion
from tests.test_training import N0, SHORT, few, same, trained


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_training_scored_on_its_way_goes_on_as_if_it_had_not_been(tmp_path: Path, ema: float) -> None:
    recipe = dataclasses.replace(SHORT, iterations=6, ema_decay=ema)
    whole = train(N0, few(), few("val", 2), recipe)
    parts = [train(N0, few(), few("val", 2), recipe, keeper=Keeper(tmp_path / "state.pt", {}), until=end) for end in (2, 5, 0)]
    assert same(parts[-1], whole)
    assert [part.curve[-1][0] for part in parts] == [2, 5, 6]
    assert not torch.equal(parts[0].network.head.weight, parts[1].network.head.weight)
    alone = train(N0, few(), few("val", 2), recipe, until=2)  # without a state it begins anew, to the same place
    assert torch.equal(alone.network.head.weight, parts[0].network.head.weight)


def test_a_training_may_start_from_a_parent() -> None:
    parent = trained().network
    child = expansion(N0, OPERATIONS[4], 1)
    short = dataclasses.replace(SHORT, iterations=1, learning_rate=1e-9)
    found = train(child, few(), few("val", 2), short, parent=parent)
    assert found.network.architecture == child
    assert torch.allclose(found.network.head.weight[:, :32], parent.head.weight, atol=1e-5)
    assert same(found, train(child, few(), few("val", 2), short, parent=parent))
    assert not same(found, train(child, few(), few("val", 2), short))


@pytest.mark.parametrize(("end", "same_until"), [(1.0, 4), (0.5, 2), (0.25, 1)])
def test_classes_count_alike_again_after_a_share_of_the_iterations(end: float, same_until: int) -> None:
    weighted = dataclasses.replace(SHORT, iterations=4, class_weighting="log")
    keys = [f"update {number}" for number in range(1, 5)]
    always = dict(zip(keys, (loss for _, loss in train(N0, few(), few("val", 2), weighted).curve), strict=True))
    found = train(N0, few(), few("val", 2), dataclasses.replace(weighted, class_weighting_end=end)).curve
    differ = [key for key, (_, loss) in zip(keys, found, strict=True) if loss != always[key]]
    assert differ == keys[same_until:]
