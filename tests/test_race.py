"""How the trainings of a step are spent: who is trained how far and with how many seeds, and how sure the choice is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet import NAMED, Architecture
from lpsnet.errors import UserError
from search.config import RacePlan
from search.decide import decide, likelier, slope
from search.race import Raced, race
from search.space import OPERATIONS, expansion
from search.step import CONTROL, Candidate, Failure, Gain, Member, Train
from tests.searches import settled

N0 = NAMED["N0"]
PARENT = Member(N0, 1.0, 30.0)
NETWORKS = [expansion(N0, operation, 1) for operation in OPERATIONS[:7]]
CANDIDATES = tuple(Candidate(network, ((operation.name, 1),), 2.0) for network, operation in zip(NETWORKS, OPERATIONS, strict=False))
Answer = Callable[[Architecture, int, int], float | Failure]


def run(plan: RacePlan, answer: Answer, candidates: tuple[Candidate, ...] = CANDIDATES) -> tuple[Raced, list[Train]]:
    """Drive a race; `answer` gives mIoU by network, rung and seed."""
    racing, asked = race(3, PARENT, candidates, plan, 400), []
    answers = None
    while True:
        try:
            request = racing.send(answers)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, asked
        assert isinstance(request, Train)
        assert (request.step, request.parent) == (3, N0)
        asked.append(request)
        answers = {c.architecture: answer(c.architecture, request.rung, request.seed) for c in request.candidates}


def scores(*values: float) -> Answer:
    """Fixed scores of the first networks; the control has the parent's, one point less at a rung."""
    table = dict(zip(NETWORKS, values, strict=False)) | {N0: PARENT.miou_percent}
    return lambda network, rung, seed: table[network] - (1.0 if rung else 0.0)


SEVEN = scores(31, 39, 32, 38.8, 33, 30, 34)


class TestWhoIsTrained:
    def test_by_default_every_candidate_once_to_the_end_and_no_control(self) -> None:
        raced, asked = run(RacePlan(), SEVEN)
        assert [(r.rung, r.seed, r.candidates) for r in asked] == [(0, 0, CANDIDATES)]
        assert raced.finalists == set(NETWORKS)
        assert raced.gains[NETWORKS[1]] == Gain(9.0, RacePlan().seed_noise_percent, 400, 1)

    def test_all_reach_a_rung_before_any_is_dropped_and_what_is_surely_worse_goes_no_further(self) -> None:
        raced, asked = run(RacePlan(rungs=(100, 200), seed_noise_percent=1.0), SEVEN)
        fields = [{c.architecture for c in request.candidates} - {N0} for request in asked]
        assert [request.rung for request in asked] == [100, 200, 0]
        assert fields == [set(NETWORKS), {NETWORKS[1], NETWORKS[3]}, {NETWORKS[1], NETWORKS[3]}]
        assert raced.finalists == fields[-1]
        dropped = raced.gains[NETWORKS[0]]
        assert (dropped.iterations, dropped.percent) == (100, 1.0)
        assert raced.outcomes[NETWORKS[0]] == 30.0  # where it stopped

    def test_two_reach_the_end_however_clear_the_leader(self) -> None:
        raced, _ = run(RacePlan(rungs=(100,), seed_noise_percent=0.01), SEVEN)
        assert raced.finalists == {NETWORKS[1], NETWORKS[3]}

    def test_close_calls_get_seeds_until_the_gap_exceeds_the_noise(self) -> None:
        clear, asked = run(RacePlan(seeds=9, seed_noise_percent=0.1), SEVEN)
        assert [request.seed for request in asked] == [0]
        close, asked = run(RacePlan(seeds=9, seed_noise_percent=0.3), SEVEN)
        assert 1 < len(asked) < 9 and all({c.architecture for c in r.candidates} == {N0, NETWORKS[1], NETWORKS[3]} for r in asked[1:])
        assert close.gains[NETWORKS[1]].seeds == len(asked) and close.gains[NETWORKS[0]].seeds == 1
        assert close.gains[NETWORKS[1]].error < clear.gains[NETWORKS[1]].error * 3

    def test_seeds_end_with_the_plan(self) -> None:
        _, asked = run(RacePlan(seeds=3, seed_noise_percent=50.0), SEVEN)
        assert [request.seed for request in asked] == [0, 1, 2]

    def test_a_failure_is_an_outcome_and_takes_no_further_part(self) -> None:
        def answer(network: Architecture, rung: int, seed: int) -> float | Failure:
            return Failure("the loss is nan") if network == NETWORKS[1] and not rung else SEVEN(network, rung, seed)

        raced, _ = run(RacePlan(rungs=(100,), seeds=2), answer)
        assert raced.outcomes[NETWORKS[1]] == Failure("the loss is nan")
        assert NETWORKS[1] not in raced.finalists and NETWORKS[3] in raced.finalists


