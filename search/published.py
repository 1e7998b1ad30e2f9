"""What the papers say their networks cost: never mixed with what is counted or measured here."""

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
