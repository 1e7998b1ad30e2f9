"""Picking from a family, against definitions worked out network by network."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lpsnet.architecture import TABLE_4
from lpsnet.errors import UserError
from search.family import Move, at_fps, at_knee, at_miou, at_step, check_name, fastest_for_their_miou, moves, named, within_ms
from search.pareto import knee
from search.step import Member

LATENCIES = st.one_of(st.integers(1, 12).map(float), st.just(math.nan))
FAMILIES = st.lists(st.tuples(LATENCIES, st.integers(0, 12).map(float)), min_size=1, max_size=10).map(
    lambda points: [Member(TABLE_4[step], latency, miou) for step, (latency, miou) in enumerate(points)]
)
TIMED = FAMILIES.filter(lambda family: any(not math.isnan(member.latency_ms) for member in family))


@given(TIMED, st.floats(0.5, 13))
def test_a_budget_is_kept_and_nothing_within_it_is_more_accurate(family: list[Member], budget: float) -> None:
    fitting = [member for member in family if member.latency_ms <= budget]
    if not fitting:
        fastest = min(member.latency_ms for member in family if not math.isnan(member.latency_ms))
        with pytest.raises(UserError, match=rf"within {budget:g} ms; the nearest is step \d+ with {fastest:.4g} ms"):
            within_ms(family, budget)
        return
    chosen = family[within_ms(family, budget).step]
    assert chosen.latency_ms <= budget
    best = [member for member in fitting if member.miou_percent == max(one.miou_percent for one in fitting)]
    assert chosen.miou_percent == best[0].miou_percent and chosen.latency_ms == min(member.latency_ms for member in best)


@given(TIMED, st.floats(0.5, 13))
def test_a_rate_is_a_budget(family: list[Member], budget: float) -> None:
    assume(any(member.latency_ms <= budget for member in family) and all(member.latency_ms != budget for member in family))
    assert at_fps(family, 1e3 / budget).step == within_ms(family, budget).step


@given(TIMED, st.floats(-1, 13))
def test_an_accuracy_is_reached_and_nothing_that_reaches_it_is_faster(family: list[Member], percent: float) -> None:
    reaching = [member for member in family if member.miou_percent >= percent and not math.isnan(member.latency_ms)]
    if not reaching:
        best = max(member.miou_percent for member in family)
        with pytest.raises(UserError, match=rf"the nearest is step \d+ with {best:.2f} %"):
            at_miou(family, percent)
        return
    chosen = family[at_miou(family, percent).step]
    fastest = min(member.latency_ms for member in reaching)
    assert chosen.latency_ms == fastest and chosen.miou_percent == max(m.miou_percent for m in reaching if m.latency_ms == fastest)


@given(FAMILIES)
def test_the_knee_lies_on_the_front_and_is_that_of_the_networks_with_a_latency(family: list[Member]) -> None:
    timed = [(step, member) for step, member in enumerate(family) if not math.isnan(member.latency_ms)]
    on_front = fastest_for_their_miou(family)
    for step, member in timed:
        beaten = any(o.latency_ms <= member.latency_ms and o.miou_percent > member.miou_percent for _, o in timed)
        assert not (beaten and step in on_front)
    index = knee([(member.latency_ms, member.miou_percent) for _, member in timed])
    if index is None:
        with pytest.raises(UserError, match=f"the family has {len(on_front)}"):
            at_knee(family)
    else:
        assert at_knee(family).step == timed[index][0] and timed[index][0] in on_front


@given(FAMILIES, st.integers(-3, 12))
def test_a_step_is_itself_or_refused_with_the_nearest(family: list[Member], step: int) -> None:
    if 0 <= step < len(family):
        assert at_step(family, step).step == step
    else:
        nearest = 0 if step < 0 else len(family) - 1
        with pytest.raises(UserError, match=rf"no step {step}; the nearest is step {nearest}$"):
            at_step(family, step)


@given(FAMILIES, st.data())
def test_moves_lead_to_the_neighbours_and_back(family: list[Member], data: st.DataObject) -> None:
    step = data.draw(st.integers(0, len(family) - 1))
    down, up = moves(family, step)
    assert (down is None) == (step == 0) and (up is None) == (step == len(family) - 1)
    if up is not None:
        back, _ = moves(family, up.step)
        assert back is not None and back.step == step and back.gain_percent == -up.gain_percent
        assert back.cost_ms == -up.cost_ms or math.isnan(up.cost_ms)


def test_a_family_by_hand() -> None:
    family = [Member(TABLE_4[step], *point) for step, point in enumerate([(0.5, 30.0), (1.0, 50.0), (0.9, 52.0), (4.0, 53.0)])]
    assert within_ms(family, 1.0).step == 2 and within_ms(family, 1.0).name == "1ms"
    assert at_fps(family, 60, "M") == at_fps(family, 60.0, "M") and at_fps(family, 60).why == "the most accurate at 60 frames/s (16.67 ms)"
    assert at_miou(family, 50).step == 2 and at_knee(family).step == 2 and fastest_for_their_miou(family) == [0, 2, 3]
    assert moves(family, 2) == (Move(1, pytest.approx(0.1), -2.0), Move(3, pytest.approx(3.1), 1.0))


def test_what_is_no_number_name_or_budget_is_refused_in_words() -> None:
    assert named("S=7", "--pick", "STEP") == ("S", 7.0) and named("16.7", "--budget-ms", "MS") == ("", 16.7)
    for text in ("S", "=7", "a/b=7", "../x=7", "S=", "nan", "S=inf", ".=1", "S==7", "x" * 41 + "=1"):
        with pytest.raises(UserError, match=r"--pick takes STEP or NAME=STEP.*got"):
            named(text, "--pick", "STEP")
    for name in ("", "..", "-x", "a b", "ä", "a/b", "x" * 41):
        with pytest.raises(UserError, match="up to 40 letters"):
            check_name(name)
    family = [Member(TABLE_4[0], math.nan, 30.0)]
    with pytest.raises(UserError, match="no latency of the family is known"):
        within_ms(family, 5)
    for choose in (within_ms, at_fps):
        with pytest.raises(UserError, match="must be above 0, got 0"):
            choose(family, 0)
    with pytest.raises(UserError, match=r"no step 1\.5; the nearest is step 0"):
        at_step(family, 1.5)
