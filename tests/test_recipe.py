"""Training recipes: the values they refuse, the learning rate over the iterations, and the recipe of the proxy."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lpsnet.errors import UserError
from lpsnet.recipe import RECIPES, TrainRecipe, changed, named_recipe, proxy_recipe, resized


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"warmup_iterations": -1}, "warmup_iterations must be at least 0, got -1"),
        ({"crop_height": -1}, "crop_height must be at least 0, got -1"),
        ({"crop_width": -32}, "crop_width must be at least 0, got -32"),
        ({"weight_decay": -1e-4}, "weight_decay must be at least 0, got -0.0001"),
        ({"jitter": -0.1}, "jitter must be at least 0, got -0.1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0, got nan"),
        ({"weight_decay": math.nan}, "weight_decay must be at least 0, got nan"),
        ({"scale_min": 0.0}, "0 < scale_min <= scale_max, got 0.0 and 2.0"),
        ({"scale_min": 1.5, "scale_max": 1.0}, "0 < scale_min <= scale_max, got 1.5 and 1.0"),
        ({"momentum": 1.0}, "momentum must be in [0, 1), got 1.0"),
        ({"momentum": -0.1}, "momentum must be in [0, 1), got -0.1"),
        ({"class_weighting_end": 0.0}, "class_weighting_end must be above 0 and at most 1, got 0.0"),
        ({"class_weighting_end": 1.5}, "class_weighting_end must be above 0 and at most 1, got 1.5"),
        ({"loss_stride": 2}, "loss_stride must be 1 or 4, got 2"),
    ],
)
def test_a_recipe_out_of_range_is_refused_with_field_and_value(change: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        TrainRecipe(**{"iterations": 10, **change})  # type: ignore[arg-type]
    assert str(refusal.value).startswith("recipe: ")
    assert message in str(refusal.value)


def test_the_least_values_of_a_recipe_are_allowed() -> None:
    TrainRecipe(
        iterations=1, batch_size=1, warmup_iterations=0, weight_decay=0, jitter=0, momentum=0, scale_min=1, scale_max=1, loss_stride=1
    )


def test_a_recipe_cannot_be_changed_and_comes_back_from_its_values() -> None:
    recipe = TrainRecipe(iterations=7, jitter=0.1, branches=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.jitter = 0.2  # type: ignore[misc]
    assert TrainRecipe(**recipe.to_dict()) == recipe


def test_the_rate_rises_over_the_warm_up_to_its_peak() -> None:
    recipe = TrainRecipe(iterations=100, learning_rate=0.4, warmup_iterations=4)
    assert [recipe.rate_at(iteration) for iteration in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert max(recipe.rate_at(iteration) for iteration in range(100)) == pytest.approx(0.4)


def test_the_rate_decays_by_the_polynomial_after_the_warm_up() -> None:
    recipe = TrainRecipe(iterations=100, learning_rate=0.4, warmup_iterations=20, poly_power=0.9)
    for iteration in (20, 21, 50, 60, 99):
        assert recipe.rate_at(iteration) == pytest.approx(0.4 * ((100 - iteration) / 80) ** 0.9)
    rates = [recipe.rate_at(iteration) for iteration in range(20, 100)]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 0
    assert dataclasses.replace(recipe, poly_power=2.0).rate_at(60) == pytest.approx(0.1)


def test_without_a_warm_up_the_rate_starts_at_its_peak() -> None:
    assert TrainRecipe(iterations=10, learning_rate=0.3, warmup_iterations=0).rate_at(0) == 0.3


@pytest.mark.parametrize("iterations", [1, 2, 9, 80, 1000])
def test_a_proxy_recipe_warms_up_for_a_small_part_of_its_iterations(iterations: int) -> None:
    recipe = proxy_recipe(iterations)
    assert recipe.iterations == iterations and recipe.identity_start and recipe.branches
    assert 1 <= recipe.warmup_iterations <= max(1, min(20, iterations / 10))
    assert all(0 < recipe.rate_at(iteration) <= recipe.learning_rate for iteration in range(iterations))


def test_the_papers_recipes_are_those_of_section_4_2() -> None:
    city, strong, bdd, camvid = (
        RECIPES[f"{name}"]() for name in ("paper-cityscapes", "strong-cityscapes", "paper-bdd100k", "paper-camvid")
    )
    for recipe in (city, strong, bdd, camvid):
        assert (recipe.optimizer, recipe.momentum, recipe.weight_decay, recipe.schedule, recipe.poly_power) == (
            "sgd",
            0.9,
            5e-4,
            "poly",
            0.9,
        )
        assert (recipe.scale_min, recipe.scale_max, recipe.flip, recipe.loss_stride) == (0.5, 2.0, True, 1)
    assert (city.iterations, city.batch_size, city.learning_rate, city.crop_height, city.crop_width) == (90_000, 16, 0.01, 768, 768)
    assert (strong.iterations, strong.crop_height, strong.crop_width, strong.loss) == (180_000, 768, 1536, "ohem")
    assert (strong.ohem_threshold, strong.ohem_min_kept) == (0.7, 10_000)
    assert (bdd.crop_height, bdd.crop_width) == (720, 1280)
    assert (camvid.iterations, camvid.batch_size, camvid.learning_rate) == (40_000, 12, 0.03)
    assert camvid.input_size((360, 480)) == (camvid.crop_height, camvid.crop_width) == (720, 960)


def test_fields_are_set_by_name_and_mistakes_are_named() -> None:
    recipe = changed(named_recipe("camvid"), ["iterations=7", "learning_rate=0.1", "flip=no", "schedule=cosine"])
    assert (recipe.iterations, recipe.learning_rate, recipe.flip, recipe.schedule) == (7, 0.1, False, "cosine")
    for text, message in (
        ("iteration=7", "there are: iterations, batch_size"),
        ("iterations", "NAME=VALUE, got 'iterations'"),
        ("iterations=7.5", "iterations takes a value of type int, got '7.5'"),
        ("flip=perhaps", "flip takes true or false, got 'perhaps'"),
        ("optimizer=adam", "unknown optimizer 'adam'; there are: sgd, adamw"),
        ("ema_decay=1", r"ema_decay must be in \[0, 1\), got 1.0"),
        ("input_height=0", "both input_height and input_width"),
    ):
        with pytest.raises(UserError, match=message):
            changed(recipe, [text])
    with pytest.raises(UserError, match="unknown recipe 'mine'; there are: paper-cityscapes"):
        named_recipe("mine")


def test_the_cosine_falls_from_the_peak_to_0() -> None:
    recipe = TrainRecipe(iterations=101, warmup_iterations=1, schedule="cosine", learning_rate=2.0)
    assert recipe.rate_at(1) == 2.0 and recipe.rate_at(51) == pytest.approx(1.0) and recipe.rate_at(100) == pytest.approx(0, abs=1e-3)


def test_a_recipe_for_another_size_keeps_the_share_of_its_crops() -> None:
    camvid = named_recipe("camvid")
    assert resized(camvid, (720, 960), (720, 960)) is camvid
    half = resized(camvid, (720, 960), (360, 480))
    assert (half.input_height, half.input_width, half.crop_height, half.crop_width) == (360, 480, 320, 416)
    whole = resized(TrainRecipe(iterations=1), (100, 200), (50, 40))
    assert (whole.input_height, whole.input_width, whole.crop_height, whole.crop_width) == (50, 40, 0, 0)
    assert resized(camvid, (720, 960), (1, 1)).crop_height == 1
