"""Augmentation of a batch on the device it is trained on: random scale, crop, flip and colour jitter (kornia).

Labels are never interpolated, and what lies outside an image becomes the ignore label. Also the normalisation that
training and evaluation share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kornia.augmentation import ColorJitter
from kornia.geometry.transform import warp_affine
from torch import Tensor

from lpsnet.data.frames import IGNORE_INDEX, Batch
from lpsnet.data.normalisation import MEAN, STD
from lpsnet.recipe import TrainRecipe


def normalise(images: Tensor) -> Tensor:
    """RGB images (N, 3, H, W), from 0 to 255, to the network's input, float32."""
    mean, std = _statistics(images.device)
    return images.float().sub_(255 * mean).div_(255 * std)


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std


@dataclass(frozen=True)
class _Window:
    """What is cut from frames of a size: the crop at the network's input size, and the same of the labels at the frames' own."""

    frames: tuple[int, int]
    crop: tuple[int, int]
    label_crop: tuple[int, int]
    enlarged: tuple[float, float]

    @classmethod
    def of(cls, recipe: TrainRecipe, frames: tuple[int, int]) -> _Window:
        size = recipe.input_size(frames)
        enlarged = (size[0] / frames[0], size[1] / frames[1])
        crop = (recipe.crop_height or size[0], recipe.crop_width or size[1])
        label_crop = (max(1, round(crop[0] / enlarged[0])), max(1, round(crop[1] / enlarged[1])))
        return cls(frames, crop, label_crop, enlarged)


class Augment:
    """Turns a batch of whole frames into a batch of training crops.

    Where the network's input is larger than the frames, image crops are enlarged with it; label crops stay at the frames'
    own resolution, where the loss is taken.

    Args:
        recipe: input size, scales, crop, flip and jitter; a crop dimension of 0 keeps that of the input.
    """

    def __init__(self, recipe: TrainRecipe) -> None:
        self.recipe = recipe
        strength = recipe.jitter
        # Hue costs as much as all the rest and is left out; the order of the three is fixed.
        self._jitter = ColorJitter(strength, strength, strength, order=(0, 1, 2), p=1.0) if strength else None

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, 3, h, w), float and normalised, and labels (N, h', w'), int64. Draws from torch's global generator."""
        window = _Window.of(self.recipe, (batch.images.shape[-2], batch.images.shape[-1]))
        matrix = self._matrix(len(batch.images), window).to(batch.images.device)
        # Before the warp, which may enlarge: fewer pixels, and padding with 0 shows the mean colour.
        frames = batch.images if self._jitter is None else self._jitter(batch.images.float().div_(255)).mul_(255)
        images = warp_affine(normalise(frames), _enlarge(matrix, window), window.crop, mode="bilinear", padding_mode="zeros")
        return images, warp_labels(batch.labels, matrix, window.label_crop)

    def _matrix(self, count: int, window: _Window) -> Tensor:
        """(count, 2, 3) matrices from pixels of a frame to pixels of its label crop: scale, shift, and mirror."""
        (height, width), crop = window.frames, window.label_crop
        scale = torch.empty(count).uniform_(self.recipe.scale_min, self.recipe.scale_max)
        matrix = torch.zeros(count, 2, 3)
        for row, extent, wanted in ((0, width, crop[1]), (1, height, crop[0])):
            # A window inside the scaled frame where that is larger than the crop, else a frame inside the window.
            offset = torch.rand(count) * (scale * extent - wanted)
            matrix[:, row, row] = scale
            matrix[:, row, 2] = (scale - 1) / 2 - offset  # pixel centres, not corners, are scaled
        if self.recipe.flip:
            mirrored = torch.rand(count) < 0.5
            matrix[mirrored, 0] *= -1
            matrix[mirrored, 0, 2] += crop[1] - 1
        return matrix


def _enlarge(matrix: Tensor, window: _Window) -> Tensor:
    """Matrices to pixels of the label crop, turned into those to pixels of the image crop."""
    if window.enlarged == (1.0, 1.0):
        return matrix
    grown = matrix.clone()
    for row, factor in ((0, window.enlarged[1]), (1, window.enlarged[0])):
        grown[:, row] *= factor
        grown[:, row, 2] += (factor - 1) / 2
    return grown


def warp_labels(labels: Tensor, matrix: Tensor, crop: tuple[int, int]) -> Tensor:
    """Labels (N, H, W) warped by (N, 2, 3) matrices to (N, *crop), int64, nearest; outside becomes `IGNORE_INDEX`.

    The warp pads with 0, which is a class, so labels travel shifted by one and ignored pixels travel as 0.
    """
    shifted = torch.where(labels == IGNORE_INDEX, 0, labels.to(torch.int16) + 1).unsqueeze(1).float()
    warped = warp_affine(shifted, matrix, crop, mode="nearest", padding_mode="zeros").squeeze(1).round().long() - 1
    return torch.where(warped < 0, IGNORE_INDEX, warped)
