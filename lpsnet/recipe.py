"""How a network is trained: one frozen value with units in its names, and the named recipes.

Nothing here trains (`training.py`); no torch.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lpsnet.errors import UserError

_FIRST_FIELDS = 15
"""How many fields the first version had, up to `branches`."""


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Everything that decides a training besides network, data and seed.

    By default SGD with momentum, learning rate warmed up linearly and then polynomially decayed, and cross-entropy
    (paper section 4.2).

    Args:
        iterations: updates of the weights.
        batch_size: images an update.
        learning_rate: peak learning rate, reached at the end of the warm-up.
        momentum: of SGD.
        weight_decay: on convolution weights (not on biases or batch normalisation).
        poly_power: the rate decays as (1 - progress) ** power.
        warmup_iterations: length of the linear warm-up.
        crop_height: height in pixels of the training crop, at the network's input size; 0 for the whole height.
        crop_width: likewise the width.
        scale_min: least random scale.
        scale_max: largest random scale.
        jitter: strength of the random brightness, contrast and saturation; 0 for none.
        flip: whether to mirror half of the images.
        loss_stride: 1 takes the loss at full resolution, 4 on logits and labels at a quarter of it.
        branches: whether blocks train with re-parameterisation branches.
        input_height: of the network's input, to which frames are enlarged; 0 for that of the frames.
        input_width: likewise.
        optimizer: "sgd" or "adamw".
        schedule: of the rate after the warm-up, "poly" or "cosine".
        loss: "cross-entropy", or "ohem" of the hardest pixels.
        ohem_threshold: pixels whose own class has less than this probability count.
        ohem_min_kept: and at least so many, at full resolution.
        label_smoothing: share of the target spread over all classes.
        dice_weight: of one minus the soft Dice coefficient, added to the loss.
        class_weighting: "none", or "log": rare classes count more, by 1 / log(1.02 + share).
        class_weighting_end: share of the iterations after which every class counts alike again.
        ema_decay: of an exponential moving average of the weights, which is what is scored and kept; 0 for none.
        gradient_clip: largest norm of the gradient; 0 for any.
        distillation: weight of a teacher's scores in the loss, where a teacher is given.
        distillation_temperature: softens both.
        identity_start: blocks with an identity branch start as that alone, their other branches at 0, so that a deep path learns
            as quickly at first as a shallow one (Goyal et al., arXiv 1706.02677, section 5.1).

    Raises:
        UserError: a value outside its range; the message names it.
    """

    iterations: int
    batch_size: int = 8
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    poly_power: float = 0.9
    warmup_iterations: int = 20
    crop_height: int = 0
    crop_width: int = 0
    scale_min: float = 0.5
    scale_max: float = 2.0
    jitter: float = 0.4
    flip: bool = True
    loss_stride: int = 4
    branches: bool = True
    input_height: int = 0
    input_width: int = 0
    optimizer: str = "sgd"
    schedule: str = "poly"
    loss: str = "cross-entropy"
    ohem_threshold: float = 0.7
    ohem_min_kept: int = 10_000
    label_smoothing: float = 0.0
    dice_weight: float = 0.0
    class_weighting: str = "none"
    class_weighting_end: float = 1.0
    ema_decay: float = 0.0
    gradient_clip: float = 0.0
    distillation: float = 0.0
    distillation_temperature: float = 1.0
    identity_start: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # 1 and 1.0 are the same recipe and must be stored alike
            if field.type == "float":
                try:
                    object.__setattr__(self, field.name, float(getattr(self, field.name)))
                except OverflowError:
                    raise UserError(f"recipe: {field.name} is too large a number") from None
        least = {
            "iterations": 1,
            "batch_size": 1,
            "warmup_iterations": 0,
            "crop_height": 0,
            "crop_width": 0,
            "weight_decay": 0,
            "jitter": 0,
            "input_height": 0,
            "input_width": 0,
            "ohem_min_kept": 1,
            "dice_weight": 0,
            "gradient_clip": 0,
            "distillation": 0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if not value >= bound:
                raise UserError(f"recipe: {name} must be at least {bound}, got {value}")
            if value > (most := MOST.get(name, sys.float_info.max)):
                raise UserError(f"recipe: {name} must be {f'at most {most}' if name in MOST else 'finite'}, got {value}")
        for name in ("learning_rate", "poly_power", "distillation_temperature"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"recipe: {name} must be {'finite' if value == math.inf else 'above 0'}, got {value}")
        if not 0 < self.scale_min <= self.scale_max < math.inf:
            raise UserError(f"recipe: scales must satisfy 0 < scale_min <= scale_max, got {self.scale_min} and {self.scale_max}")
        for name in ("momentum", "label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"recipe: {name} must be in [0, 1), got {getattr(self, name)}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"recipe: unknown {name} {getattr(self, name)!r}; there are: {', '.join(known)}")
        for name in ("ohem_threshold", "class_weighting_end"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"recipe: {name} must be above 0 and at most 1, got {getattr(self, name)}")
        if bool(self.input_height) != bool(self.input_width):
            raise UserError(f"recipe: give both input_height and input_width or neither, got {self.input_height} and {self.input_width}")
        if self.loss_stride not in (1, 4):
            raise UserError(f"recipe: loss_stride must be 1 or 4, got {self.loss_stride}")

    def rate_at(self, iteration: int) -> float:
        """Learning rate of update `iteration`, counted from 0."""
        if iteration < self.warmup_iterations:
            return self.learning_rate * (iteration + 1) / self.warmup_iterations
        progress = (iteration - self.warmup_iterations) / max(1, self.iterations - self.warmup_iterations)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return float(self.learning_rate * (1 - progress) ** self.poly_power)

    def input_size(self, frames: tuple[int, int]) -> tuple[int, int]:
        """Size (height, width) of the network's input for frames of a size."""
        return (self.input_height, self.input_width) if self.input_height else frames

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, for stores and checkpoints.

        What was added since the first stores appears only when not the default, so that their trainings are found again.
        """
        first = {field.name for field in dataclasses.fields(self)[:_FIRST_FIELDS]}
        added = {field.name: field.default for field in dataclasses.fields(self)[_FIRST_FIELDS:]}
        return {name: value for name, value in dataclasses.asdict(self).items() if name in first or value != added[name]}


MOST: MappingProxyType[str, int] = MappingProxyType(
    {"batch_size": 10_000, "crop_height": 65_536, "crop_width": 65_536, "input_height": 65_536, "input_width": 65_536}
)
"""Beyond these a number is a slip of the finger, which would show as memory that runs out minutes later."""

PRECISIONS = ("fp32", "bf16", "fp16")
"""What a training may compute in; weights are single precision in all of them."""

CHOICES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "optimizer": ("sgd", "adamw"),
        "schedule": ("poly", "cosine"),
        "loss": ("cross-entropy", "ohem"),
        "class_weighting": ("none", "log"),
    }
)
"""What a recipe may say where it takes a word."""


def _paper(iterations: int, batch_size: int, learning_rate: float, crop: tuple[int, int], **changes: Any) -> TrainRecipe:
    """Section 4.2: SGD 0.9, weight decay 5e-4, poly 0.9; jitter, flip and scales 0.5 to 2; loss at full resolution."""
    same: dict[str, Any] = {"iterations": iterations, "batch_size": batch_size, "learning_rate": learning_rate}
    return TrainRecipe(**same, crop_height=crop[0], crop_width=crop[1], warmup_iterations=0, loss_stride=1, **changes)


GAINED: MappingProxyType[str, Any] = MappingProxyType(
    {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2, "class_weighting": "log"}
)
"""What gained over section 4.2's choices in paired seeds (`results/recipe/gains.csv`); on in the recipes that are not the paper's."""


def _camvid() -> TrainRecipe:
    """For CamVid's 480x360 frames enlarged to the paper's input; the loss at every fourth row and column of the labels."""
    size: dict[str, Any] = {"crop_height": 640, "crop_width": 832, "input_height": 720, "input_width": 960}
    mild: dict[str, Any] = {"scale_min": 0.75, "scale_max": 1.5, "jitter": 0.2}
    return TrainRecipe(iterations=2000, batch_size=8, warmup_iterations=100, **size, **mild, **GAINED)


RECIPES: MappingProxyType[str, Callable[[], TrainRecipe]] = MappingProxyType(
    {
        "paper-cityscapes": lambda: _paper(90_000, 16, 0.01, (768, 768)),
        "strong-cityscapes": lambda: _paper(180_000, 16, 0.01, (768, 1536), loss="ohem"),
        "paper-bdd100k": lambda: _paper(90_000, 16, 0.01, (720, 1280)),
        "paper-camvid": lambda: _paper(40_000, 12, 0.03, (720, 960), input_height=720, input_width=960),
        "camvid": _camvid,
    }
)
"""Recipes by name: those of the paper's section 4.2 and 4.5, and one that a CPU can follow. ImageNet weights are given apart."""


def named_recipe(name: str) -> TrainRecipe:
    """The recipe of a name. Raises `UserError` for an unknown one; the message lists those there are."""
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]()


