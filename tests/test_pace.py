"""Whether the machine is as fast as it was: what a measurement on a CPU says of it, and how long it is waited for."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import pytest
from torch import Tensor, nn

from latency import TimingPlan, measure, pace
from latency.measurement import MAX_OTHER_CORES, MAX_SLOWNESS, Measurement
from latency.pace import Pace, Patience
from latency.store import Store


class Fake:
    """Says how slow the machine is, turn by turn, and counts who asks and how long was slept."""

    def __init__(self, values: list[float], others: float = 0.0) -> None:
        self.values, self.others, self.asked, self.slept = values, others, 0, 0.0

    def slowness(self) -> float:
        self.asked += 1
        return self.values[min(self.asked, len(self.values)) - 1]

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def cores(self) -> float:
        return self.others


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def make(values: list[float], others: float = 0.0) -> Fake:
        found = Fake(values, others)
        monkeypatch.setattr(pace.time, "sleep", found.sleep)
        monkeypatch.setattr(pace, "OtherWork", lambda: found)
        monkeypatch.setattr(pace, "available_cores", lambda: 2)
        return found

    return make


def test_slowness_is_over_the_least_time_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2.0, 1.0, 1.5, 0.5, 1.0])
    clock = {"now": 0.0, "step": 0.0}

    def tick() -> float:
        clock["now"] += clock["step"] / 2  # each run reads the clock twice
        return clock["now"]

    found = Pace(1)
    monkeypatch.setattr(found, "_session", type("Session", (), {"run": staticmethod(lambda outputs, image: tick())})())
    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock["now"])
    slow = []
    for step in times:
        clock["step"] = 2 * step
        slow.append(round(found.slowness(), 6))
    assert slow == [1.0, 1.0, 1.5, 1.0, 2.0]


def test_the_graph_runs_and_is_never_faster_than_its_best() -> None:
    found = Pace(1)
    assert found.slowness() == 1.0
    assert all(1.0 <= found.slowness() < math.inf for _ in range(3))


def test_a_fast_machine_is_not_waited_for(fake: Callable[..., Fake]) -> None:
    machine = fake([MAX_SLOWNESS])
    Patience().settle(machine.slowness, threads=2)
    assert (machine.asked, machine.slept) == (1, 0.0)


def test_a_slow_machine_is_waited_for_until_it_is_fast_again(fake: Callable[..., Fake]) -> None:
    machine = fake([2.0, 2.1, 1.9, 1.0])
    Patience().settle(machine.slowness, threads=2)
    assert (machine.asked, machine.slept) == (4, 3.0)


def test_patience_ends_and_comes_back_once_the_machine_was_fast(fake: Callable[..., Fake]) -> None:
    patience, slow = Patience(5.0), fake([2.0])
    patience.settle(slow.slowness, threads=2)
    assert slow.slept == 5.0
    patience.settle(slow.slowness, threads=2)
    assert slow.slept == 5.0
    fast = fake([1.0])
    patience.settle(fast.slowness, threads=2)
    slow = fake([2.0])
    patience.settle(slow.slowness, threads=2)
    assert slow.slept == 5.0


@pytest.mark.parametrize(("threads", "others", "waits"), [(2, 2 * MAX_OTHER_CORES, 1.0), (1, 1.0, 5.0), (1, 1.5, 1.0)])
def test_what_processes_of_its_own_take_is_not_waited_for(fake: Callable[..., Fake], threads: int, others: float, waits: float) -> None:
    machine = fake([2.0], others)
    Patience(5.0).settle(machine.slowness, threads)
    assert machine.slept == waits


class Scores(nn.Module):
    """A network with one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def scores(self, image: Tensor) -> Tensor:
        found: Tensor = self.layer(image)
        return found


def quick(min_s: float, store: Store | None = None, subject: str = "") -> Measurement:
    plan = TimingPlan(warmup_s=0, min_samples=5, min_s=min_s)
    return measure(Scores(), size=(16, 16), threads=1, plan=plan, store=store, subject=subject)


def test_a_measurement_on_a_slow_machine_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = chain([1.0, 1.1], repeat(3.0))
    monkeypatch.setattr(sys.modules["latency.measure"], "slowness", lambda threads: next(told))
    store = Store(tmp_path / "latency.sqlite")
    found = quick(1e-3, store, "slow")
    assert (found.found["state"]["slowness"], found.found["state"]["slow_samples"]) == (3.0, 0)
    verdict = store.all()[0].verdict()
    assert not verdict.stable
    assert any("3.0 times as long as before: the machine is slower" in reason for reason in verdict.reasons)
    slower = {**found.found["state"], "slowness": MAX_SLOWNESS}
    usual = dataclasses.replace(found, found={**found.found, "state": slower})
    assert not any("small graph" in reason for reason in usual.verdict().reasons)


def test_a_quick_look_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["latency.measure"], "slowness", lambda threads: pytest.fail("asked"))
    assert "slowness" not in quick(0.0).found["state"]
