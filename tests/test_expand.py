"""Algorithm 1 against an independent brute-force reading of section 3.4, the paper's Table 4, and every awkward case."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet import NAMED, Architecture
from search import OPERATIONS, Bounds, Failure, SearchStopped, Step, expansion
from search.decide import decide, slope
from search.step import Candidate, Member
from tests.searches import SMALL, Function, drive, seeded, settled

N0 = NAMED["N0"]


# --- an independent reading of the fact sheet, section 11: no code shared with search.space or search.expand ---

UNITS = {
    "depth-2": ("B", (0, 1, 1, 1, 1)), "depth-3": ("B", (0, 0, 1, 1, 1)), "depth-4": ("B", (0, 0, 0, 1, 1)),
    "width-1": ("C", (4, 8, 16, 32, 32)), "width-2": ("C", (0, 8, 16, 32, 32)),
    "width-3": ("C", (0, 0, 16, 32, 32)), "width-4": ("C", (0, 0, 0, 32, 32)),
    "scale-1": ("R", (1, 0, 0)), "scale-2": ("R", (0, 1, 0)), "scale-3": ("R", (0, 0, 1)),
}  # fmt: skip


def brute_child(parent: Architecture, name: str, k: int) -> Architecture:
    letter, unit = UNITS[name]
    b, c, r = list(parent.depths), list(parent.widths), list(parent.scales) + [0] * (3 - len(parent.scales))
    values = {"B": b, "C": c, "R": r}[letter]
    for index, step in enumerate(unit):
        values[index] += k * step
    return Architecture(tuple(b), tuple(c), tuple(r))


def brute_legal(a: Architecture) -> bool:
    return max(a.depths) <= 7 and max(a.widths) <= 192 and max(a.scales) <= 8


def brute_chain(start: Architecture, steps: int, latency: Function, miou: Function) -> list[Architecture]:
    """Every legal k of every operation is looked at; then Eq. 3, 4 and 5 are read off."""
    chain = [start]
    for _ in range(steps):
        parent = chain[-1]
        units = [brute_child(parent, name, 1) for name in UNITS]
        target = max(latency(child) for child in units if brute_legal(child))
        best: tuple[float, float, float] | None = None
        taken = parent
        for name in UNITS:
            ladder = []
            while brute_legal(brute_child(parent, name, len(ladder) + 1)):
                ladder.append(brute_child(parent, name, len(ladder) + 1))
            if not ladder:
                continue
            c = next((k for k, child in enumerate(ladder, 1) if latency(child) >= target), len(ladder))
            child = min(ladder[: c + 3], key=lambda child: (abs(latency(child) - target), ladder.index(child)))
            gain, cost = miou(child) - miou(parent), latency(child) - latency(parent)
            value = gain / cost if cost > 0 else (math.inf if gain > 0 else -math.inf)
            rank = (value, miou(child), -latency(child))
            if best is None or rank > best:
                best, taken = rank, child
        chain.append(taken)
    return chain


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dips=st.sampled_from([0.0, 0.3, 0.7]),
    start=st.sampled_from(["N0", "B1-2-1-1-3_C4-8-16-32-32_R4-2", "B1-1-1-1-1_C8-8-16-32-64_R5-4-1"]),
)
def test_chain_equals_a_brute_force_reading_of_the_paper(seed: int, dips: float, start: str) -> None:
    latency, miou = seeded(seed, dips)
    steps, measured = drive(Architecture.parse(start), 3, latency, miou)
    assert [step.chosen.architecture for step in steps] == brute_chain(Architecture.parse(start), 3, latency, miou)
    assert len(measured) == len(set(measured)), "a network was asked for twice"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_candidate_of_a_step_is_another_network_inside_the_bounds_and_none_is_its_parent(seed: int) -> None:
    latency, miou = seeded(seed, 0.7)
    for step in drive(N0, 3, latency, miou)[0][1:]:
        networks = [trial.candidate.architecture for trial in step.trials]
        assert len(networks) == len(set(networks))
        assert all(SMALL.allow(network) for network in networks)
        assert step.parent is not None and step.parent.architecture not in networks


# --- the paper's own numbers ---

SHEET_SLOPES = ["157.3", "85.7", "12.6", "8.5", "4.0", "3.15", "1.79", "1.89", "0.68", "0.24", "0.21", "0.18", "0.16", "0.10"]


def table_4() -> list[tuple[Architecture, float, float]]:
    lines = (Path(__file__).parent / "data" / "table4.csv").read_text().splitlines()
    return [(Architecture.parse(row["network"]), float(row["latency_ms"]), float(row["miou_percent"])) for row in csv.DictReader(lines)]


@pytest.mark.parametrize("number", range(1, 15))
def test_each_step_of_table_4_is_found_again_from_its_latencies_and_miou_with_the_slope_of_the_fact_sheet(number: int) -> None:
    """The rivals reach the target with one unit and gain a tenth less, so Eq. 3 to 5 must find the published row."""
    (parent, low, p), (child, high, q) = table_4()[number - 1 : number + 1]
    latency, miou = {parent: low}, {parent: p}
    for name in UNITS:
        ladder = [brute_child(parent, name, k) for k in range(1, 14)]
        reach = ladder.index(child) + 1 if child in ladder else 1
        for k, network in enumerate(ladder, 1):
            latency.setdefault(network, low + (high - low) * k / reach if k < reach else high + (k - reach) * high)
            miou.setdefault(network, q if network == child else p + 0.9 * (q - p))
    wide = Bounds(max_scale=4.0, max_width=10**4, max_depth=100)
    step = drive(parent, 1, latency.__getitem__, miou.__getitem__, wide)[0][1]
    assert step.chosen.architecture == child and step.target_ms == high
    printed = SHEET_SLOPES[number - 1]
    assert step.chosen_trial.slope == pytest.approx(float(printed), abs=0.51 * 10 ** -len(printed.partition(".")[2]))


def test_the_published_networks_are_reached_by_the_operations_and_k_of_the_fact_sheet() -> None:
    expected = "depth-4 7,width-2 1,width-1 1,scale-1 1,depth-2 2,scale-2 2,scale-1 1,scale-1 2,width-3 1,width-4 1"
    expected += ",scale-1 1,scale-1 2,width-2 1,width-3 1"
    by_name = {operation.name: operation for operation in OPERATIONS}
    for (parent, child), text in zip(itertools.pairwise(a for a, _, _ in table_4()), expected.split(","), strict=True):
        name, k = text.split()
        assert expansion(parent, by_name[name], int(k)) == child


# --- k ---


def only(*names: str) -> Function:
    """An accuracy that gains by the named operations alone, so that they are chosen."""
    return lambda a: 50.0 + (10.0 if any(a == brute_child(N0, name, k) for name in names for k in range(1, 12)) else 0.0)


def ladder_latency(name: str, values: list[float], others: float) -> Function:
    """N0 takes 1 ms, one operation's k = 1, 2, ... take `values`, everything else takes `others`."""
    table = {brute_child(N0, name, k): value for k, value in enumerate(values, 1)} | {N0: 1.0}
    return lambda a: table.get(a, others)


