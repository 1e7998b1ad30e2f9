"""The networks of "Segmentation can be light" and AFFormer: published counts, shapes, folded form, exported graph, and parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from latency.export import seeded_input
from lpsnet.baselines.afformer import HEADS, WINDOWS, Attention, Filters, _begin, _windows, afformer, grid_means
from lpsnet.baselines.attention_unet import Gate, attention_unet, attention_unet_resnet34
from lpsnet.baselines.bowlnet import bowlnet
from lpsnet.baselines.efficientnet import MBConv, efficientnet_b0
from lpsnet.baselines.layers import resize_pixels
from lpsnet.baselines.light import light
from lpsnet.baselines.seam import Baseline
from lpsnet.baselines.unet import study_unet
from lpsnet.complexity import count_macs, count_parameters
from lpsnet.data.frames import Frames
from lpsnet.data.synthetic import Synthetic
from lpsnet.parallel import Alone
from lpsnet.recipe import TrainRecipe
from lpsnet.training import fit
from tests.backends import normalised

ODD = (75, 101)
"""A size that no stride divides."""

SMALL, SQUARE, FULL = (256, 256), (512, 512), (1024, 2048)


@dataclass(frozen=True)
class Row:
    """A network, the stride of its score maps, its parameters with 19 classes, those that are never used, and what it costs.

    MACs and fvcore's count are of fact sheets 6 and 7, in G and with as many digits. Sheet 7 has no MACs: those are counted
    here. fvcore's count for AFFormer ends at the score maps, for all others at the logits.
    """

    make: Callable[..., Baseline]
    stride: int
    parameters: int
    unused: int
    macs: dict[tuple[int, int], str]
    fvcore: dict[tuple[int, int], str]


ALIGN = 66_048
ROWS = {
    "unet": Row(study_unet, 1, 17_264_147, 0, {SMALL: "40.056", FULL: "1281.8"}, {SMALL: "40.147"}),
    "attention-unet": Row(attention_unet, 1, 34_866_043, 0, {SQUARE: "266.00", FULL: "2128"}, {SQUARE: "266.38"}),
    "attention-unet-resnet34": Row(
        attention_unet_resnet34,
        2,
        25_397_531,
        14_161_092,
        {SMALL: "9.604", SQUARE: "38.414", FULL: "307.3"},
        {SMALL: "9.632", SQUARE: "38.529"},
    ),
    "light": Row(light, 2, 2_980_607, 0, {SQUARE: "2.478", FULL: "19.82"}, {SQUARE: "2.619"}),
    "bowlnet": Row(bowlnet, 1, 3_051_827, 0, {SQUARE: "17.029", FULL: "136.2"}, {SQUARE: "17.156"}),
    "afformer-tiny": Row(
        partial(afformer, "tiny"), 8, 2_159_687 - ALIGN, ALIGN, {SQUARE: "2.942", FULL: "23.537"}, {SQUARE: "3.00", FULL: "23.99"}
    ),
    "afformer-small": Row(
        partial(afformer, "small"), 8, 2_355_487 - ALIGN, ALIGN, {SQUARE: "3.196", FULL: "25.571"}, {SQUARE: "3.26", FULL: "26.04"}
    ),
    "afformer-base": Row(
        partial(afformer, "base"), 8, 2_970_287 - ALIGN, ALIGN, {SQUARE: "4.207", FULL: "33.656"}, {SQUARE: "4.28", FULL: "34.22"}
    ),
}

EVERY = pytest.mark.parametrize("name", ROWS)


@cache
def on_paper(name: str, num_classes: int = 19, *, published: bool = False) -> Baseline:
    """A network with shapes and no numbers."""
    with torch.device("meta"):
        return ROWS[name].make(num_classes, published=published).eval()


@cache
def macs(name: str, size: tuple[int, int]) -> int:
    """Of the published network, for one image."""
    return count_macs(on_paper(name, published=True), size)


def images_on_paper(size: tuple[int, int], count: int = 2) -> Tensor:
    return torch.empty(count, 3, *size, device="meta")


def in_giga(count: int, like: str) -> str:
    """A count in G with the digits of another one."""
    return f"{count / 1e9:.{len(like.partition('.')[2])}f}"


# Published counts


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, row in ROWS.items() for size in row.macs])
def test_macs_are_those_of_the_fact_sheet(name: str, size: tuple[int, int]) -> None:
    assert in_giga(macs(name, size), ROWS[name].macs[size]) == ROWS[name].macs[size]


FVCORE_A_VALUE = {"native_batch_norm": 2, "native_layer_norm": 5, "native_group_norm": 5, "_adaptive_avg_pool2d": 1, "mean": 1}
FVCORE_A_RESIZED_VALUE = 4


class Fvcore(TorchDispatchMode):
    """What fvcore counts beside MACs: so much a value of the input, or of the output of a resize."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if name in FVCORE_A_VALUE:
            self.count += FVCORE_A_VALUE[name] * args[0].numel()
        elif name == "upsample_bilinear2d":
            self.count += FVCORE_A_RESIZED_VALUE * found.numel()
        return found


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, row in ROWS.items() for size in row.fvcore])
def test_macs_normalisations_and_resizes_are_what_fvcore_counted_of_the_published_code(name: str, size: tuple[int, int]) -> None:
    network, expected = on_paper(name, published=True), ROWS[name].fvcore[size]
    with torch.no_grad(), Fvcore() as beside:
        (network.scores if name.startswith("afformer") else network)(images_on_paper(size, 1))
    assert in_giga(macs(name, size) + beside.count, expected) == expected


