"""Decisions that would hang on noise: what is run in turns, what is not, and what follows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpsnet import NAMED
from search import Failure, InTurns, Step
from search.decide import decide, slope
from search.space import OPERATIONS, expansion
from search.step import Candidate, Member
from tests.searches import settled

N0 = NAMED["N0"]
PARENT = Member(N0, 2.0, 50.0)
NETWORKS = [expansion(N0, operation, 1) for operation in OPERATIONS[:4]]
SAME = InTurns(1.001, 0.99, 1.01)


def outcome(pairs: list[tuple[float, float]], turns: dict[tuple[int, int], InTurns | Failure], noise: float = 0.03) -> Step:
    """Decide among (latency, mIoU) of the first networks; `turns` by number of the network, -1 for the parent."""
    networks = NETWORKS[: len(pairs)]
    candidates = tuple(Candidate(network, ((str(i), 1),), ms) for i, (network, (ms, _)) in enumerate(zip(networks, pairs, strict=True)))
    answers = {network: miou for network, (_, miou) in zip(networks, pairs, strict=True)}
    named = {(N0 if a < 0 else networks[a], N0 if b < 0 else networks[b]): answer for (a, b), answer in turns.items()}
    return settled(decide(1, PARENT, 3.0, candidates, answers, {}, noise), named)


def taken(step: Step) -> int:
    return step.trials.index(step.chosen_trial)


def test_a_rival_that_loses_only_by_noise_is_run_in_turns_and_wins_where_it_gains_more() -> None:
    pairs = [(3.00, 52.00), (3.05, 52.05)]  # 2.000 against 1.952 a millisecond; equally fast, the second gains more
    assert taken(outcome(pairs, {}, noise=0)) == 0
    step = outcome(pairs, {(0, 1): SAME})
    assert taken(step) == 1
    assert step.chosen.latency_ms == 3.05  # what enters the record is what was measured
    assert [tie.answer for tie in step.ties] == [SAME] and "neither is faster" in step.ties[0].text


def test_a_gap_that_turns_confirm_or_reverse_decides() -> None:
    pairs = [(3.00, 52.00), (3.05, 52.05)]
    confirmed, reversed_ = InTurns(1.04, 1.03, 1.05), InTurns(0.97, 0.96, 0.98)
    assert taken(outcome(pairs, {(0, 1): confirmed})) == 0
    step = outcome([(3.00, 52.00), (3.05, 51.99)], {(0, 1): reversed_})
    assert taken(step) == 1 and f"{NETWORKS[1]} is faster" in step.ties[0].text


def test_nothing_is_run_in_turns_where_noise_cannot_change_the_choice() -> None:
    assert taken(outcome([(3.00, 54.00), (3.02, 52.00)], {})) == 0  # near in latency, far in slope
    assert taken(outcome([(3.00, 52.00), (3.20, 52.41)], {})) == 1  # near in slope, far in latency
    assert taken(outcome([(3.00, 52.00), (3.05, 52.05)], {}, noise=0)) == 0


def test_a_candidate_as_fast_as_its_parent_costs_nothing() -> None:
    step = outcome([(2.03, 50.2), (3.0, 59.0)], {(-1, 0): SAME})
    assert taken(step) == 0 and step.chosen_trial.slope == math.inf
    assert any("not slower" in warning for warning in step.warnings)
    lost = outcome([(2.03, 49.9), (3.0, 51.0)], {(-1, 0): SAME})
    assert taken(lost) == 1 and lost.trials[0].slope == -math.inf
    slower = outcome([(2.03, 50.2), (3.0, 59.0)], {(-1, 0): InTurns(1.05, 1.04, 1.06)})
    assert slower.trials[0].slope == pytest.approx(0.2 / 0.1) and taken(slower) == 1


def test_where_turns_cannot_be_had_the_single_measurements_decide_and_the_reader_is_told() -> None:
    step = outcome([(3.00, 52.00), (3.05, 52.05)], {(0, 1): Failure("out of memory")})
    assert taken(step) == 0 and "out of memory; the single measurements decide" in step.ties[0].text


def test_the_winner_of_one_comparison_meets_the_next_rival() -> None:
    pairs = [(3.00, 52.00), (3.04, 52.02), (3.06, 52.08)]
    step = outcome(pairs, {(0, 2): SAME, (2, 1): SAME})
    assert taken(step) == 2 and len(step.ties) == 2


@given(st.lists(st.tuples(st.floats(2.2, 5), st.floats(45, 60)), min_size=1, max_size=4))
def test_without_noise_the_largest_slope_is_taken(pairs: list[tuple[float, float]]) -> None:
    slopes = [slope(miou - 50.0, ms - 2.0) for ms, miou in pairs]
    assert outcome(pairs, {}, noise=0).chosen_trial.slope == max(slopes)
