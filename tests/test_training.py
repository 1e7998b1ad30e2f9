"""Loss, scores, evaluation and training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lpsnet.architecture import NAMED, Architecture
from lpsnet.data.frames import IGNORE_INDEX, Batch, Frames
from lpsnet.data.synthetic import Synthetic
from lpsnet.evaluation import evaluate, predict
from lpsnet.interactions import resize
from lpsnet.losses import SegmentationLoss
from lpsnet.metrics import confusion_matrix, scores
from lpsnet.network import LPSNet
from lpsnet.recipe import TrainRecipe
from lpsnet.training import Trained, TrainingFailed, fit, train
from tests import restatement

SIZE = (32, 64)
N0 = NAMED["N0"]
SHORT = TrainRecipe(iterations=4, batch_size=2, warmup_iterations=1)


class Few(Synthetic):
    """The first frames of a split, all pixels ignored where asked."""

    def __init__(self, split: str, count: int, *, ignored: bool = False) -> None:
        super().__init__(split, SIZE)
        self.count, self.ignored = count, ignored

    def __len__(self) -> int:
        return self.count

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = super().decode(index)
        label[:2] = IGNORE_INDEX
        return image, np.full_like(label, IGNORE_INDEX) if self.ignored else label


def few(split: str = "train", count: int = 4, *, ignored: bool = False) -> Frames:
    return Frames(Few(split, count, ignored=ignored), SIZE)


def trained(recipe: TrainRecipe = SHORT, *, seed: int = 0, architecture: Architecture = N0) -> Trained:
    return train(architecture, few(), few("val", 2), recipe, seed=seed)


def same(one: Trained, other: Trained) -> bool:
    """Whether two trainings agree to the last bit."""
    states = one.network.state_dict(), other.network.state_dict()
    weights = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    return weights and one.curve == other.curve and one.scores == other.scores


# Loss


def segmentation_loss(score_maps: Tensor, labels: Tensor, stride: int) -> Tensor:
    return SegmentationLoss(TrainRecipe(iterations=1, loss_stride=stride))(score_maps, labels)


def loss_by_hand(score_maps: Tensor, labels: Tensor, stride: int) -> float:
    """Pixel by pixel: minus the logarithm of the label's share, averaged over labelled pixels."""
    kept = labels[:, ::stride, ::stride].numpy()
    maps = restatement.bilinear(score_maps, *kept.shape[1:]).double().numpy()
    losses = []
    for n, row, column in np.ndindex(kept.shape):
        if kept[n, row, column] != 255:
            logits = maps[n, :, row, column]
            losses.append(math.log(sum(math.exp(value) for value in logits)) - logits[kept[n, row, column]])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("size", [(32, 48), (29, 42)])
def test_the_loss_is_the_mean_cross_entropy_of_labelled_pixels(stride: int, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = 3 * torch.randn(2, 5, 2, 3, generator=generator)
    labels = torch.randint(0, 5, (2, *size), generator=generator)
    labels[0, 3:20, 5:30] = IGNORE_INDEX
    labels[1, ::4, ::8] = IGNORE_INDEX
    assert float(segmentation_loss(maps, labels, stride)) == pytest.approx(loss_by_hand(maps, labels, stride), abs=1e-5)


def test_ignored_pixels_have_no_say_in_the_loss() -> None:
    maps = torch.zeros(1, 3, 8, 8, requires_grad=True)
    labels = torch.full((1, 8, 8), IGNORE_INDEX)
    labels[0, 2, 5] = 1
    loss = segmentation_loss(maps, labels, 1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(3))
    assert maps.grad is not None
    assert maps.grad[0, :, 2, 5].tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    assert maps.grad.abs().sum() == maps.grad[0, :, 2, 5].abs().sum()


@pytest.mark.parametrize("stride", [1, 4])
def test_a_batch_without_a_labelled_pixel_costs_nothing_and_stays_finite(stride: int) -> None:
    maps = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(maps, torch.full((2, 16, 16), IGNORE_INDEX), stride)
    loss.backward()
    assert float(loss.detach()) == 0
    assert maps.grad is not None and torch.equal(maps.grad, torch.zeros_like(maps))


# Scores


def counts_by_hand(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), np.int64)
    for wanted, found in zip(labels.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if wanted != 255:
            counts[wanted, found] += 1
    return counts


def test_confusion_and_scores_equal_those_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 6, (3, 17, 23)), rng.integers(0, 6, (3, 17, 23))
    predicted = np.where(rng.random(labels.shape) < 0.6, labels, predicted)
    labels[rng.random(labels.shape) < 0.2] = 255
    counts = counts_by_hand(predicted, labels, 6)
    found = confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(labels), 6)
    assert found.tolist() == counts.tolist()  # rows by label: the matrix is not symmetric
    assert counts.tolist() != counts.T.tolist()

    kept = labels != 255
    iou = []
    for index in range(6):
        wanted, seen = (labels == index) & kept, (predicted == index) & kept
        iou.append(100 * (wanted & seen).sum() / (wanted | seen).sum())
    result = scores(found)
    assert result.class_iou_percent == pytest.approx(iou, abs=1e-6)
    assert result.miou_percent == pytest.approx(np.mean(iou), abs=1e-6)
    assert result.pixel_accuracy_percent == pytest.approx(100 * (labels == predicted)[kept].mean(), abs=1e-6)


