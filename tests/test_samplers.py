"""Searches on a made problem: what they ask, what they spend, and that the rivals are what they are called."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lpsnet import NAMED, Architecture
from lpsnet.architecture import TABLE_4
from lpsnet.complexity import complexity
from lpsnet.errors import UserError
from search import Measure, Train, expand
from search.bench import BOUNDS, BenchPlan, agreement, covered, draw, make_bench, surrogate
from search.cli import run
from search.observer import Observer
from search.pareto import front
from search.problem import Budgeted, OutOfBudget, Seen, Surrogate, features
from search.rivals import replay, summary
from search.samplers import SAMPLERS, Greedy, candidates, contractions, random_network, scaled, units_at
from search.space import OPERATIONS, Bounds, expansion
from search.training_table import Row, Setting, TrainingTable
from tests.processes import quick_workers
from tests.tiny import tiny_config, write_camvid

N0 = NAMED["N0"]
SMALL = Bounds(max_scale=1.0, max_width=256, max_depth=8, max_paths=2)


def latency(network: Architecture) -> float:
    return sum(b * c**1.2 for b, c in zip(network.depths, network.widths, strict=True)) * sum(s**2 for s in network.scales) / 3e4 + 0.1


def miou(network: Architecture) -> float:
    return 20 + 4 * math.log2(sum(network.widths)) + 3 * math.log2(sum(network.depths)) + 2 * math.log2(sum(network.scales))


def problem(trainings: float = 60) -> Budgeted:
    """Each training costs a second, a latency a hundredth."""
    return Budgeted(lambda a: (latency(a), 0.01), lambda a: (miou(a), 1.0), trainings)


class TestProblems:
    def test_each_network_is_paid_for_once_and_the_budget_ends_it(self) -> None:
        one = problem(2.0)
        assert one.miou(N0) == one.miou(N0) == pytest.approx(miou(N0))
        assert one.spent_s == pytest.approx(1.01)
        one.miou(TABLE_4[1])
        with pytest.raises(OutOfBudget):
            one.latency(TABLE_4[2])
        assert [seen.architecture for seen in one.seen] == [N0, TABLE_4[1]]
        assert one.seen[1].spent_s == pytest.approx(2.02)

    def test_a_surrogate_gives_back_what_it_was_fitted_to_and_foretells_what_lies_between(self) -> None:
        rng = random.Random(3)
        networks = list(dict.fromkeys(random_network(rng, N0, BOUNDS) for _ in range(90)))
        luck = np.random.default_rng(0).normal(0, 0.5, (len(networks), 2))
        mious = np.array([[miou(a)] * 2 for a in networks]) + luck
        fitted = Surrogate(networks[:60], mious[:60], [latency(a) for a in networks[:60]], [1.0 + latency(a) for a in networks[:60]])
        errors = [fitted.value("miou", a) - miou(a) for a in networks[60:]]
        ratios = [fitted.value("latency", a) / latency(a) for a in networks[60:]]
        assert np.sqrt(np.mean(np.square(errors))) < 2.0
        assert np.median(np.abs(np.log(ratios))) < 0.2
        assert fitted.seed_sd == pytest.approx(0.5, rel=0.35)
        assert np.sqrt(np.mean(fitted.left_out("miou") ** 2)) == fitted.quality()["miou_points"] < 2.5
        assert 0 < fitted.quality()["latency_share"] < 0.2

    def test_luck_is_that_of_the_seed_and_the_network(self) -> None:
        rng = random.Random(3)
        networks = list(dict.fromkeys(random_network(rng, N0, BOUNDS) for _ in range(20)))
        mious = np.array([[miou(a), miou(a) + 2] for a in networks])
        fitted = Surrogate(networks, mious, [latency(a) for a in networks], [1.0] * len(networks))
        assert fitted.problem(9.0, 1).miou(N0) == fitted.problem(9.0, 1).miou(N0) != fitted.problem(9.0, 2).miou(N0)

    def test_too_small_a_table(self) -> None:
        with pytest.raises(ValueError, match="at least 12 trained networks, the table has 1"):
            Surrogate([N0], np.array([[1.0]]), [1.0], [1.0])

    def test_features_tell_networks_apart(self) -> None:
        children = [expansion(N0, operation, 1) for operation in OPERATIONS[:9]]
        assert len({tuple(features(network)) for network in [N0, *children]}) == 10


class TestGreedy:
    def test_its_chain_is_that_of_algorithm_1(self) -> None:
        one, steps, answers, chain = problem(math.inf), 3, None, []
        search = expand(N0, steps=steps, bounds=SMALL)
        try:
            while True:
                request = search.send(answers)  # type: ignore[arg-type]
                answers = None
                if isinstance(request, Measure):
                    answers = {network: latency(network) for network in request.architectures}  # type: ignore[assignment]
                elif isinstance(request, Train):
                    answers = {c.architecture: miou(c.architecture) for c in request.candidates}  # type: ignore[assignment]
                else:
                    chain.append(request.chosen.architecture)  # type: ignore[union-attr]
        except StopIteration:
            pass
        members, found = [N0], [N0]
        for _ in range(steps):
            members = Greedy()._step(one, members, SMALL, N0)
            found += members
        assert found == chain

    def test_a_beam_keeps_more_and_sees_more(self) -> None:
        one = problem(math.inf)
        first = Greedy()._step(one, [N0], SMALL, N0)
        both = Greedy(beam=2)._step(one, [N0], SMALL, N0)
        assert len(both) == 2 and both[:1] == first

    def test_sweet_spots_leave_other_widths_out(self) -> None:
        one = problem(math.inf)
        ranked = Greedy(width_multiple=64)._ranked(one, N0, SMALL)
        assert all(network.widths == N0.widths or not any(w % 64 for w in network.widths[1:]) for _, network in ranked)
        assert len(ranked) < len(Greedy()._ranked(one, N0, SMALL))

    def test_caution_prefers_the_gain_that_is_large_against_its_error(self) -> None:
        values = {network: 30.0 + gain for network, gain in ((N0, 0.0), (TABLE_4[1], 1.5))}
        one = Budgeted(lambda a: (latency(a), 0.0), lambda a: (values.get(a, 30.0 + latency(a) * 9), 0.0), math.inf)
        plain, careful = Greedy()._ranked(one, N0, SMALL), Greedy(caution=1.0)._ranked(one, N0, SMALL)
        assert {network for _, network in plain} == {network for _, network in careful}
        assert all(after < before for (before, _), (after, _) in zip(plain, careful, strict=True))

    def test_contraction_takes_back_what_pays_least(self) -> None:
        deep = expansion(N0, OPERATIONS[2], 5)
        idle = Budgeted(lambda a: (latency(a), 0.0), lambda a: (20 + sum(a.widths) / 10, 0.0), math.inf)  # depth gains nothing
        smaller = Greedy(contract=True)._contracted(idle, expansion(deep, OPERATIONS[3], 1), 50.0, N0)
        assert sum(smaller.depths) < sum(deep.depths)

    def test_contraction_does_not_lead_round_in_circles(self) -> None:
        steps = 0

        class Counted(Greedy):
            def _step(self, *args: Any, **kwargs: Any) -> list[Architecture]:
                nonlocal steps
                steps += 1
                assert steps < 500, "the chain goes on and on"
                return super()._step(*args, **kwargs)

        one = Budgeted(lambda a: (latency(a), 0.0), lambda a: (20 + sum(a.widths) / 10 - sum(a.depths), 0.0), math.inf)
        Counted(contract=True)(one, N0, SMALL, 0)
        assert steps > 3

    def test_looking_ahead_follows_the_better_pair_of_steps(self) -> None:
        one = problem(math.inf)
        assert Greedy(look_ahead=True)._step(one, [N0], SMALL, N0)[0] in Greedy(beam=2)._step(one, [N0], SMALL, N0)

    def test_contractions_undo_an_operation(self) -> None:
        start = expansion(N0, OPERATIONS[8], 2)
        for operation in OPERATIONS[:9]:
            assert start in set(contractions(expansion(start, operation, 1), N0)), operation.name

    def test_nothing_is_contracted_below_the_start(self) -> None:
        assert not list(contractions(N0, N0))
        grown = expansion(expansion(N0, OPERATIONS[0], 1), OPERATIONS[7], 1)
        assert set(contractions(grown, N0)) == {expansion(N0, OPERATIONS[0], 1), expansion(N0, OPERATIONS[7], 1)} | {
            network for network in contractions(grown, N0) if network.scales == grown.scales
        }


class TestRivals:
    @pytest.mark.parametrize("name", SAMPLERS)
    def test_each_keeps_to_its_budget_and_the_space_and_repeats(self, name: str) -> None:
        found = []
        for _ in range(2):
            one = problem(40)
            SAMPLERS[name](one, N0, SMALL, 7)
            assert one.spent_s < 41.1 or name == "compound"
            assert all(SMALL.allow(seen.architecture) for seen in one.seen)
            assert len(one.seen) > 10
            found.append([seen.architecture for seen in one.seen])
        assert found[0] == found[1]

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_networks_that_do_not_count_are_not_trained(self, name: str) -> None:
        one = problem(200)
        one.slowest_ms = 2.0
        SAMPLERS[name](one, N0, SMALL, 3)
        slow = [seen for seen in one.seen if seen.latency_ms > 2.0]
        assert len(slow) <= (5 if name == "compound" else 0)  # of its grid
        assert len(one.seen) > 10 and any(1.0 < seen.latency_ms <= 2.0 for seen in one.seen)

    def test_a_model_begins_with_draws_like_those_at_random(self) -> None:
        rng, free = random.Random(5), Bounds(max_scale=9.0, max_width=10**6, max_depth=10**6, max_paths=3)
        drawn = [random_network(rng, N0, free).depths[1] - 1 for _ in range(3000)]
        shares = [units_at(min(rng.random(), 0.999)) for _ in range(3000)]
        assert np.mean([count > 0 for count in shares]) == pytest.approx(0.303, abs=0.04)
        assert np.mean(drawn) == pytest.approx(np.mean(shares), abs=0.1)

    def test_seeds_make_random_ones_differ(self) -> None:
        for name in ("random", "tpe", "nsga2"):
            runs = []
            for seed in (1, 2):
                one = problem(20)
                SAMPLERS[name](one, N0, SMALL, seed)
                runs.append([seen.architecture for seen in one.seen])
            assert runs[0] != runs[1], name

    def test_models_beat_chance_where_dimensions_must_grow_together(self) -> None:
        def together(network: Architecture) -> float:
            grown = (sum(network.depths) / 5, sum(network.widths) / 92, sum(network.scales) / 4)
            return 20 + 15 * min(map(math.log2, grown)) + sum(map(math.log2, grown))

        def area(name: str) -> float:
            total = 0.0
            for seed in range(3):
                one = Budgeted(lambda a: (latency(a), 0.0), lambda a: (together(a), 1.0), 100, slowest_ms=2.0)
                SAMPLERS[name](one, N0, SMALL, seed)
                total += covered(one.seen, [100.0], 2.0, 19.0)[0]
            return total

        assert min(area("tpe"), area("nsga2")) > area("random")

    def test_compound_scaling_grows_all_dimensions(self) -> None:
        grown = scaled(N0, (1.2, 1.1, 1.1), 4.0)
        assert sum(grown.depths) > sum(N0.depths) and grown.scales > N0.scales and all(w % 4 == 0 for w in grown.widths)
        assert scaled(N0, (1.0, 1.0, 1.0), 3.0) == N0

    def test_candidates_are_none_where_nothing_can_grow(self) -> None:
        assert candidates(problem(), N0, Bounds(max_scale=0.5, max_width=32, max_depth=1, max_paths=1)) == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real table, tiny: twelve networks, as few as a surrogate takes, trained for two iterations on noise."""
    from latency.store import Store

    base = tmp_path_factory.mktemp("bench")
    pytest.MonkeyPatch().setenv("LPS_SEARCH_LOCKS", str(base / "locks"))
    root = write_camvid(base / "camvid", {"train": 4, "val": 2}, (64, 96))
    quick = tiny_config().plan.__class__(min_s=0.0, warmup_s=0.0, max_s=0.1)
    config = tiny_config(data=f"camvid:{root}", height=64, width=96, plan=quick, backend="torch")
    plan = BenchPlan(networks=12, short=Setting(iterations=2), seeds=1, long_networks=2, long=Setting(iterations=3))
    with quick_workers():
        for _ in range(2):  # the second finds all of it
            make_bench(plan, config, Store(base / "store.sqlite"), base / "out", Observer())
    return base / "out"


