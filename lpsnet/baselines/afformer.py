"""AFFormer (arXiv 2301.04648): a convolutional branch of pixels and a transformer of prototypes, added, and one score layer.

Follows the code its authors released. Does not cover the "AFFormer" of "Segmentation can be light", which is `light.py`.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.baselines.layers import resize_pixels, separable, size_of
from lpsnet.baselines.seam import Baseline, Chain, Link
from lpsnet.interactions import like
from lpsnet.reparam import ConvNorm

VARIANTS: MappingProxyType[str, tuple[tuple[int, ...], tuple[int, ...]]] = MappingProxyType(
    {
        "tiny": ((0, 2, 4, 2), (32, 64, 160, 216)),
        "small": ((0, 2, 4, 2), (32, 64, 176, 216)),
        "base": ((0, 2, 6, 2), (32, 96, 176, 216)),
    }
)
"""Number of transformer layers and channels of each stage, by size."""

STRIDES = ((1, 1), (2, 1), (1, 2), (1, 4))
"""Of the pixels and, beyond that, of the prototypes of each stage."""

HEADS = 8
"""Of the attention."""

WINDOWS = ((3, 2), (5, 3), (7, 3))
"""Kernel of a high-pass filter, and the number of heads it is for."""

GRIDS = (1, 2, 3, 6)
"""Means a side of the low-pass filter of each quarter of the channels."""

HEAD_CHANNELS = 256


def grid_means(x: Tensor, side: int) -> Tensor:
    """Means of (N, C, H, W) over a grid of windows that cover it, (N, C, side, side), as adaptive pooling has them.

    In an exported graph these are two products with matrices: of windows that differ in size the exporter makes thousands
    of gathers and sums, at 64x128 ten times as slow in ONNX Runtime.
    """
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, side)
    return _windows(side, x.shape[-2], x) @ x @ _windows(side, x.shape[-1], x).transpose(0, 1)


def _windows(side: int, length: int, like: Tensor) -> Tensor:
    """(side, length): in each row one over the size of its window, from floor(i * length / side) to ceil((i + 1) * length / side)."""
    bounds = [(row * length // side, -(-(row + 1) * length // side)) for row in range(side)]
    rows = [[float(first <= place < last) / (last - first) for place in range(length)] for first, last in bounds]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


class Filters(nn.Module):
    """The filters of frequencies that the layers of a stage share: q, v (N, C, H, W) to q * high(v) + low(v), (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [heads * channels // HEADS for _, heads in WINDOWS]
        self.widths = widths
        self.high = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width) for width, (kernel, _) in zip(widths, WINDOWS, strict=True)
        )

    def forward(self, q: Tensor, v: Tensor) -> Tensor:
        """(N, C, H, W) for two such."""
        high = torch.cat([conv(part) for conv, part in zip(self.high, torch.split(v, self.widths, 1), strict=True)], 1)
        means = [grid_means(part, side) for side, part in zip(GRIDS, v.chunk(len(GRIDS), 1), strict=True)]
        low = torch.cat([resize_pixels(mean, size_of(v)) for mean in means], 1)
        return q * high + F.relu(low)


def _as_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H * W, C) to (N, C, H, W)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)


class Attention(nn.Module):
    """Attention in linear time, q (softmax(k) v), plus the filters: (N, H * W, C) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int], filters: nn.Module) -> Tensor:
        """(N, H * W, C) to the same, with (H, W) as `size`."""
        count, length, channels = tokens.shape
        image = (count, channels, *size)
        q, k, v = self.qkv(tokens).transpose(1, 2).reshape(count, 3, HEADS, channels // HEADS, length).unbind(1)
        context = k.softmax(-1) @ v.transpose(-2, -1)
        attended = (context.transpose(-2, -1) @ q) * (channels // HEADS) ** -0.5
        found = attended.reshape(image) + filters(q.reshape(image), v.reshape(image))
        projected: Tensor = self.project(found.flatten(2).transpose(1, 2))
        return projected


class Mlp(nn.Module):
    """Two linear layers with a depthwise 3x3 between them: (N, H * W, C) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, 2 * channels)
        self.around = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, H * W, C) to the same, with (H, W) as `size`."""
        tokens = self.widen(tokens)
        around = self.around(_as_image(tokens, size)).flatten(2).transpose(1, 2)
        found: Tensor = self.narrow(F.gelu(tokens + around))
        return found


class Layer(nn.Module):
    """A transformer layer: (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attention = Attention(channels)
        self.mlp_norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor, filters: nn.Module) -> Tensor:
        """(N, C, H, W) to the same."""
        size = size_of(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.attention_norm(tokens), size, filters)
        tokens = tokens + self.mlp(self.mlp_norm(tokens), size)
        return _as_image(tokens, size)