def test_a_class_that_never_occurs_has_no_score_and_does_not_count() -> None:
    result = scores(torch.tensor([[6, 2, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))
    zero, one, two, three = result.class_iou_percent
    assert two is None
    assert (zero, one, three) == pytest.approx((100 * 6 / 9, 100 * 4 / 6, 0.0))  # the last occurs and is never hit
    assert result.miou_percent == pytest.approx((100 * 6 / 9 + 100 * 4 / 6 + 0) / 3)
    assert result.pixel_accuracy_percent == pytest.approx(100 * 10 / 13)


def test_a_class_that_is_only_predicted_counts_as_missed() -> None:
    assert scores(torch.tensor([[3, 1], [0, 0]])).class_iou_percent == (75.0, 0.0)


def test_a_matrix_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="no labelled pixel to score"):
        scores(torch.zeros(3, 3, dtype=torch.long))


def test_all_ignored_labels_leave_the_matrix_empty() -> None:
    ignored = torch.full((4, 4), IGNORE_INDEX)
    assert confusion_matrix(torch.zeros(4, 4, dtype=torch.long), ignored, 3).tolist() == [[0] * 3] * 3


# Evaluation


def lively_network(frames: Frames) -> LPSNet:
    """A deployed two-path network whose predictions vary from pixel to pixel of `frames`."""
    depths, widths = (1, 1, 1, 1, 1), (4, 8, 8, 8, 8)
    network = LPSNet(Architecture(depths, widths, (8, 4)), 11, deployed=True)
    network.load_state_dict(restatement.as_network_state(restatement.random_weights(depths, widths, 2, 11), 2))
    assert network.head.bias is not None
    with torch.no_grad():  # no class is ahead of the others on the whole
        images = next(frames.batches(len(frames))).images
        network.head.bias -= network.scores((images / 255 - 0.45) / 0.225).mean((0, 2, 3))
    return network


def test_evaluating_scores_whole_normalised_frames_at_full_resolution() -> None:
    frames = few("val", 5)
    network = lively_network(frames).train()
    counts = np.zeros((11, 11), np.int64)
    for index in range(5):
        image, label = frames.source.decode(index)
        normalised = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        with torch.no_grad():
            logits = network(torch.from_numpy(normalised).float().permute(2, 0, 1)[None])
        counts += counts_by_hand(logits.argmax(1).numpy(), label, 11)
    assert (counts.sum(0) > 50).sum() >= 4  # several classes are predicted
    expected = scores(torch.from_numpy(counts))
    for batch_size in (1, 2, 8):
        found = evaluate(network, frames, batch_size=batch_size).scores
        assert found.miou_percent == pytest.approx(expected.miou_percent, abs=0.02)  # a tie may fall the other way
        assert found.pixel_accuracy_percent == pytest.approx(expected.pixel_accuracy_percent, abs=0.02)
    assert not any(module.training for module in network.modules())


class Knows(nn.Module):
    """Answers with the label that its frames hold, wrongly in one column."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.labels = iter(frames.batches(2))

    def forward(self, images: Tensor) -> Tensor:
        labels = next(self.labels).labels.long()
        labels = torch.where(labels == IGNORE_INDEX, 0, labels)
        labels[:, :, 5] = (labels[:, :, 5] + 1) % 11
        return nn.functional.one_hot(labels, 11).permute(0, 3, 1, 2).float()


def test_a_network_that_is_right_but_for_one_column_scores_so() -> None:
    frames = few("val", 3)
    assert evaluate(Knows(frames), frames, batch_size=2).scores.pixel_accuracy_percent == pytest.approx(100 * 63 / 64)


def test_evaluating_reports_how_many_frames_are_done() -> None:
    seen: list[tuple[str, int, int]] = []
    evaluate(lively_network(few()), few("val", 5), batch_size=2, on_progress=lambda *progress: seen.append(progress))
    assert seen == [("validation", done, 5) for done in (2, 4, 5)]


def test_mirrored_and_scaled_images_are_averaged_as_probabilities() -> None:
    network, images = lively_network(few()).eval(), torch.randn(2, 3, 32, 64)

    def shares(size: tuple[int, int], *, mirrored: bool) -> Tensor:
        scaled = nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        maps = network.scores(scaled.flip(-1) if mirrored else scaled)
        return resize(maps.flip(-1) if mirrored else maps, (32, 64)).softmax(1)

    with torch.inference_mode():
        expected = sum(shares(size, mirrored=mirrored) for size in ((32, 64), (64, 128)) for mirrored in (False, True))
        found = predict(network, images, (32, 64), (32, 64), flip=True, scales=(1.0, 2.0))
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            predict(network, images, (64, 128), (16, 32)),
            resize(network.scores(nn.functional.interpolate(images, size=(64, 128), mode="bilinear", align_corners=False)), (16, 32)),
        )


# Training


def test_the_same_seed_gives_the_same_network_to_the_last_bit() -> None:
    recipe = dataclasses.replace(SHORT, jitter=0.4)
    torch.manual_seed(1)
    first = trained(recipe, seed=3)
    torch.manual_seed(2)  # the caller's random state has no say
    assert same(trained(recipe, seed=3), first)


def test_another_seed_gives_another_network() -> None:
    one, other = trained(seed=3), trained(seed=4)
    assert one.curve != other.curve
    assert not torch.equal(one.network.head.weight, other.network.head.weight)


def test_the_callers_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    trained(dataclasses.replace(SHORT, jitter=0.4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_falls_and_the_score_rises_on_frames_learned_by_heart() -> None:
    still = TrainRecipe(
        iterations=120, batch_size=2, learning_rate=0.1, warmup_iterations=3, scale_min=1, scale_max=1, jitter=0, flip=False, loss_stride=1
    )
    frames = few(count=2)
    result = train(Architecture((1,) * 5, (8, 16, 16, 32, 32), (8,)), frames, frames, still)
    losses = [loss for _, loss in result.curve]
    assert losses[-1] < 0.5 * losses[0]
    assert losses[0] == pytest.approx(math.log(11), abs=0.8)  # it starts with a guess among eleven classes
    assert result.scores.pixel_accuracy_percent > 60
    assert evaluate(result.network, frames).scores == result.scores


@pytest.mark.parametrize("branches", [False, True])
def test_the_recipe_decides_on_branches(branches: bool) -> None:
    network = trained(dataclasses.replace(SHORT, iterations=1, branches=branches)).network
    assert network.branches == branches
    assert any("point" in name for name, _ in network.named_parameters()) == branches


@pytest.mark.parametrize("iterations", [1, 3, 24, 60])
def test_the_curve_holds_means_up_to_the_last_iteration(iterations: int) -> None:
    curve = fit(LPSNet(N0, 11), few(), dataclasses.replace(SHORT, iterations=iterations, batch_size=1), seed=0, on_progress=lambda *_: None)
    points = [point for point, _ in curve]
    assert points == sorted(set(points)) and points[-1] == iterations
    assert min(iterations, 24) <= len(points) <= 50
    assert all(math.isfinite(loss) and loss > 0 for _, loss in curve)


def test_progress_is_told_for_every_iteration_and_then_for_validation() -> None:
    seen: list[tuple[str, int, int]] = []
    train(N0, few(), few("val", 2), SHORT, on_progress=lambda *progress: seen.append(progress))
    assert seen == [("iterations", done, 4) for done in (1, 2, 3, 4)] + [("validation", 2, 2)]


@pytest.mark.parametrize("rate", [1e20, 1e30])
def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_iteration(rate: float) -> None:
    recipe = dataclasses.replace(SHORT, iterations=9, learning_rate=rate)
    with pytest.raises(TrainingFailed, match=r"the loss is (nan|inf) at iteration [2-9] of 9"):
        trained(recipe)


def test_a_network_that_diverges_in_its_last_update_gets_no_score() -> None:
    with pytest.raises(TrainingFailed):
        trained(dataclasses.replace(SHORT, iterations=1, learning_rate=1e30))


def test_a_failed_training_leaves_the_callers_random_state_too() -> None:
    before = torch.get_rng_state()
    with pytest.raises(TrainingFailed):
        trained(dataclasses.replace(SHORT, iterations=9, learning_rate=1e30))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frame_too_small_for_the_architecture_is_refused_with_the_least_size() -> None:
    with pytest.raises(ValueError, match="the least size that works is 8x8"):
        train(Architecture((1,) * 5, (4,) * 5, (8, 1)), few(), few("val", 2), dataclasses.replace(SHORT, crop_height=4, crop_width=4))


class Noted(Frames):
    """Frames that note which are asked for."""

    def __init__(self, count: int) -> None:
        super().__init__(Few("train", count), SIZE)
        self.seen: list[int] = []

    def batch(self, indices: Sequence[int], *, pin: bool = False) -> Batch:
        self.seen += indices
        return super().batch(indices, pin=pin)


def test_every_frame_is_drawn_once_before_any_comes_again() -> None:
    orders = []
    for seed in (0, 1):
        frames = Noted(5)
        fit(LPSNet(N0, 11), frames, dataclasses.replace(SHORT, iterations=10, batch_size=3), seed=seed, on_progress=lambda *_: None)
        assert len(frames.seen) == 30
        rounds = [frames.seen[start : start + 5] for start in range(0, 30, 5)]
        assert all(sorted(one) == list(range(5)) for one in rounds)
        assert len({tuple(one) for one in rounds}) > 1  # shuffled anew
        orders.append(frames.seen)
    assert orders[0] != orders[1]


def test_a_batch_may_be_larger_than_the_split() -> None:
    frames = Noted(2)
    fit(LPSNet(N0, 11), frames, dataclasses.replace(SHORT, iterations=2, batch_size=5), seed=0, on_progress=lambda *_: None)
    assert [sorted(frames.seen[start : start + 2]) for start in range(0, 10, 2)] == [[0, 1]] * 5


def test_weight_decay_shrinks_kernels_only() -> None:
    """With every pixel ignored the loss has no gradient, and what changes is decayed."""
    torch.manual_seed(0)
    network = LPSNet(N0, 11)
    nn.init.constant_(network.head.bias, 0.5)  # type: ignore[arg-type]
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    recipe = dataclasses.replace(SHORT, iterations=1, learning_rate=0.5, warmup_iterations=0, weight_decay=0.1)
    fit(network, few(ignored=True), recipe, seed=0, on_progress=lambda *_: None)
    for name, weight in network.named_parameters():
        factor = 0.95 if weight.ndim == 4 else 1.0
        torch.testing.assert_close(weight.detach(), factor * before[name], rtol=1e-6, atol=0)
    assert {weight.ndim for weight in before.values()} == {1, 4}


def test_the_updates_are_those_of_sgd_at_the_recipes_rates() -> None:
    """Without momentum and decay, a weight whose gradient is known moves by rate times gradient."""
    torch.manual_seed(0)
    network = LPSNet(N0, 11)
    recipe = dataclasses.replace(SHORT, iterations=3, momentum=0.0, weight_decay=0.0, learning_rate=0.3, warmup_iterations=2)
    steps: list[Tensor] = []
    gradients: list[Tensor] = []
    bias = network.head.bias
    assert bias is not None
    last = bias.detach().clone()

    def note(*_: object) -> None:
        nonlocal last
        assert bias is not None and bias.grad is not None
        steps.append(last - bias.detach())
        gradients.append(bias.grad.clone())
        last = bias.detach().clone()

    fit(network, few(), recipe, seed=0, on_progress=note)
    assert len(steps) == 3
    for step, gradient, rate in zip(steps, gradients, (0.15, 0.3, 0.3), strict=True):
        torch.testing.assert_close(step, rate * gradient, rtol=1e-3, atol=1e-6)
