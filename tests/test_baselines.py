"""The comparison networks: published counts, shapes, training, parts and the table. Their forms are in `test_baselines_forms.py`."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.baselines import BASELINES, Baseline, Row, baseline
from lpsnet.baselines.darknet import darknet19
from lpsnet.baselines.layers import DeconvNorm, crop, deconv
from lpsnet.baselines.seam import Chain, Link
from lpsnet.baselines.table import RTSEG
from lpsnet.blocks import dealt
from lpsnet.complexity import count_macs, count_parameters
from lpsnet.data.frames import Frames
from lpsnet.data.synthetic import Synthetic
from lpsnet.errors import UserError
from lpsnet.evaluation import evaluate
from lpsnet.parallel import Alone
from lpsnet.recipe import TrainRecipe
from lpsnet.reparam import ConvNorm, fold
from lpsnet.training import fit
from tests.backends import normalised

ODD = (75, 101)
"""A size that no stride divides."""


class Last(nn.Module):
    """A decoder of its own: score maps of the last feature."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        scores: Tensor = self.score(features[-1])
        return scores


def plain(num_classes: int, *, published: bool = False) -> Baseline:
    """A network that is no paper's, as a file beside the others would make it."""
    chain = Chain([Link("conv1", ConvNorm(3, 8, stride=2), 8, 2), Link("conv2", ConvNorm(8, 16, stride=2), 16, 2)], ("conv2",))
    return Baseline("plain", chain, Last(chain.channels[-1], num_classes), num_classes)


ADDED = Row("plain", RTSEG, plain, 4, 3 * 8 * 9 + 16 + 8 * 16 * 9 + 32 + 16 * 19 + 19, 0.307)
ROWS = {**BASELINES, "plain": ADDED}
"""The table and a row that is added to it: what holds for all rows needs no more than the row."""

EVERY = pytest.mark.parametrize("name", ROWS)

# Fact sheet 3.3, 4 and 5: MACs in G with 19 classes, by size, as many digits as the sheet has.
QUARTER, FULL, SMALL, SQUARE, CROP = (512, 1024), (1024, 2048), (360, 640), (224, 224), (769, 769)
MACS = {
    "skipnet-vgg16": {QUARTER: "222.43", FULL: "889.73"},
    "unet-vgg16": {QUARTER: "261.93", FULL: "1047.70"},  # 262.83 and 1051.33 there, where conv1_1 is counted twice
    "dilation-vgg16": {QUARTER: "423.80", FULL: "1695.21"},
    "skipnet-resnet18": {QUARTER: "19.757", FULL: "79.03"},
    "unet-resnet18": {QUARTER: "21.752", FULL: "87.01"},
    "dilation-resnet18": {QUARTER: "97.10", FULL: "388.38"},
    "skipnet-mobilenet": {QUARTER: "6.774", FULL: "27.09"},  # 27,094,614,016; the sheet's 27.10 is rounded twice
    "unet-mobilenet": {QUARTER: "27.184", FULL: "108.74"},
    "dilation-mobilenet": {QUARTER: "70.94", FULL: "283.77"},
    "skipnet-shufflenet": {QUARTER: "2.155", FULL: "8.619"},
    "unet-shufflenet": {QUARTER: "8.795", FULL: "35.18"},
    "dilation-shufflenet": {QUARTER: "7.817", FULL: "31.27"},
    "liteseg-mobilenetv2": {QUARTER: "4.305", SMALL: "1.938", FULL: "17.221"},
    "liteseg-shufflenet": {QUARTER: "2.245", SMALL: "1.013", FULL: "8.980"},
    "liteseg-darknet19": {QUARTER: "57.13", SMALL: "25.35", FULL: "222.56"},
    "shufflenetv2-basic": {SMALL: "1.0804", SQUARE: "0.2311", CROP: "2.818", FULL: "9.656"},
    "shufflenetv2-dpc": {SMALL: "1.5146", SQUARE: "0.3236", CROP: "3.952", FULL: "13.523"},
    "mobilenetv2-basic": {SMALL: "2.3270", SQUARE: "0.4984", CROP: "6.062", FULL: "20.827"},
    "mobilenetv2-dpc": {SMALL: "2.7601", SQUARE: "0.5906", CROP: "7.192", FULL: "24.684"},
}