@pytest.mark.parametrize(("variant", "parameters"), [("tiny", 2_032_948), ("small", 2_228_748), ("base", 2_843_548)])
def test_the_encoder_of_afformer_has_the_published_parameters(variant: str, parameters: int) -> None:
    assert count_parameters(on_paper(f"afformer-{variant}").encoder) == parameters


def test_every_part_of_the_light_network_has_the_published_parameters() -> None:
    network = on_paper("light")
    stages = [count_parameters(stage) for stage in network.encoder.layers.values()]  # type: ignore[operator,union-attr]
    assert [stages[0] + stages[1], *stages[2:5], stages[5] + stages[6]] == [2_376, 16_714, 46_640, 242_930, 2_569_496]
    parts = [*network.decoder.mix, network.decoder.score]  # type: ignore[union-attr,misc]
    assert [count_parameters(part) for part in parts] == [55_312, 28_104, 13_688, 4_720, 627]


# Other forms


def some_images(size: tuple[int, int] = ODD, count: int = 1) -> Tensor:
    return torch.from_numpy(seeded_input((count, 3, *size)))


@pytest.mark.parametrize("name", ["attention-unet-resnet34", "afformer-tiny"])
@torch.inference_mode()
def test_layers_that_are_never_used_change_nothing(name: str) -> None:
    torch.manual_seed(0)
    network, published = (ROWS[name].make(3, published=form).eval() for form in (False, True))
    missing, unexpected = published.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected and all(".unused." in key for key in missing)
    assert torch.equal(published.scores(some_images((64, 64))), network.scores(some_images((64, 64))))


@torch.inference_mode()
def test_the_published_bowlnet_gives_probabilities() -> None:
    torch.manual_seed(0)
    network, published = (bowlnet(3, published=form).eval() for form in (False, True))
    published.load_state_dict(network.state_dict())
    torch.testing.assert_close(published(some_images((64, 64))), network(some_images((64, 64))).softmax(1))


# Training


@pytest.mark.parametrize("name", ["light", "afformer-tiny"])
def test_a_network_learns_from_scratch(name: str) -> None:
    frames = Frames(Synthetic("val", (64, 96)), (64, 96))
    torch.manual_seed(0)
    recipe = TrainRecipe(iterations=12, batch_size=4, warmup_iterations=1, ema_decay=0.0)
    curve = fit(ROWS[name].make(frames.num_classes), frames, recipe, seed=0, lane=Alone())  # type: ignore[arg-type]
    assert curve[-1][1] < 0.9 * curve[0][1]


