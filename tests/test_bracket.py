"""A forecast spares measurements and, as far as its bounds hold, changes nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet import NAMED, Architecture
from search import Failure
from search.bracket import Forecast, Interval
from tests.searches import Function, drive, seeded

N0 = NAMED["N0"]


def around(latency: Function, width: float, seed: int = 0) -> Forecast:
    """An interval that holds the latency, up to `width` wide on either side."""

    def interval(architecture: Architecture) -> tuple[float, float]:
        value = latency(architecture)
        assert not isinstance(value, Failure)
        generator = random.Random(f"{seed} {architecture}")
        return value * (1 - width * generator.random()), value * (1 + width * generator.random())

    def forecast(relatives: Mapping[Architecture, float]) -> Interval:
        assert relatives and all(latency(relative) == known for relative, known in relatives.items())
        return interval

    return forecast


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dips=st.sampled_from([0.0, 0.3, 0.7]),
    width=st.sampled_from([0.0, 0.05, 0.3, 3.0]),
    start=st.sampled_from(["N0", "B1-2-1-1-3_C4-8-16-32-32_R4-2", "B1-1-1-1-1_C8-8-16-32-64_R5-4-1"]),
)
def test_the_chain_and_every_candidate_are_the_same_where_the_intervals_hold(seed: int, dips: float, width: float, start: str) -> None:
    latency, miou = seeded(seed, dips)
    plain, all_measured = drive(Architecture.parse(start), 3, latency, miou)
    steps, measured = drive(Architecture.parse(start), 3, latency, miou, forecast=around(latency, width, seed))
    assert [step.target_ms for step in steps] == [step.target_ms for step in plain]
    for mine, theirs in zip(steps, plain, strict=True):
        assert [(t.candidate, t.outcome) for t in mine.trials] == [(t.candidate, t.outcome) for t in theirs.trials]
    # Intervals that exclude nothing may ask for a k that the search without them, which stops early, does not.
    assert len(measured) == len(set(measured)) <= len(set(all_measured)) + (2 if width == 3.0 else 0)


@pytest.mark.parametrize(("width", "share"), [(0.02, 0.45), (0.10, 0.75)])
def test_a_good_forecast_spares_many_measurements(width: float, share: float) -> None:
    latency, miou = seeded(1, 0.0)
    all_measured = drive(N0, 4, latency, miou)[1]
    measured = drive(N0, 4, latency, miou, forecast=around(latency, width))[1]
    assert len(measured) < share * len(all_measured)


def test_every_latency_in_the_record_was_measured_and_what_was_not_is_told() -> None:
    latency, miou = seeded(2, 0.3)
    steps, measured = drive(N0, 3, latency, miou, forecast=around(latency, 0.05))
    spared = 0
    for step in steps[1:]:
        assert all(trial.candidate.architecture in measured for trial in step.trials)
        for name, text in step.excluded.items():
            taken = {k for trial in step.trials for operation, k in trial.candidate.expansions if operation == name}
            ks = {int(part) for part in text.removeprefix("k = ").split(", ")}
            assert ks and not ks & taken
            spared += len(ks)
    assert spared > 10


def test_a_wrong_forecast_costs_the_nearest_k_but_never_a_made_up_latency() -> None:
    latency, miou = seeded(3, 0.0)

    def wrong(architecture: Architecture) -> tuple[float, float]:
        value = latency(architecture)
        assert not isinstance(value, Failure)
        return 3 * value, 3.1 * value

    steps, measured = drive(N0, 2, latency, miou, forecast=lambda relatives: wrong)
    for step in steps[1:]:
        for trial in step.trials:
            assert trial.candidate.latency_ms == latency(trial.candidate.architecture)
            assert trial.candidate.architecture in measured


def test_a_network_that_cannot_be_measured_ends_its_operation_there() -> None:
    whole, miou = seeded(4, 0.0)

    def failing(architecture: Architecture) -> float | Failure:
        return Failure("no memory") if architecture.depths[4] >= 3 else whole(architecture)

    steps, _ = drive(N0, 1, failing, miou, forecast=around(whole, 0.05))
    assert all(trial.candidate.architecture.depths[4] < 3 for trial in steps[1].trials)
    assert any("could not be measured: no memory" in text for text in steps[1].skipped.values())


def test_first_units_that_all_fail_stop_the_search() -> None:
    whole, miou = seeded(5, 0.0)

    def failing(architecture: Architecture) -> float | Failure:
        return whole(architecture) if architecture == N0 else Failure("broken")

    with pytest.raises(Exception, match=r"no expansion of .* could be measured"):
        drive(N0, 1, failing, miou, forecast=around(whole, 0.05))