# Layers that the published code holds and never uses.
UNUSED = {
    "unet-mobilenet": 1_063_936,
    "liteseg-mobilenetv2": 1_281_000,
    "liteseg-shufflenet": 1_537_000,
    "attention-unet-resnet34": 14_161_092,
    "afformer-tiny": 66_048,
    "afformer-small": 66_048,
    "afformer-base": 66_048,
}


@cache
def on_paper(name: str, num_classes: int = 19, *, published: bool = False) -> Baseline:
    """A network with shapes and no numbers."""
    with torch.device("meta"):
        return ROWS[name](num_classes, published=published).eval()


@cache
def giga_macs(name: str, size: tuple[int, int], *, published: bool = True) -> float:
    return count_macs(on_paper(name, published=published), size) / 1e9


def images_on_paper(size: tuple[int, int]) -> Tensor:
    return torch.empty(2, 3, *size, device="meta")


# Published counts


@EVERY
def test_parameters_are_those_of_the_published_network(name: str) -> None:
    assert count_parameters(on_paper(name)) == ROWS[name].parameters
    assert count_parameters(on_paper(name, published=True)) == ROWS[name].parameters + UNUSED.get(name, 0)


def test_the_table_has_the_parameters_of_the_fact_sheet() -> None:
    assert [(row.name, row.parameters) for row in BASELINES.values() if row.name in MACS] == [
        ("skipnet-vgg16", 134_457_042),
        ("skipnet-resnet18", 11_295_826),
        ("skipnet-mobilenet", 3_356_202),
        ("skipnet-shufflenet", 1_001_756),
        ("unet-vgg16", 28_071_955),
        ("unet-resnet18", 11_534_899),
        ("unet-mobilenet", 8_846_163),
        ("unet-shufflenet", 6_380_845),
        ("dilation-vgg16", 41_567_334),
        ("dilation-resnet18", 11_276_902),
        ("dilation-mobilenet", 8_563_532),
        ("dilation-shufflenet", 976_296),
        ("liteseg-darknet19", 20_545_459),
        ("liteseg-mobilenetv2", 3_101_707),
        ("liteseg-shufflenet", 1_971_451),
        ("shufflenetv2-basic", 1_148_249),
        ("shufflenetv2-dpc", 1_506_121),
        ("mobilenetv2-basic", 2_113_043),
        ("mobilenetv2-dpc", 2_506_195),
    ]


@pytest.mark.parametrize(("name", "size", "giga"), [(name, size, giga) for name, row in MACS.items() for size, giga in row.items()])
def test_macs_are_those_of_the_fact_sheet(name: str, size: tuple[int, int], giga: str) -> None:
    digits = len(giga.split(".")[1])
    assert f"{giga_macs(name, size):.{digits}f}" == giga


@EVERY
def test_a_row_says_the_macs_of_a_full_frame(name: str) -> None:
    assert giga_macs(name, FULL) == pytest.approx(ROWS[name].gmacs, abs=0.0051)


def test_darknet_of_clean_padding_takes_fewer_macs() -> None:
    """Four times as many pixels take four times the MACs, which they do not in the published form."""
    quarter, full = (giga_macs("liteseg-darknet19", size, published=False) for size in (QUARTER, FULL))
    assert full == pytest.approx(4 * quarter, rel=1e-5)
    assert full == pytest.approx(216.745, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "size", "gflops"),
    [
        ("skipnet-mobilenet", QUARTER, 13.8),
        ("skipnet-mobilenet", SMALL, 6.2),
        ("skipnet-shufflenet", SMALL, 2.0),
    ],
)
def test_rtseg_counts_two_a_multiply_add_with_20_classes(name: str, size: tuple[int, int], gflops: float) -> None:
    assert 2 * count_macs(on_paper(name, 20), size) / 1e9 == pytest.approx(gflops, rel=0.011)


