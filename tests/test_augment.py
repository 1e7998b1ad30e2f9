"""Augmentation: image and label stay together, padding is ignored, and chance comes from torch's generator alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lpsnet.data.augment import Augment, normalise
from lpsnet.data.frames import IGNORE_INDEX, Batch
from lpsnet.recipe import TrainRecipe

MEAN = torch.tensor((0.485, 0.456, 0.406)).reshape(1, 3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).reshape(1, 3, 1, 1)
STILL = {"scale_min": 1.0, "scale_max": 1.0, "flip": False, "jitter": 0.0}


def augmented(batch: Batch, seed: int = 0, **changes: float | bool) -> tuple[Tensor, Tensor]:
    """A batch augmented by a recipe that changes nothing but what is named."""
    augment = Augment(TrainRecipe(iterations=1, **{**STILL, **changes}))  # type: ignore[arg-type]
    torch.manual_seed(seed)
    return augment(batch)


def brightness(images: Tensor) -> Tensor:
    """The pixels behind normalised images, in 0..255."""
    return 255 * (images * STD + MEAN)


def random_batch(count: int = 3, size: tuple[int, int] = (32, 48)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 11, (count, *size), dtype=torch.uint8, generator=generator)
    labels[:, :4] = IGNORE_INDEX
    return Batch(images, labels)


def mosaic(count: int = 16, size: tuple[int, int] = (64, 96), tile: int = 16) -> Batch:
    """Tiles of random classes 1..11 whose colour is 20 times the class."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(1, 12, (count, size[0] // tile, size[1] // tile), generator=generator)
    labels = classes.repeat_interleave(tile, 1).repeat_interleave(tile, 2).to(torch.uint8)
    return Batch((20 * labels)[:, None].repeat(1, 3, 1, 1), labels)


def plain(label: int, count: int = 4, size: tuple[int, int] = (32, 48), colour: int = 255) -> Batch:
    return Batch(torch.full((count, 3, *size), colour, dtype=torch.uint8), torch.full((count, *size), label, dtype=torch.uint8))


# What comes out


def test_normalising_is_that_of_imagenet() -> None:
    images = random_batch().images
    found = normalise(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (images / 255 - MEAN) / STD, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("crop", "shape"), [((0, 0), (32, 48)), ((20, 0), (20, 48)), ((0, 24), (32, 24)), ((40, 64), (40, 64))])
def test_shapes_and_types_are_those_of_the_crop(crop: tuple[int, int], shape: tuple[int, int]) -> None:
    images, labels = augmented(random_batch(), crop_height=crop[0], crop_width=crop[1], scale_min=0.5, scale_max=2, flip=True, jitter=0.4)
    assert (images.shape, images.dtype) == ((3, 3, *shape), torch.float32)
    assert (labels.shape, labels.dtype) == ((3, *shape), torch.int64)
    assert images.isfinite().all()


def test_nothing_to_do_changes_nothing() -> None:
    batch = random_batch()
    images, labels = augmented(batch)
    assert torch.equal(labels, batch.labels.long())
    torch.testing.assert_close(brightness(images), batch.images.float(), rtol=0, atol=0.05)  # of 255: float rounding


def test_the_batch_itself_is_left_as_it_is() -> None:
    batch = random_batch()
    images, labels = batch.images.clone(), batch.labels.clone()
    augmented(batch, scale_min=0.5, scale_max=2, flip=True, jitter=0.4)
    assert torch.equal(batch.images, images) and torch.equal(batch.labels, labels)


def test_labels_are_never_interpolated() -> None:
    batch = random_batch(16)
    batch = Batch(batch.images, torch.where(batch.labels == IGNORE_INDEX, IGNORE_INDEX, 5 * (batch.labels % 2)))
    _, labels = augmented(batch, scale_min=0.5, scale_max=2.0, flip=True)
    assert set(labels.unique().tolist()) == {0, 5, IGNORE_INDEX}


# Padding


