"""What the papers say their networks cost and score: never mixed with what is counted, measured or trained here."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Published:
    """Figures of a paper, as it rounds them.

    Args:
        parameters_millions: None where the paper does not say.
        gflops: by the paper's own count, None where it does not say.
        size: (height, width) that count is for.
    """

    parameters_millions: float | None
    gflops: float | None
    size: tuple[int, int] | None


_FULL, _HALF, _SMALL = (1024, 2048), (512, 1024), (360, 640)

PUBLISHED: MappingProxyType[str, Published] = MappingProxyType(
    {
        "skipnet-mobilenet": Published(None, 13.8, _HALF),
        "skipnet-shufflenet": Published(None, 2.0, _SMALL),
        "unet-mobilenet": Published(None, 55.9, _HALF),
        "liteseg-darknet19": Published(20.55, 103.09, _HALF),
        "liteseg-mobilenetv2": Published(4.38, 4.9, _HALF),
        "liteseg-shufflenet": Published(3.51, 2.75, _HALF),
        "shufflenetv2-basic": Published(None, 2.18, _SMALL),
        "shufflenetv2-dpc": Published(None, 3.05, _SMALL),
        "mobilenetv2-basic": Published(None, 4.69, _SMALL),
        "mobilenetv2-dpc": Published(None, 5.56, _SMALL),
        "unet": Published(17.26, 40.15, (256, 256)),
        "attention-unet-resnet34": Published(39.56, 38.53, (512, 512)),
        "light": Published(2.98, 2.62, (512, 512)),
        "bowlnet": Published(3.05, 17.16, (512, 512)),
        "afformer-base": Published(None, 34.4, _FULL),
    }
)
"""Figures by name of the network. The paper of LPS-Net tells neither of its family."""


@dataclass(frozen=True)
class Ablated:
    """A row of Table 2 or 3 of LPS-Net's paper: validation mIoU on Cityscapes and latency at 1024x2048 on a GTX 1070Ti.

    Args:
        miou_percent: of one training, as far as the paper says.
        latency_ms: with TensorRT in fp32, to the scores.
        gflops: multiply-adds and sums with biases, None where the paper does not say.
    """

    miou_percent: float
    latency_ms: float
    gflops: float | None = None


TABLE_2: MappingProxyType[str, Ablated] = MappingProxyType(
    {
        "conv3x3": Ablated(66.2, 5.08, 18.5),
        "sepconv3x3": Ablated(53.9, 5.10, 1.1),
        "residual": Ablated(66.1, 5.24, 16.1),
        "bottleneck": Ablated(55.7, 5.65, 2.2),
        "inverted-residual": Ablated(59.2, 5.12, 2.0),
        "ghost": Ablated(58.3, 5.25, 2.5),
        "shufflenet": Ablated(50.8, 5.11, 0.8),
    }
)
"""Blocks, each at a width of its own that the paper does not publish, at about one latency."""

TABLE_3: MappingProxyType[str, Ablated] = MappingProxyType(
    {
        "none": Ablated(66.9, 5.68),
        "direct-a": Ablated(67.9, 6.42),
        "direct-b": Ablated(68.1, 6.49),
        "attention-a": Ablated(68.2, 6.42),
        "attention-b": Ablated(68.6, 6.99),
        "bilateral-a": Ablated(69.6, 6.48),
        "bilateral-b": Ablated(69.9, 5.97),
    }
)
"""Interactions of one network of 3x3 convolutions, c = 16."""
