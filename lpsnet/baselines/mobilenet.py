"""MobileNet (arXiv 1704.04861) and MobileNetV2 (arXiv 1801.04381), both of width 1, as encoders."""

from __future__ import annotations

from torch import Tensor, nn

from lpsnet.baselines.layers import TF_EPS
from lpsnet.baselines.seam import Chain, Link
from lpsnet.reparam import ConvNorm

UNITS = (
    ("conv2_1", 64, 1),
    ("conv2_2", 128, 2),
    ("conv3_1", 128, 1),
    ("conv3_2", 256, 2),
    ("conv4_1", 256, 1),
    ("conv4_2", 512, 2),
    *((f"conv5_{number}", 512, 1) for number in range(1, 6)),
    ("conv5_6", 1024, 2),
    ("conv6_1", 1024, 1),
)
"""Name, channels and stride of the units of MobileNet after `conv1_1`."""


def mobilenet(taps: tuple[str, ...], *, unused: nn.Module | None = None) -> Chain:
    """MobileNet as RTSeg builds it, convolutions biased: `conv1_1` (1/2) and the units of `UNITS`, to 1/32.

    `unused` is as of `Chain`.
    """
    return Chain(_first_units(len(UNITS)), taps, unused=unused)


def mobilenet_dilated() -> Chain:
    """The frontend RTSeg makes of MobileNet: 1024 channels at 1/8.

    Full 3x3 convolutions of rates 2 and 4 take the place of the units that would halve the size.
    """
    links = _first_units(5)
    links.append(Link("conv4_2", ConvNorm(256, 512, 3, dilation=2, bias=True, eps=TF_EPS), 512))
    links += [Link(f"conv5_{number}", unit(512, 512, act="relu"), 512) for number in range(1, 6)]
    links.append(Link("conv5_6", ConvNorm(512, 1024, 3, dilation=4, bias=True, eps=TF_EPS), 1024))
    links.append(Link("conv6_1", unit(1024, 1024, act="relu"), 1024))
    return Chain(links, ("conv6_1",))


def _first_units(count: int) -> list[Link]:
    """`conv1_1` and the first units."""
    links = [Link("conv1_1", ConvNorm(3, 32, 3, 2, bias=True, act="relu6", eps=TF_EPS), 32, 2)]
    for name, width, stride in UNITS[:count]:
        links.append(Link(name, unit(links[-1].channels, width, stride), width, stride))
    return links


def unit(in_channels: int, out_channels: int, stride: int = 1, act: str = "relu6") -> nn.Sequential:
    """Depthwise 3x3, then pointwise 1x1, both biased and normalised: (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
    return nn.Sequential(
        ConvNorm(in_channels, in_channels, 3, stride, groups=in_channels, bias=True, act=act, eps=TF_EPS),
        ConvNorm(in_channels, out_channels, 1, bias=True, act=act, eps=TF_EPS),
    )


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, depthwise 3x3, 1x1 without activation; added to its input where the shape stays.

    (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)). With expansion 1 there is no first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, *, dilation: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        middle = in_channels * expansion
        widen = [ConvNorm(in_channels, middle, 1, act="relu6", eps=eps)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            ConvNorm(middle, middle, 3, stride, groups=middle, dilation=dilation, act="relu6", eps=eps),
            ConvNorm(middle, out_channels, 1, act=None, eps=eps),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        found: Tensor = self.layers(x)
        return x + found if self.residual else found


STAGES_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, number of blocks and stride of the first block of each stage of MobileNetV2."""

MOST_STRIDE = 32
"""Of MobileNetV2 as it was published for images' classes."""


def mobilenet_v2(
    taps: tuple[str, ...], *, output_stride: int = MOST_STRIDE, last: bool = False, eps: float = 1e-5, unused: nn.Module | None = None
) -> Chain:
    """`stem` (1/2), then `stage1` to `stage7` (320 channels).

    Args:
        taps: as of `Chain`.
        output_stride: of the last stage: strides beyond it are 1, and the blocks after them have their kernels' rate doubled.
        last: whether a 1x1 convolution to 1280 channels follows, `last`.
        eps: of the normalisations.
        unused: as of `Chain`.
    """
    links = [Link("stem", ConvNorm(3, 32, 3, 2, act="relu6", eps=eps), 32, 2)]
    channels, total, rate = 32, 2, 1
    for number, (expansion, width, depth, stride) in enumerate(STAGES_V2, 1):
        taken = stride if total * stride <= output_stride else 1
        later = rate * stride // taken
        blocks = [InvertedResidual(channels, width, taken, expansion, dilation=rate, eps=eps)]
        blocks += [InvertedResidual(width, width, 1, expansion, dilation=later, eps=eps) for _ in range(depth - 1)]
        links.append(Link(f"stage{number}", nn.Sequential(*blocks), width, taken))
        channels, total, rate = width, total * taken, later
    if last:
        links.append(Link("last", ConvNorm(channels, 1280, 1, act="relu6", eps=eps), 1280))
    return Chain(links, taps, unused=unused)