# Shapes


@EVERY
@pytest.mark.parametrize("size", [(64, 64), ODD, (130, 71)])
def test_score_maps_are_at_the_networks_own_scale_and_logits_at_the_images(name: str, size: tuple[int, int]) -> None:
    network, stride = on_paper(name, 7), ROWS[name].stride
    scores = network.scores(images_on_paper(size))
    assert scores.shape == (2, 7, -(-size[0] // stride), -(-size[1] // stride))
    if stride > 1 and size == ODD:  # else the logits are the scores, or another size says the same
        assert network(images_on_paper(size)).shape == (2, 7, *size)


@pytest.mark.parametrize("name", [*UNUSED, "liteseg-darknet19", "dilation-resnet18", "shufflenetv2-dpc"])
def test_the_published_form_takes_any_size_too(name: str) -> None:
    assert on_paper(name, 7, published=True)(images_on_paper(ODD)).shape == (2, 7, *ODD)


@EVERY
def test_features_have_the_channels_and_strides_the_encoder_says(name: str) -> None:
    encoder = on_paper(name).encoder
    assert isinstance(encoder, Chain)
    shapes = [feature.shape[1:] for feature in encoder(images_on_paper(ODD))]
    assert shapes == [(c, -(-ODD[0] // s), -(-ODD[1] // s)) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    assert list(encoder.strides) == sorted(encoder.strides)


# Training


@pytest.mark.parametrize(("name", "published"), [*((name, False) for name in ROWS), *((name, True) for name in UNUSED)])
def test_every_parameter_has_a_gradient_but_the_unused_ones_of_the_published_form(name: str, published: bool) -> None:
    with torch.device("meta"):
        network = ROWS[name](19, published=published)
    network.scores(images_on_paper((64, 96))).sum().backward()
    without = sum(parameter.numel() for parameter in network.parameters() if parameter.grad is None)
    assert without == (UNUSED[name] if published else 0)


@pytest.mark.parametrize("name", ["skipnet-mobilenet", "shufflenetv2-basic"])
def test_a_comparison_network_is_trained_and_scored_as_any_other(name: str) -> None:
    frames = Frames(Synthetic("val", (64, 96)), (64, 96))
    torch.manual_seed(0)
    network = baseline(name, frames.num_classes)
    recipe = TrainRecipe(iterations=12, batch_size=4, warmup_iterations=1, ema_decay=0.0)
    curve = fit(network, frames, recipe, seed=0, lane=Alone())  # type: ignore[arg-type]
    assert curve[-1][1] < 0.9 * curve[0][1]
    assert evaluate(network, frames).scores.pixel_accuracy_percent > 100 / frames.num_classes


# What the published code gets wrong


def rates(network: nn.Module) -> list[tuple[int, ...]]:
    """Rates of all convolutions of more than a pixel that have one."""
    return [
        conv.dilation for conv in network.modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1) and max(conv.dilation) > 1
    ]


def test_the_dilated_resnet_has_rates_where_they_do_something() -> None:
    assert rates(on_paper("dilation-resnet18")) == [(2, 2)] * 4 + [(4, 4)] * 4
    assert rates(on_paper("dilation-resnet18", published=True)) == []


@pytest.mark.parametrize("head", ["basic", "dpc"])
def test_the_last_stage_of_shufflenetv2_has_the_papers_rate(head: str) -> None:
    name = f"shufflenetv2-{head}"
    assert rates(on_paper(name).encoder) == [(2, 2)] * 5
    assert rates(on_paper(name, published=True).encoder) == []


def test_the_last_stages_of_mobilenetv2_have_rate_2_after_the_stride_that_is_left_out() -> None:
    assert rates(on_paper("mobilenetv2-basic").encoder) == [(2, 2)] * 3
    assert rates(on_paper("mobilenetv2-dpc").decoder) == [(1, 6), (18, 15), (6, 3), (6, 21)]


def test_the_padding_of_darknet_matters_at_borders_only() -> None:
    torch.manual_seed(0)
    right, published = (darknet19(("group6",), published=form).eval() for form in (False, True))
    published.load_state_dict(right.state_dict())
    features = torch.randn(1, 256, 48, 48)
    with torch.inference_mode():
        found, theirs = (chain.layers["group6"](chain.layers["group5"](features)) for chain in (right, published))
    assert found.shape == theirs.shape == (1, 1024, 24, 24)
    inner = (..., slice(10, 14), slice(10, 14))
    torch.testing.assert_close(found[inner], theirs[inner])
    assert (found - theirs).abs().max() > 10 * (found[inner] - theirs[inner]).abs().max()


# Parts


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8)])
def test_a_transposed_convolution_begins_as_bilinear_interpolation(kernel: int, stride: int) -> None:
    x = torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        found = deconv(3, 3, kernel, stride)(x)
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    assert found.shape == expected.shape
    inner = (..., slice(stride, -stride), slice(stride, -stride))  # borders are padded with zeros
    torch.testing.assert_close(found[inner], expected[inner])


def test_an_odd_bilinear_kernel_keeps_pixels_and_fills_between_them() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    with torch.no_grad():
        found = deconv(1, 1, 3, 2)(x)
    torch.testing.assert_close(found[..., :5, :7], F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True))
    assert found.shape == (1, 1, 6, 8)