def test_padding_is_ignored_and_shows_the_mean_colour() -> None:
    images, labels = augmented(plain(3), scale_min=0.5, scale_max=0.5)
    assert set(labels.unique().tolist()) == {3, IGNORE_INDEX}  # 0, with which the warp pads, is a class
    assert (labels == 3).sum(dim=(1, 2)).tolist() == pytest.approx([16 * 24] * 4, rel=0.15)
    outside = labels == IGNORE_INDEX
    far = -F.max_pool2d(-outside.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0  # no pixel of the frame beside it
    assert far.float().mean() > 0.5
    assert images.permute(0, 2, 3, 1)[far].abs().max() == 0
    inside = -F.max_pool2d(-(labels == 3).float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0
    torch.testing.assert_close(brightness(images).permute(0, 2, 3, 1)[inside], torch.full((int(inside.sum()), 3), 255.0), rtol=0, atol=0.1)


def test_a_crop_larger_than_the_frame_is_padded_and_holds_the_whole_frame() -> None:
    images, labels = augmented(random_batch(), crop_height=50, crop_width=60)
    original = random_batch().labels
    assert (labels == IGNORE_INDEX).sum() == 3 * 50 * 60 - (original != IGNORE_INDEX).sum()
    for found, wanted in zip(labels, original, strict=True):
        assert torch.equal(found[found != IGNORE_INDEX], wanted[wanted != IGNORE_INDEX].long())
    assert images.shape[-2:] == (50, 60)


@pytest.mark.parametrize("label", [0, 10, IGNORE_INDEX])
def test_class_0_and_ignored_pixels_stay_what_they_are(label: int) -> None:
    _, labels = augmented(plain(label), scale_min=1.5, scale_max=2.0, flip=True)
    assert set(labels.unique().tolist()) == {label}


# Image and label together


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": True},
        {"scale_min": 0.5, "scale_max": 1.0},
        {"scale_min": 1.0, "scale_max": 2.0},
        {"crop_height": 40, "crop_width": 50},
        {"scale_min": 0.5, "scale_max": 2.0, "flip": True, "crop_height": 48, "crop_width": 112},
    ],
    ids=str,
)
def test_image_and_label_stay_together(changes: dict[str, float]) -> None:
    images, labels = augmented(mosaic(), **changes)
    seen = torch.where(labels == IGNORE_INDEX, 0, labels).float().unsqueeze(1)
    flat = F.max_pool2d(seen, 3, 1, 1) == -F.max_pool2d(-seen, 3, 1, 1)
    flat &= seen > 0  # inside one tile; elsewhere neighbours mix, and padding has the mean colour
    flat = F.pad(flat[..., 1:-1, 1:-1], (1, 1, 1, 1))  # what is beside the outermost pixels is not seen
    assert flat.float().mean() > 0.2
    colours = brightness(images)[:, :1][flat]
    torch.testing.assert_close(colours, 20 * seen[flat], rtol=0, atol=0.5)


@pytest.mark.parametrize("axis", [1, 2])
def test_an_edge_lies_at_the_same_pixel_in_image_and_label(axis: int) -> None:
    labels = torch.ones(32, 48, 64, dtype=torch.uint8)
    labels.narrow(axis, 19, labels.shape[axis] - 19).fill_(2)
    batch = Batch(((labels - 1) * 255)[:, None].repeat(1, 3, 1, 1), labels)
    images, warped = augmented(batch, scale_min=1.2, scale_max=3.0, flip=True)
    value = brightness(images)[:, 0]
    sure = (value - 127.5).abs() > 3
    assert ((value > 3) & (value < 252) & sure).sum() > 500  # it is the edges that are compared
    assert torch.equal((value > 127.5)[sure], (warped == 2)[sure])


def test_doubling_scales_pixel_centres() -> None:
    batch = random_batch()
    images, labels = augmented(batch, scale_min=2.0, scale_max=2.0, crop_height=64, crop_width=96)
    assert torch.equal(labels, batch.labels.long().repeat_interleave(2, 1).repeat_interleave(2, 2))
    expected = F.interpolate(batch.images.float(), scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(brightness(images)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=0, atol=0.1)


# Chance


def test_scales_fill_their_range_and_are_those_of_both_sides() -> None:
    _, labels = augmented(plain(3, 200, (64, 64)), scale_min=0.5, scale_max=1.0)
    frame = labels == 3
    heights, widths = frame.any(2).sum(1) / 64, frame.any(1).sum(1) / 64
    assert (heights - widths).abs().max() < 0.04
    assert heights.min() > 0.48 and heights.max() < 1.01
    assert heights.min() < 0.55 and heights.max() > 0.95
    assert 0.7 < heights.mean() < 0.8


def test_scales_above_one_enlarge() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).repeat(200, 32, 1)
    _, labels = augmented(Batch(ramp[:, None].repeat(1, 3, 1, 1), ramp), scale_min=1.0, scale_max=2.0)
    assert (labels != IGNORE_INDEX).all()
    shown = labels.amax((1, 2)) - labels.amin((1, 2)) + 1  # columns of the frame in the window
    assert shown.min() < 36 and shown.max() > 58 and shown.min() >= 32