def found_k(values: list[float], target: float) -> int:
    step = drive(N0, 1, ladder_latency("depth-4", values, target), only("depth-4"), Bounds(max_depth=1 + len(values)))[0][1]
    assert step.target_ms == target
    return dict(step.chosen_trial.candidate.expansions)["depth-4"]


@pytest.mark.parametrize(
    ("values", "k"),
    [
        ([1.2, 1.6, 1.9, 2.4, 3, 4, 5], 3),  # 1.9 is nearer to 2 than 2.4
        ([1.2, 1.6, 2.3, 3, 4, 5, 6], 3),  # 2.3 is nearer than 1.6
        ([1.2, 2.4, 2.05, 3, 4, 5], 3),  # a dip one beyond the first at or above the target
        ([1.2, 2.4, 2.3, 2.2, 2.05, 9], 5),  # a dip at c + 3 is still seen
        ([1.2, 2.4, 2.3, 2.3, 2.3, 2.05], 3),  # one at c + 4 is not
        ([1.2, 1.8, 2.2, 3, 4, 5], 2),  # equally near: the smaller k
        ([1.2, 1.5, 1.7], 3),  # the bounds end before the target is reached
        ([1.2, 2.0, 2.0, 2.0, 2.0, 2.0], 2),  # a gap of 0
    ],
)  # fmt: skip
def test_k_is_the_arg_min_of_the_distance_to_the_target(values: list[float], k: int) -> None:
    assert found_k(values, 2.0) == k


