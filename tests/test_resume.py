"""A training that is stopped, killed, or loses its loss: it goes on as if nothing had happened, or says what did."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lpsnet.architecture import NAMED
from lpsnet.checkpoint import CheckpointError
from lpsnet.network import LPSNet
from lpsnet.recipe import TrainRecipe
from lpsnet.resume import Keeper
from lpsnet.training import Curve, Paused, Point, TrainingFailed, fit
from search.cli import main
from tests.processes import Process
from tests.test_training import few
from tests.tiny import few_frames

N0 = NAMED["N0"]
RECIPE = TrainRecipe(iterations=12, batch_size=2, warmup_iterations=2, jitter=0.4, ema_decay=0.8)


def network(seed: int = 3) -> LPSNet:
    torch.manual_seed(seed)
    return LPSNet(N0, 11)


def same_weights(one: LPSNet, other: LPSNet) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def whole(recipe: TrainRecipe = RECIPE) -> tuple[LPSNet, Curve]:
    trained = network()
    return trained, fit(trained, few(), recipe, seed=5)


def paused_at(stop: int, recipe: TrainRecipe, keeper: Keeper, notes: list[str]) -> None:
    """Train until an iteration, from whatever was kept."""
    done = [0]

    def count(what: str, number: int, total: int) -> None:
        done.append(number)

    fit(network(), few(), recipe, seed=5, keeper=keeper, on_progress=count, pause=lambda: done[-1] == stop, on_note=notes.append)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "learning_rate": 1e-3}, {"ema_decay": 0.0}])
@pytest.mark.parametrize("stops", [(1,), (6,), (3, 4, 11)])
def test_a_training_that_was_paused_ends_as_one_that_was_not(stops: tuple[int, ...], changes: dict[str, object], tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, **changes)  # type: ignore[arg-type]
    expected, expected_curve = whole(recipe)
    keeper, notes = Keeper(tmp_path / "state.pt", {"recipe": "this"}), list[str]()
    for stop in stops:
        with pytest.raises(Paused, match=str(stop)):
            paused_at(stop, recipe, keeper, notes)
    trained = network(seed=99)  # whatever it starts from, the state decides
    assert fit(trained, few(), recipe, seed=5, keeper=keeper, on_note=notes.append) == expected_curve
    assert same_weights(trained, expected)
    assert notes == [f"going on after {stop} of 12 iterations" for stop in stops]


def test_the_average_of_the_weights_is_what_is_kept_and_shown_on_the_way() -> None:
    shown: list[Tensor] = []

    def look(point: Point, current: LPSNet) -> None:
        shown.append(current.head.weight.detach().clone())
        current.eval()  # as an evaluation leaves it

    averaged, by_hand = network(), None
    fit(averaged, few(), dataclasses.replace(RECIPE, iterations=10), seed=5, on_point=look)
    weights: list[Tensor] = []
    still, plain = dataclasses.replace(RECIPE, iterations=10, ema_decay=0.0), network()
    fit(plain, few(), still, seed=5, on_point=lambda point, current: weights.append(current.head.weight.detach().clone()))
    for weight in weights:
        by_hand = weight if by_hand is None else 0.8 * by_hand + 0.2 * weight
    assert by_hand is not None
    torch.testing.assert_close(averaged.head.weight.detach(), by_hand, rtol=1e-4, atol=1e-6)
    assert torch.equal(shown[-1], averaged.head.weight)


class Poisoned(LPSNet):
    """Gives scores that are not finite at one of its calls."""

    calls, poison = 0, -1

    def scores(self, images: Tensor) -> Tensor:
        self.calls += 1
        found = super().scores(images)
        return found * float("nan") if self.calls == self.poison else found


def test_a_lost_loss_goes_back_once_to_the_last_good_state_and_then_fails() -> None:
    torch.manual_seed(3)
    trained, notes, points = Poisoned(N0, 11), [], []
    trained.poison = 8
    recipe = dataclasses.replace(RECIPE, iterations=50, ema_decay=0.0)  # a point, hence a good state, every second update
    curve = fit(trained, few(), recipe, seed=5, restarts=1, on_note=notes.append, on_point=lambda point, _: points.append(point))
    assert notes == ["the loss was nan at iteration 8; again from 6, at 0.5 of the learning rate"]
    assert [iteration for iteration, _ in curve] == list(range(2, 51, 2))
    assert points[2].learning_rate == pytest.approx(recipe.rate_at(5)) and points[3].learning_rate == pytest.approx(0.5 * recipe.rate_at(7))
    trained.calls = 0
    with pytest.raises(TrainingFailed, match="the loss is nan at iteration 8 of 50; a lower learning rate may help"):
        fit(trained, few(), recipe, seed=5, restarts=0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:200], "is damaged or no training state"),
        (lambda data: b"", "is damaged or no training state"),
        (lambda data: b"something else", "move it away to start anew"),
    ],
)
def test_a_damaged_state_is_named(spoil: object, message: str, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "state.pt", {})
    keeper.save({"iteration": 3})
    assert keeper.load() == {"iteration": 3}
    keeper.path.write_bytes(spoil(keeper.path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        keeper.load()


def test_a_state_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'hacked'}",)

    torch.save({"format": Bad(), "identity": {}, "state": {}}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="is damaged or no training state"):
        Keeper(tmp_path / "state.pt", {}).load()
    assert not (tmp_path / "hacked").exists()


def test_a_state_of_another_training_is_refused_with_what_differs(tmp_path: Path) -> None:
    Keeper(tmp_path / "state.pt", {"seed": 1, "data": "a"}).save({})
    with pytest.raises(CheckpointError, match=r"of another training \(seed: 1, not 2\); name another folder"):
        Keeper(tmp_path / "state.pt", {"seed": 2, "data": "a"}).load()


def test_saving_that_fails_leaves_the_last_state_good(tmp_path: Path) -> None:
    """The file may grow to a limit only, as on a full disk."""
    code = f"""