class TestTheBench:
    def test_it_holds_each_network_once_with_its_trainings(self, folder: Path) -> None:
        networks, trainings = pd.read_csv(folder / "networks.csv"), pd.read_csv(folder / "trainings.csv")
        assert len(networks) == networks["architecture"].nunique() == 12
        assert trainings["setting"].value_counts().to_dict() == {"scratch-2": 12, "scratch-3": 2}
        assert (networks["latency_ms"] > 0).all() and trainings["miou_percent"].notna().all()

    def test_short_trainings_are_held_against_long_ones(self, tmp_path: Path) -> None:
        plan = BenchPlan(networks=8, short=Setting(iterations=2), seeds=2, long_networks=6, long=Setting(iterations=9))
        table, networks = TrainingTable(tmp_path / "trainings.csv"), [str(network) for network in draw(8, 0)]
        assert agreement(table, plan) is None
        for rank, name in enumerate(networks):
            for setting, seed, score in (("scratch-2", 0, rank), ("scratch-2", 1, -rank), ("scratch-9", 0, rank)):
                if setting == "scratch-2" or rank < 6:
                    table.add(Row(architecture=name, setting=setting, seed=seed, miou_percent=30.0 + score, seconds=1.0))
        found = agreement(table, plan)
        assert found is not None and found["networks"] == 6 and found["spearman"] == pytest.approx(0.0)  # one seed agrees, one does not

    def test_a_larger_draw_begins_with_the_smaller(self) -> None:
        assert draw(6, 0)[:4] == draw(4, 0)
        most = complexity(TABLE_4[5], 11, (360, 480)).macs
        assert all(complexity(network, 11, (360, 480)).macs < 1.4 * most for network in draw(6, 0))

    def test_searches_are_replayed_on_it(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = f"rival --sampler greedy,random --bench {folder} --short scratch-2 --seeds 3".split()
        assert run([*arguments, "--hours", "0.0001", "--latency-seconds", "0", "--out", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert "greedy" in shown and "no search found a network that counts" in shown  # trained for two iterations
        for hours in ("0", "inf"):
            assert run([*arguments, "--hours", hours, "--out", str(tmp_path)]) == 2
            assert "--hours must be above 0 and finite" in capsys.readouterr().err
        frame = pd.read_csv(tmp_path / "summary.csv")
        assert set(frame["sampler"]) == {"greedy", "random"} and (frame["seeds"] == 3).all()
        assert (tmp_path / "curves.png").stat().st_size > 5000

    def test_a_table_that_is_not_there_or_too_small(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        def complaint(*arguments: str) -> str:
            assert run([*arguments, "--out", str(tmp_path / "out")]) == 2
            return capsys.readouterr().err

        with pytest.raises(UserError, match="at least 12 trained networks, the table has 2"):
            surrogate(folder, "scratch-3")
        assert "the table has 0" in complaint("rival", "--bench", str(tmp_path))
        unknown = ["--sampler", "annealing", "--bench", str(folder), "--short", "scratch-2"]
        assert "unknown sampler 'annealing'; there are: greedy, random" in complaint("rival", *unknown)
        assert "a live search runs one sampler, got 11" in complaint("rival", "--live", "synthetic")


def test_a_summary_pairs_by_seed_at_the_cost_of_the_chain_and_at_the_end() -> None:
    rows = [
        {"sampler": name, "seed": seed, "ended_s": ended, "spent_s": at, "hypervolume": value * at + seed}
        for name, value, ended in (("greedy", 5.0, 6.0), ("random", 3.0, 15.0))
        for seed in range(3)
        for at in (5.0, 10.0, 15.0)
    ]
    first, second, third, fourth = summary(rows)
    assert [row["spent_s"] for row in (first, second, third, fourth)] == [10.0, 10.0, 15.0, 15.0]
    assert (first["sampler"], first["hypervolume"]) == ("greedy", pytest.approx(51.0))
    assert second["greedy_ahead"] == second["greedy_ahead_low"] == pytest.approx(20.0)
    assert fourth["greedy_ahead"] == pytest.approx(30.0)
    assert first["low"] < 51.0 < first["high"]
    assert [row["spent_s"] for row in summary([row for row in rows if row["sampler"] == "random"])] == [15.0]


def test_area_is_counted_as_it_was_spent() -> None:
    seen = [Seen(N0, 1.0, 30.0, 1.0), Seen(TABLE_4[1], 2.0, 40.0, 3.0)]
    early, late = covered(seen, [2.0, 4.0], 4.0, 20.0)
    assert early == pytest.approx(10 * math.log(4)) and late == pytest.approx(30 * math.log(2))
    assert front([(one.latency_ms, one.miou_percent) for one in seen]) == [0, 1]


def test_replays_are_the_same_for_the_same_seeds() -> None:
    rng = random.Random(3)
    networks = list(dict.fromkeys(random_network(rng, N0, BOUNDS) for _ in range(30)))
    mious = np.array([[miou(a), miou(a) + 1] for a in networks])
    fitted = Surrogate(networks, mious, [latency(a) for a in networks], [1.0] * len(networks))
    rows = [replay(fitted, ["greedy", "random"], 2, 30.0, Observer()) for _ in range(2)]
    assert rows[0] == rows[1] and len(rows[0][0]) == 2 * 2 * 40
    fronts = pd.DataFrame(rows[0][1])
    assert len(fronts) == 2 * 24 and (fronts["low"] <= fronts["miou_percent"]).all() and (fronts["miou_percent"] <= fronts["high"]).all()
    assert all(front["miou_percent"].is_monotonic_increasing for _, front in fronts.groupby("sampler"))


def test_a_replay_pays_for_latencies() -> None:
    rng = random.Random(3)
    networks = list(dict.fromkeys(random_network(rng, N0, BOUNDS) for _ in range(30)))
    fitted = Surrogate(
        networks, np.array([[miou(a), miou(a) + 1] for a in networks]), [latency(a) for a in networks], [1.0] * len(networks)
    )
    free, dear = (fitted.problem(10.0, 0, latency_s=price) for price in (0.0, 2.0))
    for problem in (free, dear):
        problem.miou(networks[0])
    assert dear.spent_s == pytest.approx(free.spent_s + 2.0)
