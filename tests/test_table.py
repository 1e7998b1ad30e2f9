"""Tables of 3x3 convolutions over channel widths, and their sweet spots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from latency.measurement import TimingPlan
from latency.store import Store
from latency.table import STACK, ConvRow, conv_table, sweet_spots
from tests.backends import Watched

QUICK = TimingPlan(warmup_s=0, min_samples=5, min_s=0, max_s=60)


class TestConvTable:
    @pytest.fixture
    def table(self, store: Store) -> Callable[..., list[ConvRow]]:
        def make(widths: tuple[int, ...], size: tuple[int, int] = (8, 12), **more: Any) -> list[ConvRow]:
            return conv_table(widths, size, backend="torch", device="cpu", threads=1, plan=QUICK, store=store, **more)

        return make

    def test_one_row_a_width_with_the_efficiency_of_one_convolution(self, table: Callable[..., list[ConvRow]], store: Store) -> None:
        told: list[ConvRow] = []
        rows = table((4, 12, 8), on_row=told.append)
        assert [dataclasses.replace(row, sweet_spot=False) for row in rows] == told
        assert [row.width for row in rows] == [4, 12, 8]
        for row, measured in zip(rows, store.all(), strict=True):
            assert row.latency_ms == pytest.approx(measured.latency_ms / STACK)
            assert row.macs_giga == pytest.approx(9 * row.width**2 * 8 * 12 / 1e9)
            assert row.efficiency == pytest.approx(row.macs_giga / row.latency_ms)
            assert row.stable == measured.verdict().stable
            assert measured.conditions.shape == (1, row.width, 8, 12)
            assert measured.found["output_shape"] == [1, row.width, 8, 12]

    def test_rows_of_the_store_are_used_again(self, table: Callable[..., list[ConvRow]], watch: Callable[..., Watched]) -> None:
        watched = watch("torch")
        first = table((4, 8))
        assert len(watched.loads) == 2
        assert table((8, 4)) == first[::-1]
        assert len(watched.loads) == 2
        table((4, 8), size=(12, 8))
        assert len(watched.loads) == 4

    def test_a_sweet_spot_has_no_wider_layer_for_the_same_time(self) -> None:
        def row(width: int, latency_ms: float) -> ConvRow:
            return ConvRow(width=width, latency_ms=latency_ms, macs_giga=1.0, efficiency=1.0, stable=True)

        assert sweet_spots([row(8, 1.0), row(12, 2.02), row(16, 2.0), row(20, 3.0), row(24, 3.08), row(32, 3.2)]) == {8, 16, 24, 32}
        assert sweet_spots([row(20, 3.0), row(24, 3.08)]) == {24}
        assert sweet_spots([]) == set()

    def test_a_stack_is_convolutions_of_one_width_with_relu(
        self, table: Callable[..., list[ConvRow]], watch: Callable[..., Watched]
    ) -> None:
        watched = watch("torch")
        table((6,))
        (timed,) = watched.loads
        layers = [layer for layer in timed.modules() if isinstance(layer, nn.Conv2d)]
        assert len(layers) == STACK
        assert {(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in layers} == {(6, 6, (3, 3), (1, 1), (1, 1))}