def changed(recipe: TrainRecipe, changes: list[str]) -> TrainRecipe:
    """A recipe with fields set by `NAME=VALUE`.

    Raises:
        UserError: no such field, or a value of another kind.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(recipe)}
    values: dict[str, Any] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals or name not in kinds:
            raise UserError(f"a recipe's field is set by NAME=VALUE, got {text!r}; there are: {', '.join(kinds)}")
        values[name] = _read(name, str(kinds[name]), value)
    return dataclasses.replace(recipe, **values)


def resized(recipe: TrainRecipe, whole: tuple[int, int], size: tuple[int, int]) -> TrainRecipe:
    """A recipe for another size of the network's input, whose crops keep their share of it.

    Args:
        recipe: any.
        whole: (height, width) of the input it is for.
        size: (height, width) wanted.
    """
    if size == whole:
        return recipe
    crop = [max(1, round(extent * new / old)) if extent else 0 for extent, old, new in zip(_crop(recipe), whole, size, strict=True)]
    return dataclasses.replace(recipe, input_height=size[0], input_width=size[1], crop_height=crop[0], crop_width=crop[1])


def _crop(recipe: TrainRecipe) -> tuple[int, int]:
    return recipe.crop_height, recipe.crop_width


_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _read(name: str, kind: str, value: str) -> Any:
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "bool": lambda text: _TRUTHS[text.lower()]}
    try:
        return readers[kind](value)
    except (ValueError, KeyError):
        raise UserError(f"recipe: {name} takes {'true or false' if kind == 'bool' else f'a value of type {kind}'}, got {value!r}") from None


PROXY_ITERATIONS, PROXY_BATCH = 200, 4
"""Of a candidate's training by default: the fewest that `results/proxy` found to rank."""


PROXY_RATE = 2
"""A proxy's learning rate over that of a full training."""


def proxy_recipe(iterations: int = PROXY_ITERATIONS) -> TrainRecipe:
    """The recipe a candidate of a search is trained with by default: short, with branches that start as the identity.

    The augmentation is milder than a full training's: in a few hundred iterations nothing overfits, and strong
    augmentation only slows the learning that the ranking is read from. The learning rate is twice a full training's, for the same reason.
    """
    warmup = min(20, max(1, iterations // 10))
    changes = {**GAINED, "learning_rate": PROXY_RATE * GAINED["learning_rate"], "identity_start": True}
    return TrainRecipe(
        iterations=iterations, batch_size=PROXY_BATCH, warmup_iterations=warmup, scale_min=0.75, scale_max=1.5, jitter=0.0, **changes
    )