# Parts


@torch.inference_mode()
def test_a_gate_weighs_pixels_and_not_channels() -> None:
    torch.manual_seed(0)
    gate = normalised(Gate(8)).eval()  # type: ignore[arg-type]
    skip, coarse = torch.rand(2, 8, 5, 6) + 1, torch.randn(2, 8, 5, 6)
    weights = gate(skip, coarse) / skip
    torch.testing.assert_close(weights, weights[:, :1].expand_as(weights))
    assert weights.min() > 0 and weights.max() < 1
    assert weights[:, :1].std() > 1e-3


@torch.inference_mode()
def test_a_block_of_efficientnet_is_left_out_for_some_images_while_training_only() -> None:
    torch.manual_seed(0)
    block = MBConv(8, 8, 3, 1, 6, drop_rate=0.25)
    block.layers.eval()  # normalised alike in both
    x = torch.randn(400, 8, 3, 3)
    found = block.layers(x)
    trained = block(x)
    left_out = (trained == x).flatten(1).all(1)
    torch.testing.assert_close(trained[~left_out], (x + found / 0.75)[~left_out])
    assert 0.15 < left_out.float().mean() < 0.35
    torch.testing.assert_close(block.eval()(x), x + found)


def test_later_blocks_of_efficientnet_are_left_out_more_often() -> None:
    with torch.device("meta"):
        rates = [block.drop_rate for block in efficientnet_b0(("stage6",)).modules() if isinstance(block, MBConv)]
    assert rates == pytest.approx([0.0125 * place for place in range(15)])


@pytest.mark.parametrize("side", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(2, 3), (5, 12), (64, 128)])
def test_means_of_an_exported_graph_are_those_of_adaptive_pooling(side: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(_windows(side, size[0], x) @ x @ _windows(side, size[1], x).T, grid_means(x, side))


@torch.inference_mode()
def test_attention_is_linear_attention_plus_filters_of_high_and_low_frequencies() -> None:
    """Restated head by head and token by token order (arXiv 2301.04648)."""
    torch.manual_seed(0)
    channels, (height, width) = 32, (5, 7)
    attention, filters = Attention(channels), Filters(channels)
    tokens = torch.randn(2, height * width, channels)
    q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in attention.qkv(tokens).chunk(3, 2))
    every = torch.einsum("bhnk,bhmk->bhnm", q, k.softmax(2)) @ v * (channels // HEADS) ** -0.5
    image = v.transpose(2, 3).reshape(2, channels, height, width)
    highs, first = [], 0
    for conv, (_, heads) in zip(filters.high, WINDOWS, strict=True):
        highs.append(conv(image[:, first : first + heads * channels // HEADS]))
        first += heads * channels // HEADS
    parts = zip(image.chunk(4, 1), (1, 2, 3, 6), strict=True)
    lows = [resize_pixels(F.adaptive_avg_pool2d(part, side), (height, width)) for part, side in parts]
    high, low = (torch.cat(found, 1).flatten(2).transpose(1, 2) for found in (highs, lows))
    joined = every.transpose(1, 2).flatten(2) + q.transpose(1, 2).flatten(2) * high + low.relu()
    torch.testing.assert_close(attention(tokens, (height, width), filters), attention.project(joined))


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(4, 16, 3)])
def test_convolutions_of_afformer_begin_with_the_spread_of_the_released_code(layer: nn.Conv2d) -> None:
    """Standard deviation sqrt(2 / (k * k * out / groups)); found over many kernels."""
    torch.manual_seed(0)
    values = []
    for _ in range(100):
        _begin(layer)
        values.append(layer.weight.detach().flatten().clone())
    expected = (2 / (9 * layer.out_channels / layer.groups)) ** 0.5
    assert float(torch.cat(values).std()) == pytest.approx(expected, rel=0.05)
