"""Fronts, hypervolume and knee against definitions worked out point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto import Point, front, hypervolume, knee

POINTS = st.lists(st.tuples(st.integers(1, 20).map(float), st.integers(0, 20).map(float)), max_size=12)


@given(POINTS)
def test_the_front_is_what_no_point_beats(points: list[Point]) -> None:
    def beaten(one: Point) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)

    kept = [points[index] for index in front(points)]
    assert set(kept) == {one for one in points if not beaten(one)}
    assert kept == sorted(kept) and len(kept) == len(set(kept))


@given(POINTS, st.integers(2, 20), st.integers(0, 10))
def test_the_hypervolume_is_the_area_counted_on_a_grid(points: list[Point], slowest: int, worst: int) -> None:
    edges = np.geomspace(1, slowest, 400)
    middles, widths = np.sqrt(edges[1:] * edges[:-1]), np.log(edges[1:] / edges[:-1])
    best = [max((miou - worst for latency, miou in points if latency <= at and miou > worst), default=0.0) for at in middles]
    counted = float(np.dot(best, widths))
    assert hypervolume(points, slowest, worst) == pytest.approx(counted, abs=20 * float(widths.max()) * 12)


@given(POINTS, st.tuples(st.integers(1, 20).map(float), st.integers(0, 20).map(float)))
def test_a_further_point_never_takes_area_away(points: list[Point], more: Point) -> None:
    assert hypervolume([*points, more], 20.0) >= hypervolume(points, 20.0)


def test_two_points_by_hand() -> None:
    assert hypervolume([(1.0, 30.0), (2.0, 40.0)], 4.0, 20.0) == pytest.approx(10 * math.log(2) + 20 * math.log(2))
    assert hypervolume([], 4.0) == 0.0
    assert hypervolume([(5.0, 90.0)], 4.0) == 0.0


def test_the_knee_is_where_more_latency_stops_paying() -> None:
    points = [(1.0, 30.0), (2.0, 50.0), (4.0, 52.0), (8.0, 53.0), (3.0, 10.0)]
    assert knee(points) == 1
    assert knee(points[:2]) is None