def test_crops_are_taken_from_everywhere() -> None:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(64), indexing="ij")
    images = torch.zeros(200, 3, 32, 64, dtype=torch.uint8)
    for source, extent, crop in ((rows, 32, 12), (columns, 64, 16)):
        _, labels = augmented(Batch(images, source.to(torch.uint8).repeat(200, 1, 1)), crop_height=12, crop_width=16)
        assert (labels != IGNORE_INDEX).all()
        first = labels.amin((1, 2))
        assert first.min() <= 1 and first.max() >= extent - crop - 1


def test_half_of_the_images_are_mirrored_and_none_without_flip() -> None:
    batch = random_batch(200, (8, 12))
    original, mirrored = batch.labels.long(), batch.labels.long().flip(-1)
    _, labels = augmented(batch, flip=True)
    is_mirrored = [torch.equal(found, other) for found, other in zip(labels, mirrored, strict=True)]
    is_original = [torch.equal(found, other) for found, other in zip(labels, original, strict=True)]
    assert all(one != other for one, other in zip(is_mirrored, is_original, strict=True))
    assert 70 < sum(is_mirrored) < 130
    assert torch.equal(augmented(batch)[1], original)


def test_jitter_changes_images_each_in_its_own_way_and_no_labels() -> None:
    one = random_batch(1)
    batch = Batch(one.images.repeat(6, 1, 1, 1), one.labels.repeat(6, 1, 1))
    images, labels = augmented(batch, jitter=0.4)
    assert torch.equal(labels, batch.labels.long())
    values = brightness(images)
    assert values.min() > -0.1 and values.max() < 255.1
    changes = (values - batch.images.float()).abs().mean((1, 2, 3))
    assert changes.max() > 10
    assert len({round(float(change), 3) for change in changes}) == 6


def test_stronger_jitter_changes_more() -> None:
    batch = random_batch(32)
    weak, strong = (float((brightness(augmented(batch, jitter=jitter)[0]) - batch.images).abs().mean()) for jitter in (0.05, 0.8))
    assert 0 < weak < strong / 4


def test_the_seed_decides() -> None:
    batch = random_batch(8)
    everything = {"scale_min": 0.5, "scale_max": 2.0, "flip": True, "jitter": 0.4, "crop_height": 24, "crop_width": 40}
    images, labels = augmented(batch, 5, **everything)
    again, labels_again = augmented(batch, 5, **everything)
    other, labels_other = augmented(batch, 6, **everything)
    assert torch.equal(images, again) and torch.equal(labels, labels_again)
    assert not torch.equal(images, other) and not torch.equal(labels, labels_other)


def test_two_batches_in_a_row_are_augmented_differently() -> None:
    batch = random_batch(8)
    augment = Augment(TrainRecipe(iterations=1, jitter=0.4))
    torch.manual_seed(0)
    assert not torch.equal(augment(batch)[0], augment(batch)[0])


def test_crops_are_enlarged_with_the_input_and_labels_stay_at_the_frames_resolution() -> None:
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    images = torch.stack([8 * rows, 8 * columns, torch.zeros_like(rows)]).to(torch.uint8)[None]
    labels = ((rows // 4 + columns // 4) % 3).to(torch.uint8)[None]
    recipe = TrainRecipe(iterations=1, **{**STILL, "input_height": 32, "input_width": 48, "crop_height": 16, "crop_width": 24})  # type: ignore[arg-type]
    torch.manual_seed(3)
    found, kept = Augment(recipe)(Batch(images, labels))
    assert found.shape == (1, 3, 16, 24) and kept.shape == (1, 8, 12)
    shown = (found * STD + MEAN) * 255
    compared = 0
    for row in range(8):
        for column in range(12):
            # The four image pixels over a label pixel have the mean of what the frame shows there.
            at = shown[0, :2, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((1, 2)) / 8
            if ((at - at.floor() - 0.5).abs() > 0.1).all():  # else it is between two labels
                compared += 1
                assert kept[0, row, column] == labels[0, round(float(at[0])), round(float(at[1]))]
    assert compared > 0
