"""Layer tables and the predictor: what a module is made of, splines between rows, the fit, and its honesty about errors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latency.layers import STACK, Conv, LayerRow, Layers, layers_of, measure_layers, read_table, stack, write_table
from latency.measurement import TimingPlan
from latency.predict import FEATURES, MIN_GROUPS, LayerLookup, Prediction, Predictor, features, fit, report_errors
from latency.store import Store, default_store_path
from lpsnet.architecture import NAMED, Architecture
from lpsnet.complexity import complexity
from lpsnet.errors import UserError
from search.forecast import layers_of_architecture, load_predictor
from search.latency_space import random_architectures, relatives, table_convs
from search.space import OPERATIONS, expansion

SIZE = (96, 128)


def true_ms(conv: Conv) -> float:
    """A made-up device: a launch, memory traffic, and multiply-adds that narrow layers do badly."""
    traffic = conv.height * conv.width * (conv.channels_in + conv.channels_out) * 1e-7
    return 0.003 + traffic + conv.macs * 1e-8 * (1 + 8 / min(conv.channels_in, conv.channels_out))


def true_network_ms(layers: Layers) -> float:
    body = sum(1.2 * true_ms(conv) for conv in layers.convs if conv.kernel == 3)
    return body + layers.resized * 2e-7 + layers.operations * 0.001 + 0.02


ROWS = [LayerRow(conv, true_ms(conv), True) for conv in table_convs(SIZE)]


def networks(count: int, seed: int) -> list[Architecture]:
    return random_architectures(count, seed, SIZE, max_macs=2e8, exclude=set())


def families(parents: list[Architecture]) -> list[list[Layers]]:
    groups = relatives(parents, 0, SIZE, max_macs=2e8)
    return [[layers_of_architecture(one, 19, SIZE) for one in group] for group in groups]


def times(groups: list[list[Layers]], of: Callable[[Layers], float]) -> list[list[float]]:
    return [[of(one) for one in group] for group in groups]


def test_a_network_is_predicted_from_its_measured_relatives_more_narrowly_than_from_nothing() -> None:
    generator = random.Random(8)

    def timed(group: list[Layers]) -> list[float]:
        """Of what the predictor cannot see, relatives share most."""
        shared = generator.gauss(1, 0.1)
        return [true_network_ms(layers) * shared * generator.gauss(1, 0.005) for layers in group]

    seen = families(networks(18, 9))
    predictor = fit(ROWS, seen, [timed(group) for group in seen])
    assert predictor.step_high - predictor.step_low < 0.5 * (predictor.ratio_high - predictor.ratio_low)
    inside = []
    for group in (unseen := families(networks(10, 10))):
        *known, measured = timed(group)
        *relative, predicted = [predictor.predict(layers) for layers in group]
        ratios = [ms / one.latency_ms for ms, one in zip(known, relative, strict=True)]
        found = predictor.from_relatives(predicted, ratios)
        inside.append(found.low_ms <= measured <= found.high_ms)
    assert sum(inside) >= 0.8 * len(unseen)


def test_the_layers_of_a_network_have_its_multiply_adds() -> None:
    for architecture in (NAMED["N0"], NAMED["LPS-Net-S"], Architecture.parse("B1-2-1-2-2_C4-8-16-32-48_R8-4-2")):
        layers = layers_of_architecture(architecture, 19, SIZE)
        assert sum(conv.macs for conv in layers.convs) == complexity(architecture, 19, SIZE).macs
        assert len(layers.convs) == architecture.num_paths * sum(architecture.depths) + 1


def test_resizes_and_sums_are_counted_by_hand() -> None:
    layers = layers_of_architecture(Architecture.parse("B1-1-1-1-1_C4-8-16-32-32_R8-4"), 11, (64, 64))
    # Paths of 64 and 32 pixels: the input of the second; two sums after stages 3 (8, 4 pixels) and 4 (4, 2); one join.
    resized = 3 * 32 * 32 + 16 * (8 * 8 + 4 * 4) + 32 * (4 * 4 + 2 * 2) + 32 * 4 * 4
    sums, join = 16 * (8 * 8 + 4 * 4) + 32 * (4 * 4 + 2 * 2), 64 * 4 * 4
    assert layers.resized == resized
    assert layers.moved == sums + join


def test_layers_of_any_module_with_groups_and_strides() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, groups=4), nn.ReLU(), nn.Conv2d(8, 5, 1))
    found = layers_of(module, (10, 14), channels=4)
    assert found.convs == (Conv(4, 8, 10, 14, 2, 3, 4), Conv(8, 5, 5, 7, 1, 1, 1))
    assert found.convs[0].macs == 5 * 7 * 8 * 9 and found.operations == 2


def test_a_stack_is_equal_layers_where_shapes_allow() -> None:
    assert len([m for m in stack(Conv(6, 6, 8, 8)) if isinstance(m, nn.Conv2d)]) == STACK
    assert len([m for m in stack(Conv(6, 6, 8, 8, stride=2)) if isinstance(m, nn.Conv2d)]) == 1
    assert len([m for m in stack(Conv(6, 8, 8, 8)) if isinstance(m, nn.Conv2d)]) == 1
    assert stack(Conv(6, 12, 9, 8, stride=2))(torch.zeros(1, 6, 9, 8)).shape == (1, 12, 5, 4)


def test_layers_are_measured_once_and_a_table_is_written_and_read(tmp_path: Path) -> None:
    convs = [Conv(3, 4, 16, 16, 2), Conv(4, 4, 8, 8)]
    store = Store(default_store_path())
    plan = TimingPlan(warmup_s=0, min_samples=5, min_s=0)
    told: list[LayerRow] = []
    rows = measure_layers(convs, store=store, on_row=told.append, backend="torch", device="cpu", threads=1, plan=plan)
    assert told == rows and [row.conv for row in rows] == convs
    measured = store.all()
    last = {one.subject.split(" attempt")[0]: one.latency_ms for one in measured}  # unstable ones are taken again
    assert [row.latency_ms for row in rows] == pytest.approx([time / conv.depth for time, conv in zip(last.values(), convs, strict=True)])
    assert [conv.depth for conv in convs] == [1, STACK]
    assert measure_layers(convs, store=store, backend="torch", device="cpu", threads=1, plan=plan) == rows
    assert len(store.all()) == len(measured)
    store.close()
    write_table(tmp_path / "new" / "layers.csv", rows)
    again = read_table(tmp_path / "new" / "layers.csv")
    assert [row.conv for row in again] == convs
    assert [row.latency_ms for row in again] == pytest.approx([row.latency_ms for row in rows], rel=1e-5)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "channels_in\nx\n"])
def test_another_file_is_no_layer_table(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text + "\n1\n")
    with pytest.raises(ValueError, match=r"t\.csv is no layer table"):
        read_table(tmp_path / "t.csv")


def test_a_row_of_the_table_is_its_own_prediction_and_what_lies_between_is_near() -> None:
    lookup = LayerLookup(ROWS)
    known = [row.conv for row in ROWS]
    assert lookup.latency_ms(known) == pytest.approx([row.latency_ms for row in ROWS])
    generator = random.Random(3)
    between = [Conv(c := generator.choice((10, 20, 40, 80)), c, generator.randint(8, 40), generator.randint(8, 60)) for _ in range(50)]
    found = lookup.latency_ms(between)
    errors = np.abs(found / np.array([true_ms(conv) for conv in between]) - 1)
    assert np.median(errors) < 0.05 and errors.max() < 0.3


def test_a_table_of_too_few_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 convolutions of stride 2, it has 0"):
        LayerLookup([row for row in ROWS if row.conv.stride == 1])


def test_the_fit_predicts_unseen_networks_of_a_made_device() -> None:
    seen, unseen = networks(10, 0), networks(30, 1)
    layers = families(seen)
    predictor = fit(ROWS, layers, times(layers, true_network_ms))
    assert min(predictor.weights) >= 0
    others = [layers_of_architecture(one, 19, SIZE) for one in unseen if one not in seen]
    report = report_errors(
        [str(one) for one in unseen], [predictor.predict(one) for one in others], [true_network_ms(one) for one in others]
    )
    assert report.spearman > 0.99 and report.within_10_percent > 0.95
    assert predictor.ratio_low < 1 < predictor.ratio_high and predictor.step_low < 1 < predictor.step_high


def test_the_interval_holds_about_as_many_as_it_says_under_noise() -> None:
    generator = random.Random(1)
    seen, unseen = networks(14, 5), networks(40, 6)

    def noisy(layers: Layers) -> float:
        return true_network_ms(layers) * generator.gauss(1, 0.05)

    layers = families(seen)
    predictor = fit(ROWS, layers, times(layers, noisy))
    others = [layers_of_architecture(one, 19, SIZE) for one in unseen]
    report = report_errors([str(one) for one in unseen], [predictor.predict(one) for one in others], [noisy(one) for one in others])
    assert 0.8 < report.inside_interval <= 1


def test_too_few_networks_are_refused() -> None:
    layers = families([NAMED["N0"]]) * (MIN_GROUPS - 1)
    with pytest.raises(ValueError, match=f"at least {MIN_GROUPS} groups of measured networks, got {MIN_GROUPS - 1}"):
        fit(ROWS, layers, times(layers, lambda one: 1.0))


def test_the_error_report_against_arithmetic() -> None:
    predictions = [Prediction(value, 0.9 * value, 1.1 * value) for value in (1.0, 2.19, 3.0, 5.0)]
    report = report_errors(["a", "b", "c", "d"], predictions, [1.0, 2.0, 4.0, 5.3])
    assert report.within_10_percent == pytest.approx(0.75)
    assert report.worst == "c" and report.worst_error == pytest.approx(0.25)
    assert report.median_error == pytest.approx((0.095 + 0.3 / 5.3) / 2)
    assert report.spearman == pytest.approx(1.0) and report.inside_interval == pytest.approx(0.75)


def test_a_predictor_is_saved_and_loaded_and_another_version_is_refused(tmp_path: Path) -> None:
    layers = families(networks(10, 2))
    predictor = fit(ROWS, layers, times(layers, true_network_ms))
    write_table(tmp_path / "predictor_layers.csv", ROWS)
    predictor.save(tmp_path / "predictor.json", tmp_path / "predictor_layers.csv", seed=2)
    again = load_predictor(tmp_path)
    assert again.predict(layers[0][0]).latency_ms == pytest.approx(predictor.predict(layers[0][0]).latency_ms, rel=1e-4)
    text = (tmp_path / "predictor.json").read_text()
    (tmp_path / "predictor.json").write_text(text.replace("stride 1", "stride one"))
    with pytest.raises(UserError, match=r"it has the features .*stride one"):
        load_predictor(tmp_path)
    (tmp_path / "predictor.json").unlink()
    with pytest.raises(UserError, match=r"predictor\.json is missing; make one with lps-search latency-predictor"):
        load_predictor(tmp_path)


def test_features_are_the_sums_they_say() -> None:
    lookup = LayerLookup(ROWS)
    layers = layers_of_architecture(NAMED["N0"], 19, SIZE)
    body = [conv for conv in layers.convs if conv.kernel == 3]
    times = dict(zip(body, lookup.latency_ms(body), strict=True))
    found = dict(zip(FEATURES, features(lookup, layers), strict=True))

    def total(stride: int, least: int, most: float) -> float:
        return sum(times[c] for c in body[1:] if c.stride == stride and least < 9 * c.channels_in * c.channels_out <= most)

    for stride in (1, 2):
        assert found[f"stride {stride}, small"] == pytest.approx(total(stride, 0, 25_000))
        assert found[f"stride {stride}, medium"] == pytest.approx(total(stride, 25_000, 150_000))
        assert found[f"stride {stride}, large"] == pytest.approx(total(stride, 150_000, math.inf))
    assert found["first layer"] == pytest.approx(times[body[0]]) and found["constant"] == 1
    wide = layers_of_architecture(NAMED["LPS-Net-L"], 19, SIZE)
    told = dict(zip(FEATURES, features(lookup, wide), strict=True))
    assert all(told[name] > 0 for name in ("stride 1, medium", "stride 1, large", "stride 2, small", "stride 2, medium"))


def test_random_networks_are_distinct_reproducible_unseen_and_within_bounds() -> None:
    seen: set[Architecture] = set()
    first = random_architectures(20, 7, SIZE, max_macs=1e8, exclude=seen)
    assert len(set(first)) == 20 and set(first) == seen
    assert first == random_architectures(20, 7, SIZE, max_macs=1e8, exclude=set())
    more = random_architectures(20, 7, SIZE, max_macs=1e8, exclude=seen)
    assert not set(more) & set(first)
    assert all(complexity(one, 19, SIZE).macs <= 1e8 for one in first)


def test_the_table_spans_the_first_steps_of_a_search() -> None:
    convs = table_convs((360, 480))
    low, high = ({conv.channels_in for conv in convs}, {conv.channels_out for conv in convs})
    assert min(low) == 3 and max(high) == 256 and len(set(convs)) == len(convs)
    pixels = [conv.height * conv.width for conv in convs]
    for operation in OPERATIONS:
        for conv in layers_of_architecture(expansion(NAMED["N0"], operation, 1), 19, (360, 480)).convs[:-1]:
            assert conv.channels_in in low and conv.channels_out in high
            assert conv.height * conv.width >= min(pixels) / 4 and conv.height * conv.width <= max(pixels)


def test_a_loaded_predictor_needs_no_measurement(tmp_path: Path) -> None:
    layers = families(networks(10, 4))
    write_table(tmp_path / "predictor_layers.csv", ROWS)
    fit(ROWS, layers, times(layers, true_network_ms)).save(tmp_path / "predictor.json", tmp_path / "predictor_layers.csv")
    assert isinstance(load_predictor(tmp_path), Predictor)
    assert not default_store_path().exists()


def test_networks_are_looked_for_only_so_long() -> None:
    with pytest.raises(UserError, match=r"only 0 of 3 different networks .*N0 alone has 0.06.*raise --max-macs"):
        random_architectures(3, 0, (1024, 2048), max_macs=1e6, exclude=set())