def test_a_gap_of_0_ends_the_trying_of_larger_k() -> None:
    _, measured = drive(N0, 1, ladder_latency("depth-4", [1.5, 2.0, 2.1, 2.2, 2.3], 2.0), only("depth-4"))
    assert brute_child(N0, "depth-4", 2) in measured and brute_child(N0, "depth-4", 3) not in measured


def test_no_more_than_three_k_beyond_the_target_are_measured() -> None:
    _, measured = drive(N0, 1, ladder_latency("depth-4", [1.5, 2.5, 2.6, 2.7, 2.8, 2.9], 2.0), only("depth-4"))
    assert brute_child(N0, "depth-4", 5) in measured and brute_child(N0, "depth-4", 6) not in measured


# --- equal candidates, ties, free gains, failures, bounds ---


def test_the_second_and_third_scale_operation_are_one_candidate_on_a_one_path_network() -> None:
    latency, miou = seeded(1, 0.0)
    trials = drive(N0, 1, latency, miou)[0][1].trials
    (joined,) = [trial for trial in trials if len(trial.candidate.expansions) > 1]
    assert [name for name, _ in joined.candidate.expansions] == ["scale-2", "scale-3"]
    assert len(trials) == 9


PARENT = Member(N0, 2.0, 50.0)


def outcomes(*pairs: tuple[float, float | Failure]) -> Step:
    """Decide among candidates given as (latency, mIoU), in the order of Table 1."""
    candidates = tuple(Candidate(brute_child(N0, name, 1), ((name, 1),), ms) for name, (ms, _) in zip(UNITS, pairs, strict=False))
    answers = {candidate.architecture: outcome for candidate, (_, outcome) in zip(candidates, pairs, strict=True)}
    return settled(decide(1, PARENT, 3.0, candidates, answers, {}), {})


def winner(*pairs: tuple[float, float | Failure]) -> int:
    step = outcomes(*pairs)
    return step.trials.index(step.chosen_trial)


def test_the_largest_slope_wins_and_is_taken_against_the_parents_latency_not_its_miou() -> None:
    assert winner((3.0, 54.0), (4.0, 57.0)) == 0
    assert outcomes((3.0, 54.0)).chosen_trial.slope == 4.0


def test_equal_slopes_go_to_the_larger_gain_then_the_lower_latency_then_the_order_of_the_table() -> None:
    assert winner((3.0, 52.0), (4.0, 54.0)) == 1
    assert winner((1.9, 51.0), (1.5, 51.0)) == 1
    assert winner((3.0, 52.0), (3.0, 52.0)) == 0


def test_a_candidate_not_slower_than_its_parent_wins_if_it_gains_and_loses_if_it_does_not() -> None:
    assert winner((3.0, 60.0), (2.0, 50.1)) == 1
    assert winner((3.0, 50.1), (1.5, 50.0)) == 0
    assert winner((3.0, 49.0), (1.5, 49.9)) == 0
    assert slope(0.0, 0.0) == -math.inf and slope(1.0, -1.0) == math.inf
    assert any("not slower" in warning for warning in outcomes((3.0, 60.0), (2.0, 50.1)).warnings)


def test_where_every_gain_is_negative_the_largest_slope_is_taken_with_a_warning() -> None:
    step = outcomes((3.0, 49.0), (3.0, 49.5), (4.0, 48.9))
    assert step.trials.index(step.chosen_trial) == 1
    assert any("no candidate gains" in warning for warning in step.warnings)


def test_a_failed_training_is_recorded_and_passed_over_and_all_failing_stops_with_every_reason() -> None:
    step = outcomes((3.0, Failure("loss is nan")), (3.0, 51.0))
    assert step.trials.index(step.chosen_trial) == 1
    assert step.trials[0].outcome == Failure("loss is nan") and math.isnan(step.trials[0].slope)
    with pytest.raises(SearchStopped, match=r"every candidate failed.*depth-2: a.*depth-3: b"):
        outcomes((3.0, Failure("a")), (3.0, Failure("b")))


