"""Latency tables of single layers on a device: the 3x3 convolution over channel widths (first form of the paper's Fig. 5).

The efficiency of a width is its multiply-adds over its latency: widths the device handles well stand out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from latency.measure import measure
from latency.measurement import TimingPlan
from latency.store import Store

STACK = 8
"""Convolutions timed in a row; the latency of one is an eighth, so that input, output and launch hardly count."""


@dataclass(frozen=True, kw_only=True)
class ConvRow:
    """Latency of one 3x3 convolution with `width` channels in and out.

    Args:
        width: channels.
        latency_ms: of one convolution, milliseconds.
        macs_giga: multiply-adds of one convolution, in units of 1e9.
        efficiency: multiply-adds a second, in units of 1e9 a millisecond.
        stable: the verdict on the samples.
    """

    width: int
    latency_ms: float
    macs_giga: float
    efficiency: float
    stable: bool


def conv_table(
    widths: tuple[int, ...],
    size: tuple[int, int],
    *,
    backend: str,
    device: str,
    threads: int,
    plan: TimingPlan,
    store: Store,
    on_row: Callable[[ConvRow], None] = lambda row: None,
) -> list[ConvRow]:
    """Measure the convolution at each width on feature maps of `size` (height, width); rows known to the store are reused.

    Raises:
        BackendError: an unknown or unusable backend.
        MeasurementFailed: the backend could not build or run a stack.
    """
    rows = []
    for row in _rows(widths, size, backend=backend, device=device, threads=threads, plan=plan, store=store):
        on_row(row)
        rows.append(row)
    return rows


def _rows(
    widths: tuple[int, ...], size: tuple[int, int], *, backend: str, device: str, threads: int, plan: TimingPlan, store: Store
) -> Iterator[ConvRow]:
    from torch import nn

    for width in widths:
        layers = [layer for _ in range(STACK) for layer in (nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())]
        measurement = measure(
            nn.Sequential(*layers),
            size=size,
            channels=width,
            backend=backend,
            device=device,
            boundary="logits",
            threads=threads,
            plan=plan,
            subject=f"{STACK} x (conv3x3 {width}-{width}, ReLU)",
            store=store,
        )
        latency_ms = measurement.latency_ms / STACK
        macs_giga = 9 * width * width * size[0] * size[1] / 1e9
        yield ConvRow(
            width=width,
            latency_ms=latency_ms,
            macs_giga=macs_giga,
            efficiency=macs_giga / latency_ms,
            stable=measurement.verdict().stable,
        )