class Transformer(nn.Module):
    """Layers that share one encoding of positions and one set of filters: (N, C, H, W) to the same."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.filters = Filters(channels)
        self.layers = nn.ModuleList(Layer(channels) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        for layer in self.layers:
            x = layer(x + self.position(x), self.filters)
        return x


class Restore(nn.Module):
    """The pixels' branch, an inverted bottleneck beside the identity: (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            ConvNorm(channels, half, 1, act="hardswish"),
            ConvNorm(half, half, 3, groups=half, act="hardswish"),
            ConvNorm(half, channels, 1, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        restored: Tensor = x + self.layers(x)
        return restored


class Stage(nn.Module):
    """Pixels and prototypes of a feature, added: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the input and of both branches.
        out_channels: of the output.
        depth: number of transformer layers; with 0 prototypes are added to the pixels as they are.
        strides: of the pixels and, beyond that, of the prototypes.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, strides: tuple[int, int]) -> None:
        super().__init__()
        self.pixels = separable(in_channels, in_channels, stride=strides[0], act="hardswish")
        self.prototypes = separable(in_channels, in_channels, stride=strides[1], act="hardswish")
        self.restore = Restore(in_channels)
        self.transformer = Transformer(in_channels, depth) if depth else None
        self.end = ConvNorm(in_channels, out_channels, 1, act="hardswish")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        pixels = self.pixels(x)
        prototypes = self.prototypes(pixels)
        if self.transformer is None:
            mixed = self.restore(pixels + prototypes)
        else:
            mixed = self.restore(pixels) + like(self.transformer(prototypes), pixels)
        found: Tensor = self.end(mixed)
        return found


class ScoreLayer(nn.Module):
    """The decoder: (N, channels, h, w) to (N, num_classes, h, w), from the last feature only.

    Args:
        channels: of that feature.
        num_classes: of the score maps.
        unused: layers that the published network holds and never uses, for its count of parameters.
    """

    def __init__(self, channels: int, num_classes: int, *, unused: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(_squeeze(channels), nn.Dropout2d(0.1), nn.Conv2d(HEAD_CHANNELS, num_classes, 1))
        self.unused = unused

    def forward(self, features: list[Tensor]) -> Tensor:
        """Score maps (N, num_classes, h, w) of features of which the last is (N, C, h, w)."""
        scores: Tensor = self.layers(features[-1])
        return scores


def _squeeze(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, HEAD_CHANNELS, 1, bias=False), nn.GroupNorm(32, HEAD_CHANNELS), nn.ReLU(inplace=True))


def afformer_encoder(variant: str) -> Chain:
    """`stem` and `stage1` (1/4), then `stage2` to `stage4` (1/8), of a row of `VARIANTS`; the last is the feature.

    Weights begin as in the released code.
    """
    depths, widths = VARIANTS[variant]
    first = widths[0]
    stem = nn.Sequential(ConvNorm(3, first // 2, 3, 2, act="hardswish"), ConvNorm(first // 2, first, 3, 2, act="hardswish"))
    links = [Link("stem", stem, first, 4)]
    for number, (depth, before, after, strides) in enumerate(zip(depths, widths, (*widths[1:], widths[-1]), STRIDES, strict=True), 1):
        links.append(Link(f"stage{number}", Stage(before, after, depth, strides), after, strides[0]))
    chain = Chain(links, ("stage4",))
    chain.apply(_begin)
    return chain


def _begin(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    elif isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        layer.weight.data *= layer.groups**0.5  # as `fan_out` leaves the groups aside
    if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def afformer(variant: str, num_classes: int, *, published: bool = False) -> Baseline:
    """AFFormer "tiny", "small" or "base" with score maps at 1/8.

    The published form holds a normalised 1x1 convolution, of 66,048 parameters, that it never uses.
    """
    chain = afformer_encoder(variant)
    decoder = ScoreLayer(chain.channels[-1], num_classes, unused=_squeeze(HEAD_CHANNELS) if published else None)
    return Baseline(f"afformer-{variant}", chain, decoder, num_classes)