def test_a_failed_measurement_ends_its_operation_there_and_what_lies_before_counts() -> None:
    third = brute_child(N0, "depth-4", 3)
    base = ladder_latency("depth-4", [1.2, 1.5, 0.0, 1.9], 2.0)
    step = drive(N0, 1, lambda a: Failure("no kernel") if a == third else base(a), only("depth-4"))[0][1]
    assert step.chosen_trial.candidate.expansions == (("depth-4", 2),)
    assert "k = 3" in step.skipped["depth-4"] and "no kernel" in step.skipped["depth-4"]


def test_a_failed_first_unit_counts_neither_as_a_candidate_nor_for_the_target() -> None:
    first = brute_child(N0, "scale-1", 1)
    base = ladder_latency("scale-1", [9.0], 2.0)
    step = drive(N0, 1, lambda a: Failure("too large") if a == first else base(a), lambda a: 50.0)[0][1]
    assert step.target_ms == 2.0 and "scale-1" in step.skipped
    assert all(name != "scale-1" for trial in step.trials for name, _ in trial.candidate.expansions)


def test_a_start_that_fails_or_a_step_where_nothing_can_be_measured_stops_the_search() -> None:
    with pytest.raises(SearchStopped, match="could not be measured: gone"):
        drive(N0, 1, lambda a: Failure("gone"), lambda a: 1.0)
    with pytest.raises(SearchStopped, match="could not be trained: nan"):
        drive(N0, 1, lambda a: 1.0, lambda a: Failure("nan"))
    with pytest.raises(SearchStopped, match="no expansion"):
        drive(N0, 1, lambda a: 1.0 if a == N0 else Failure("x"), lambda a: 1.0)


def test_bounds_keep_the_space_and_a_start_outside_is_refused() -> None:
    tight = Bounds(max_scale=0.5, max_width=32, max_depth=2, max_paths=1)
    step = drive(N0, 1, lambda a: float(sum(a.depths)), lambda a: 1.0, tight)[0][1]
    assert {name for trial in step.trials for name, _ in trial.candidate.expansions} == {"depth-2", "depth-3", "depth-4"}
    assert set(step.skipped) == {operation.name for operation in OPERATIONS if operation.dimension != "depth"}
    with pytest.raises(SearchStopped, match="outside the bounds"):
        drive(Architecture.parse("B1-1-1-1-1_C4-8-16-32-32_R5"), 1, lambda a: 1.0, lambda a: 1.0, tight)
    with pytest.raises(SearchStopped, match="no expansion"):
        drive(N0, 1, lambda a: 1.0, lambda a: 1.0, Bounds(max_scale=0.5, max_width=32, max_depth=1, max_paths=1))


def test_scales_stop_at_twice_the_input_by_default() -> None:
    start = Architecture.parse("B1-1-1-1-1_C4-8-16-32-32_R16")
    step = drive(start, 1, lambda a: float(sum(a.depths) + sum(a.scales)), lambda a: 1.0, Bounds())[0][1]
    assert "scale-1" in step.skipped and max(max(t.candidate.architecture.scales) for t in step.trials) == 16


def test_no_step_means_the_start_alone() -> None:
    steps, measured = drive(N0, 0, lambda a: 1.0, lambda a: 1.0)
    assert [step.number for step in steps] == [0] and measured == [N0]


def test_a_fourth_path_of_the_start_is_left_as_it_is() -> None:
    start = Architecture.parse("B1-1-1-1-1_C4-8-16-32-32_R8-6-4-2")
    step = drive(start, 1, lambda a: float(sum(a.scales) + sum(a.widths) + sum(a.depths)), lambda a: 1.0, Bounds(max_paths=4))[0][1]
    scaled = [t.candidate.architecture for t in step.trials if t.candidate.expansions[0][0].startswith("scale")]
    assert scaled and all(2 in network.scales for network in scaled)
