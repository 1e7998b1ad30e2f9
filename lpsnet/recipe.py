"""How a network is trained: one frozen value with units in its names, and the named recipes.

Nothing here trains (`training.py`); no torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from lpsnet.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Everything that decides a training besides network, data and seed.

    SGD with momentum, learning rate warmed up linearly and then polynomially decayed, cross-entropy (paper section 4.2).

    Args:
        iterations: updates of the weights.
        batch_size: images an update.
        learning_rate: peak learning rate, reached at the end of the warm-up.
        momentum: of SGD.
        weight_decay: on convolution weights (not on biases or batch normalisation).
        poly_power: the rate decays as (1 - progress) ** power.
        warmup_iterations: length of the linear warm-up.
        crop_height: height in pixels of the training crop, at the data's input size; 0 for the whole height.
        crop_width: likewise the width.
        scale_min: least random scale.
        scale_max: largest random scale.
        jitter: strength of the random brightness, contrast and saturation; 0 for none.
        flip: whether to mirror half of the images.
        loss_stride: 1 takes the loss at full resolution, 4 on logits and labels at a quarter of it.
        branches: whether blocks train with re-parameterisation branches.

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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # 1 and 1.0 are the same recipe and must be stored alike
            if field.type == "float":
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
        least = {
            "iterations": 1,
            "batch_size": 1,
            "warmup_iterations": 0,
            "crop_height": 0,
            "crop_width": 0,
            "weight_decay": 0,
            "jitter": 0,
        }
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise UserError(f"recipe: {name} must be at least {bound}, got {getattr(self, name)}")
        for name in ("learning_rate", "poly_power"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"recipe: {name} must be {'finite' if value == math.inf else 'above 0'}, got {value}")
        if not 0 < self.scale_min <= self.scale_max < math.inf:
            raise UserError(f"recipe: scales must satisfy 0 < scale_min <= scale_max, got {self.scale_min} and {self.scale_max}")
        if not 0 <= self.momentum < 1:
            raise UserError(f"recipe: momentum must be in [0, 1), got {self.momentum}")
        if self.loss_stride not in (1, 4):
            raise UserError(f"recipe: loss_stride must be 1 or 4, got {self.loss_stride}")

    def rate_at(self, iteration: int) -> float:
        """Learning rate of update `iteration`, counted from 0."""
        if iteration < self.warmup_iterations:
            return self.learning_rate * (iteration + 1) / self.warmup_iterations
        progress = (iteration - self.warmup_iterations) / max(1, self.iterations - self.warmup_iterations)
        return float(self.learning_rate * (1 - progress) ** self.poly_power)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, for stores and checkpoints."""
        return dataclasses.asdict(self)


def proxy_recipe(iterations: int) -> TrainRecipe:
    """The recipe a candidate of a search is trained with by default: short, with branches.

    The augmentation is milder than a full training's: in a few hundred iterations nothing overfits, and strong
    augmentation only slows the learning that the ranking is read from.
    """
    warmup = min(20, max(1, iterations // 10))
    return TrainRecipe(iterations=iterations, warmup_iterations=warmup, scale_min=0.75, scale_max=1.5, jitter=0.0)