class TestTheControl:
    def test_the_parent_is_trained_beside_its_candidates_with_every_seed(self) -> None:
        _, asked = run(RacePlan(seeds=2, seed_noise_percent=50.0, inherit=True), SEVEN)
        assert all(request.candidates[-1] == Candidate(N0, CONTROL, PARENT.latency_ms) for request in asked)

    def test_a_gain_that_longer_training_brings_the_parent_too_is_none(self) -> None:
        later = scores(41, 39, 40, 38, 37, 36, 35)
        raced, _ = run(RacePlan(inherit=True), lambda a, rung, seed: 38.0 if a == N0 else later(a, rung, seed))
        assert raced.gains[NETWORKS[0]].percent == pytest.approx(3.0)
        assert raced.gains[NETWORKS[6]].percent == pytest.approx(-3.0)

    def test_each_seed_is_held_against_its_own_control(self) -> None:
        raced, asked = run(RacePlan(seeds=4, seed_noise_percent=50.0), lambda a, rung, seed: SEVEN(a, rung, seed) + 5.0 * seed)  # type: ignore[operator]
        assert len(asked) == 4
        assert raced.gains[NETWORKS[1]].percent == pytest.approx(9.0)
        # Without residuals the noise is what is left of the plan's guess.
        assert raced.gains[NETWORKS[1]].error < 50.0 / 2

    def test_without_a_control_the_parents_own_score_is_taken(self) -> None:
        raced, _ = run(RacePlan(inherit=True), lambda a, rung, seed: Failure("out of memory") if a == N0 else SEVEN(a, rung, seed))
        assert raced.gains[NETWORKS[1]].percent == pytest.approx(9.0)


class TestTheNoise:
    def test_it_is_learned_from_the_seeds(self) -> None:
        random_ = random.Random(1)
        noisy: dict[tuple[Architecture, int], float] = {}

        def answer(network: Architecture, rung: int, seed: int) -> float:
            return noisy.setdefault((network, seed), 40.0 + random_.gauss(0, 3.0) * (network != N0))

        raced, asked = run(RacePlan(seeds=40, seed_noise_percent=0.5, sure=0.999), answer)
        one = max(raced.gains.values(), key=lambda gain: gain.seeds)
        assert len(asked) > 10
        assert one.error * one.seeds**0.5 == pytest.approx(3.0, rel=0.3)

    @given(st.integers(0, 10_000))
    @settings(max_examples=60, deadline=None)
    def test_spending_stays_within_the_plan_and_every_candidate_has_an_outcome(self, seed: int) -> None:
        random_ = random.Random(seed)
        truth = {network: random_.uniform(30, 40) for network in NETWORKS} | {N0: 30.0}
        raced, asked = run(RacePlan(rungs=(100,), seeds=4), lambda a, rung, s: truth[a] + random_.gauss(0, 1))
        assert len(asked) <= 5
        assert set(raced.outcomes) == set(raced.gains) == set(NETWORKS)
        assert 2 <= len(raced.finalists) <= len(NETWORKS)
        trained = sum(len(request.candidates) for request in asked)
        assert trained <= (len(NETWORKS) + 1) * 5

    def test_seeds_raise_the_share_of_right_choices(self) -> None:
        def right(seeds: int) -> int:
            count = 0
            for trial in range(300):
                random_ = random.Random(trial)
                truth = {network: 40.0 - place for place, network in enumerate(NETWORKS)} | {N0: 30.0}
                raced, _ = run(RacePlan(seeds=seeds), lambda a, rung, s: truth[a] + random_.gauss(0, 2))  # noqa: B023
                best = max(raced.finalists, key=lambda a: raced.gains[a].percent)
                count += best == NETWORKS[0]
            return count

        assert right(8) > right(1) + 45


class TestHowSure:
    def test_likelihoods_add_up_and_follow_the_gap(self) -> None:
        one, other = Gain(5.0, 1.0, 400, 1), Gain(4.0, 1.0, 400, 1)
        assert likelier(one, 1.0, other, 1.0) == pytest.approx(0.760, abs=1e-3)  # gap of 1 over the root of 2
        assert likelier(one, 1.0, other, 1.0) + likelier(other, 1.0, one, 1.0) == pytest.approx(1.0)
        assert likelier(one, 2.0, other, 1.0) < 0.5
        assert likelier(one, -0.1, other, 1.0) == pytest.approx(0.760, abs=1e-3)  # what costs nothing is compared by its gain
        assert likelier(Gain(1.0, 0.0, 1, 1), 1.0, Gain(0.0, 0.0, 1, 1), 1.0) == 1.0

    def test_a_step_tells_it_and_takes_no_candidate_that_was_dropped(self) -> None:
        gains = {network: Gain(gain, 1.0, 400, 1) for network, gain in zip(NETWORKS, (9.0, 5.0, 4.0), strict=False)}
        outcomes = {network: 30.0 + gain.percent for network, gain in gains.items()}
        step = settled(decide(1, PARENT, 2.0, CANDIDATES[:3], outcomes, {}, 0.0, gains, {NETWORKS[1], NETWORKS[2]}), {})
        assert step.chosen.architecture == NETWORKS[1]
        assert step.sure == pytest.approx(likelier(gains[NETWORKS[1]], 1.0, gains[NETWORKS[2]], 1.0))
        assert [trial.slope for trial in step.trials] == [slope(9, 1), slope(5, 1), slope(4, 1)]


class TestThePlan:
    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"rungs": (200, 100)}, "rungs are iterations above 0 that rise, got 200, 100"),
            ({"rungs": (0,)}, "rungs are iterations above 0"),
            ({"seeds": 0}, "seeds must be at least 1"),
            ({"sure": 1.0}, "sure is a likelihood"),
            ({"seed_noise_percent": 0.0}, "seed_noise_percent must be above 0"),
        ],
    )
    def test_what_it_cannot_be(self, values: dict[str, object], told: str) -> None:
        with pytest.raises(UserError, match=told):
            RacePlan(**values)  # type: ignore[arg-type]
