"""Latency as a value: statistics, verdicts, and the keys by which conditions and environments are told apart."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.measurement import BOUNDARIES, MIN_SAMPLES_EVER, PRECISIONS, Conditions, Environment, Measurement, TimingPlan

CONDITIONS = Conditions(backend="ort", device="cpu", shape=(1, 3, 64, 128), boundary="scores")
HERE = Environment(device="Some CPU", cores=2, driver="", versions={"onnxruntime": "1.31.1", "torch": "2.13.0"})

milliseconds = st.floats(1e-3, 1e3)
samples = st.lists(milliseconds, min_size=MIN_SAMPLES_EVER, max_size=60)
plans = st.builds(
    TimingPlan,
    warmup_s=st.floats(0, 10),
    min_samples=st.integers(MIN_SAMPLES_EVER, 1000),
    min_s=st.floats(0, 10),
    max_s=st.floats(0.001, 100),
)
all_conditions = st.builds(
    Conditions,
    backend=st.text(max_size=8),
    device=st.just("cuda"),  # on a CPU there is one precision
    cuda_graph=st.booleans(),
    shape=st.tuples(st.just(1), st.integers(1, 64), st.integers(1, 4096), st.integers(1, 4096)),
    boundary=st.sampled_from(BOUNDARIES),
    precision=st.sampled_from(PRECISIONS),
    threads=st.integers(1, 64),
    plan=plans,
)
environments = st.builds(
    Environment,
    device=st.text(max_size=8),
    cores=st.integers(1, 256),
    driver=st.text(max_size=8),
    versions=st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4),
)


def measurement(values: list[float] | tuple[float, ...], clock: str = "perf_counter") -> Measurement:
    return Measurement(
        subject="net",
        conditions=CONDITIONS,
        environment=HERE,
        samples_ms=tuple(values),
        clock=clock,
        warmup_runs=3,
        load_s=0.5,
        created="2026-01-01T00:00:00+00:00",
        found={"providers": ["CPUExecutionProvider"]},
    )


@given(samples, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    assert measurement(values).percentile_ms(percent) == pytest.approx(np.percentile(values, percent), rel=1e-9)


@given(samples)
def test_latency_is_the_median_whatever_the_order(values: list[float]) -> None:
    taken = measurement(values)
    assert taken.latency_ms == pytest.approx(np.median(values), rel=1e-12)
    assert taken.latency_ms == measurement(values[::-1]).latency_ms == pytest.approx(taken.percentile_ms(50), rel=1e-12)


@given(samples)
def test_spread_is_the_interquartile_range_over_the_median(values: list[float]) -> None:
    low, middle, high = np.percentile(values, [25, 50, 75])
    assert measurement(values).spread == pytest.approx((high - low) / middle, rel=1e-9, abs=1e-12)


@given(samples)
def test_coefficient_of_variation_is_the_sample_deviation_over_the_mean(values: list[float]) -> None:
    assert measurement(values).coefficient_of_variation == pytest.approx(np.std(values, ddof=1) / np.mean(values), rel=1e-6, abs=1e-9)


def test_even_samples_are_stable() -> None:
    verdict = measurement([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.0]).verdict()
    assert verdict.stable
    assert verdict.reasons == ()


def test_single_interruptions_do_not_make_samples_unstable() -> None:
    assert measurement([1.0] * 14 + [30.0] + [1.0] * 14 + [50.0]).verdict().stable


def test_a_wide_spread_is_unstable_and_says_so() -> None:
    verdict = measurement([1.0, 1.4] * 10).verdict()
    assert not verdict.stable
    assert len(verdict.reasons) == 1
    assert "interquartile range 33.3% of the median, above 10.0%" in verdict.reasons[0]


def test_the_limit_of_the_spread_is_tighter_for_device_events_than_for_the_host_clock() -> None:
    values = [1.0, 1.06] * 10
    assert measurement(values, "perf_counter").verdict().stable
    assert "above 2.5%" in measurement(values, "cuda-events").verdict().reasons[0]


@pytest.mark.parametrize(("second", "shown"), [(1.08, "+8.0%"), (0.93, "-7.0%")])
def test_a_drift_is_unstable_and_says_its_direction(second: float, shown: str) -> None:
    verdict = measurement([1.0] * 10 + [second] * 10).verdict()
    assert not verdict.stable
    assert len(verdict.reasons) == 1
    assert f"median drifted by {shown}" in verdict.reasons[0]


def test_spread_and_drift_are_both_told() -> None:
    reasons = measurement([1.0] * 10 + [2.0] * 10).verdict().reasons
    assert len(reasons) == 2
    assert "interquartile" in reasons[0]
    assert "+100.0%" in reasons[1]


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 samples"):
        measurement([1.0] * (MIN_SAMPLES_EVER - 1))
    assert len(measurement([1.0] * MIN_SAMPLES_EVER).samples_ms) == MIN_SAMPLES_EVER


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 5])
def test_samples_that_are_not_finite_and_above_zero_are_refused(wrong: float, place: int) -> None:
    values = [1.0] * 10
    values[place] = wrong
    with pytest.raises(ValueError, match="above 0"):
        measurement(values)


def test_a_summary_is_plain_and_says_what_the_measurement_says() -> None:
    taken = measurement([1.0, 1.4] * 10)
    summary = taken.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["latency_ms"], summary["min_ms"], summary["samples"]) == (taken.latency_ms, 1.0, 20)
    assert (summary["p90_ms"], summary["p99_ms"]) == (taken.percentile_ms(90), taken.percentile_ms(99))
    assert (summary["spread"], summary["coefficient_of_variation"]) == (taken.spread, taken.coefficient_of_variation)
    assert (summary["stable"], summary["reasons"]) == (False, list(taken.verdict().reasons))
    assert (summary["device"], summary["shape"], summary["boundary"]) == ("Some CPU", [1, 3, 64, 128], "scores")


@given(all_conditions)
def test_the_key_of_conditions_has_an_inverse(conditions: Conditions) -> None:
    again = Conditions.from_key(conditions.key())
    assert again == conditions
    assert again.key() == conditions.key()


@given(all_conditions, all_conditions)
def test_keys_of_conditions_are_equal_just_where_the_conditions_are(one: Conditions, other: Conditions) -> None:
    assert (one.key() == other.key()) == (one == other)


def test_equal_conditions_written_with_whole_and_decimal_seconds_share_a_key() -> None:
    whole = dataclasses.replace(CONDITIONS, plan=TimingPlan(warmup_s=0, min_s=1, max_s=20))
    decimal = dataclasses.replace(CONDITIONS, plan=TimingPlan(warmup_s=0.0, min_s=1.0, max_s=20.0))
    assert whole == decimal
    assert whole.key() == decimal.key()


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "torch"},
        {"device": "cuda"},
        {"shape": (1, 3, 128, 64)},
        {"boundary": "labels"},
        {"threads": 2},
        {"plan": TimingPlan(min_samples=31)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_condition_counts_in_the_key(change: dict[str, object]) -> None:
    assert dataclasses.replace(CONDITIONS, **change).key() != CONDITIONS.key()


def test_an_unknown_device_boundary_or_precision_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown device 'tpu'.*cpu, cuda"):
        dataclasses.replace(CONDITIONS, device="tpu")
    with pytest.raises(ValueError, match=r"unknown boundary 'pixels'.*scores, logits, labels"):
        dataclasses.replace(CONDITIONS, boundary="pixels")
    with pytest.raises(ValueError, match=r"unknown precision 'fp8'.*fp32"):
        dataclasses.replace(CONDITIONS, precision="fp8")


@given(environments)
def test_the_key_of_an_environment_has_an_inverse(environment: Environment) -> None:
    assert Environment.from_key(environment.key()) == environment


@given(environments, environments)
def test_environments_differ_in_key_and_in_differences_together(one: Environment, other: Environment) -> None:
    assert (one.key() == other.key()) == (one == other)
    assert (one.differences(other) == []) == (one == other)


def test_the_key_of_an_environment_does_not_depend_on_the_order_of_its_versions() -> None:
    turned = dataclasses.replace(HERE, versions=dict(reversed(HERE.versions.items())))
    assert list(turned.versions) != list(HERE.versions)
    assert turned.key() == HERE.key()


def test_differences_of_environments_name_device_and_versions_with_both_values() -> None:
    there = Environment(device="Other CPU", cores=2, driver="", versions={"onnxruntime": "1.32.0", "onnxscript": "0.7.2"})
    assert HERE.differences(there) == [
        "device: 'Some CPU', not 'Other CPU'",
        "onnxruntime: '1.31.1', not '1.32.0'",
        "onnxscript: None, not '0.7.2'",
        "torch: '2.13.0', not None",
    ]
    assert HERE.differences(dataclasses.replace(HERE, cores=4, driver="580")) == ["cores: 2, not 4", "driver: '', not '580'"]


@pytest.mark.parametrize("wrong", [{"warmup_s": -0.1}, {"min_s": -1.0}, {"max_s": 0.0}, {"max_s": -1.0}], ids=str)
def test_a_plan_refuses_negative_times(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        TimingPlan(**wrong)


def test_a_plan_refuses_fewer_samples_than_a_measurement_needs() -> None:
    with pytest.raises(ValueError, match="min_samples must be at least 5, got 4"):
        TimingPlan(min_samples=MIN_SAMPLES_EVER - 1)
    assert TimingPlan(warmup_s=0, min_samples=MIN_SAMPLES_EVER, min_s=0).min_samples == MIN_SAMPLES_EVER