def test_fewer_output_channels_begin_as_means_of_the_inputs() -> None:
    x = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(deconv(4, 2, 4, 2)(x), deconv(2, 2, 4, 2)((x[:, :2] + x[:, 2:]) / 2))


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2), (4, 2), (16, 8)])
def test_a_transposed_convolution_gives_the_size_times_its_stride(kernel: int, stride: int) -> None:
    assert deconv(2, 3, kernel, stride)(torch.randn(1, 2, 5, 6)).shape == (1, 3, 5 * stride, 6 * stride)


@pytest.mark.parametrize("bias", [False, True])
def test_normalisations_fold_into_either_convolution(bias: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(ConvNorm(3, 6, 3, 2, groups=3, bias=bias, act="leaky"), DeconvNorm(6, 4, bias=bias, act="hardswish"))
    normalised(layers).eval()  # type: ignore[arg-type]
    x = torch.randn(1, 3, 9, 8)
    with torch.no_grad():
        nn.init.normal_(layers[1].conv.weight)
        expected = layers(x)
        fold(layers)
        torch.testing.assert_close(layers(x), expected, rtol=0, atol=1e-5)
    assert not [layer for layer in layers.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_a_normalisation_that_nothing_folds_is_told() -> None:
    with pytest.raises(AssertionError, match=r"holds the normalisations 1$"):
        fold(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))


def test_features_are_cropped_at_the_lower_right() -> None:
    x = torch.arange(12).reshape(1, 1, 3, 4)
    assert crop(x, (2, 4)).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert crop(x, (3, 9)) is x


def test_channels_are_dealt_out_from_each_group_in_turn() -> None:
    assert dealt(torch.arange(6.0).reshape(1, 6, 1, 1), 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


# The table


def test_the_table_is_read_only_and_its_rows_are_called_what_the_networks_are() -> None:
    with pytest.raises(TypeError):
        BASELINES["plain"] = ADDED  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ADDED.stride = 8  # type: ignore[misc]
    assert [(name, row.name, on_paper(name).name) for name, row in ROWS.items()] == [(name,) * 3 for name in ROWS]


def test_a_network_is_asked_for_by_name() -> None:
    assert baseline("shufflenetv2-basic", 3).num_classes == 3
    with pytest.raises(UserError, match=r"unknown comparison network 'skipnet'; there are: skipnet-vgg16, .*mobilenetv2-dpc"):
        baseline("skipnet", 3)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        baseline("shufflenetv2-basic", 0)