import resource, sys, torch
from pathlib import Path
from lpsnet.checkpoint import CheckpointError
from lpsnet.resume import Keeper
keeper = Keeper(Path({str(tmp_path)!r}) / "state.pt", {{}})
keeper.save({{"weights": torch.zeros(10)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    keeper.save({{"weights": torch.zeros(100000)}})
except CheckpointError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    kept = Keeper(tmp_path / "state.pt", {}).load()
    assert kept is not None and len(kept["weights"]) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


TRAIN = ["train", "N0", "--data", "synthetic", "--threads", "1", "--save-minutes", "0", "--validations", "2"]
TINY = [
    *("--set", "iterations=30", "--set", "batch_size=2", "--set", "input_height=64", "--set", "input_width=128"),
    *("--set", "crop_height=32", "--set", "crop_width=64", "--set", "ema_decay=0.9"),
]


def train(arguments: list[str]) -> None:
    """Exit with what the command line says."""
    few_frames()
    main(arguments)


def started(out: Path, *more: str) -> Process:
    """A training in a process of its own."""
    return Process(train, [*TRAIN, *TINY, "--out", str(out), *more], output=out.with_name(f"{out.name}.printed"))


def test_a_training_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    assert started(tmp_path / "whole").ends() == 0
    kills, out = 0, tmp_path / "killed"
    state = out / "state.pt"
    for delay in (0.0, 0.3, 0.8):
        seen = state.stat().st_mtime_ns if state.exists() else 0
        process = started(out)
        process.until(lambda seen=seen: state.exists() and state.stat().st_mtime_ns != seen)  # type: ignore[misc]
        time.sleep(delay)
        if process.runs():
            process.send(signal.SIGKILL)
            kills += 1
        process.ends()
    assert kills >= 2
    assert started(out).ends() == 0
    rows = [[line.split(",")[index] for index in (0, 1, 2, 5)] for line in (out / "curve.csv").read_text().splitlines()]
    assert rows == [
        [line.split(",")[index] for index in (0, 1, 2, 5)] for line in (tmp_path / "whole" / "curve.csv").read_text().splitlines()
    ]
    assert len(rows) == 31 and not (out / "state.pt").exists()
    name = f"{N0}.safetensors"
    from lpsnet import load

    assert same_weights(load(out / name), load(tmp_path / "whole" / name))
    assert (out / "classes.csv").read_text() == (tmp_path / "whole" / "classes.csv").read_text()


def test_the_first_interrupt_pauses_and_the_same_command_goes_on(tmp_path: Path) -> None:
    long = ("--set", "iterations=300")
    process = started(tmp_path / "run", *long)
    process.until((tmp_path / "run" / "state.pt").exists)
    process.send(signal.SIGINT)
    assert process.ends() == 130
    assert [line for line in process.printed().splitlines() if line.startswith("error: paused after")]
    again = started(tmp_path / "run", *long, "--max-hours", "0")
    assert again.ends() == 130 and "going on after" in again.printed()
