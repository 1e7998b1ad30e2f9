"""Latency of one layer over channel widths (the paper's Fig. 4 and 5), and the widths worth using on a device.

The efficiency of a width is its multiply-adds over its latency: widths the device handles well stand out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latency.layers import STACK
from latency.measure import measure
from latency.store import Store

if TYPE_CHECKING:
    from torch import nn

FREE = 0.03
"""A wider layer that costs at most this share more than a narrower one is as good as free."""


@dataclass(frozen=True, kw_only=True)
class ConvRow:
    """Latency of one 3x3 convolution with `width` channels in and out.

    Args:
        width: channels.
        latency_ms: of one layer, milliseconds.
        macs_giga: multiply-adds of one layer, in units of 1e9.
        efficiency: multiply-adds a second, in units of 1e9 a millisecond.
        stable: the verdict on the samples.
        separable: a depthwise 3x3 and a pointwise 1x1 convolution instead of a standard one.
        sweet_spot: no wider layer of the table is as good as free beside it.
    """

    width: int
    latency_ms: float
    macs_giga: float
    efficiency: float
    stable: bool
    separable: bool = False
    sweet_spot: bool = False


def conv_table(
    widths: tuple[int, ...],
    size: tuple[int, int],
    *,
    store: Store,
    separable: bool = False,
    on_row: Callable[[ConvRow], None] = lambda row: None,
    **conditions: Any,
) -> list[ConvRow]:
    """Measure the layer at each width on feature maps of `size` (height, width); rows known to the store are reused.

    Args:
        widths: channels, in the order of the rows.
        size: of the feature map.
        store: where each measurement is kept.
        separable: measure the separable convolution.
        on_row: told of each row as it is known, before its sweet spot is.
        conditions: backend, device, threads, plan, precision, as `latency.measure` takes them.

    Raises:
        BackendError: an unknown or unusable backend.
        MeasurementFailed: the backend could not build or run a stack.
    """
    name = "sepconv3x3" if separable else "conv3x3"
    rows = []
    for width in widths:
        found = measure(
            _stack(width, separable),
            size=size,
            channels=width,
            boundary="logits",
            subject=f"{STACK} x ({name} {width}-{width}, ReLU)",
            store=store,
            **conditions,
        )
        latency_ms = found.latency_ms / STACK
        macs_giga = width * (9 + width if separable else 9 * width) * size[0] * size[1] / 1e9
        stable = found.verdict().stable
        row = ConvRow(
            width=width, latency_ms=latency_ms, macs_giga=macs_giga, efficiency=macs_giga / latency_ms, stable=stable, separable=separable
        )
        on_row(row)
        rows.append(row)
    spots = sweet_spots(rows)
    return [dataclasses.replace(row, sweet_spot=row.width in spots) for row in rows]


def sweet_spots(rows: Sequence[ConvRow]) -> set[int]:
    """The widths worth using: those beside which no wider one of the table is as good as free."""
    return {
        row.width for row in rows if not any(other.width > row.width and other.latency_ms <= (1 + FREE) * row.latency_ms for other in rows)
    }


def _stack(width: int, separable: bool) -> nn.Sequential:
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(STACK):
        if separable:
            layers += [nn.Conv2d(width, width, 3, 1, 1, groups=width), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU()]
        else:
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers)
