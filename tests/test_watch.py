"""Looking at a run: what is seen of one that is driven, paused, stopped or finished, and that looking leaves no trace."""

from __future__ import annotations

import json
import math
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lpsnet import Architecture
from search.cli import run as cli
from search.cli.watch_frame import duration, frame
from search.config import RacePlan, SearchConfig
from search.estimate import CANDIDATES_A_STEP, GROWTH, LATENCIES_A_STEP, remaining_s
from search.observer import Observer
from search.run import LOCK, RunError
from search.runner import Progress, advance
from search.watch import FAILED, SCORED, TRAINING, WAITING, View, Watch, driver_of
from tests.test_runner import CountingExecutor, finish, start
from tests.tiny import made_latency, tiny_config

ROOT = Path(__file__).resolve().parents[1]


class Stopping(CountingExecutor):
    """Does so many trainings and measurements, and then is interrupted in the next one."""

    def __init__(self, config: SearchConfig, trainings: int, latencies: int = 10**6, **how: Any) -> None:
        super().__init__(config, **how)
        self._trainings, self._latencies = trainings, latencies

    def outcome(self, job: Any) -> Any:
        if len(self.trained) == self._trainings:
            raise KeyboardInterrupt
        return super().outcome(job)

    def measure(self, architecture: Architecture, boundary: str | None = None) -> Any:
        if len(self.measured) == self._latencies:
            raise KeyboardInterrupt
        return super().measure(architecture, boundary)


def drive(path: Path, config: SearchConfig, executor: CountingExecutor) -> Progress | None:
    """Drive a run to its end, None where it was interrupted."""
    with start(path, config) as run:
        try:
            return advance(run, executor, Observer(), lambda progress: None)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            return None


def looked(path: Path) -> View:
    watch = Watch(path)
    try:
        return watch.look()
    finally:
        watch.close()


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def paused(tmp_path: Path) -> Path:
    """A run that was interrupted in the third training of step 1; the second had failed."""
    config = tiny_config(2)
    names: list[str] = []

    def second(architecture: Architecture) -> str | None:
        names.append(str(architecture))
        return "the loss is nan" if len(names) == 3 else None

    assert drive(tmp_path / "run", config, Stopping(config, 3, fail=second)) is None
    return tmp_path / "run"


def test_a_run_that_was_left_in_a_step_shows_its_candidates_so_far(paused: Path) -> None:
    view = looked(paused)
    assert view.state == "paused" and view.driver is None and len(view.steps) == 1 and view.config.steps == 2
    assert view.work is not None and (view.work.step, view.work.done, view.work.text) == (1, 2, "training candidates")
    first, second, third, *others = view.work.rows
    assert [row.state for row in (first, second, third)] == [SCORED, FAILED, TRAINING] and {row.state for row in others} == {WAITING}
    parent = view.steps[0].chosen
    assert first.miou_percent is not None and first.gain_percent == pytest.approx(first.miou_percent - parent.miou_percent)
    assert first.slope == pytest.approx(first.gain_percent / (first.latency_ms - parent.latency_ms))
    assert first.latency_ms == made_latency(Architecture.parse(first.architecture)) and first.seconds == 0.5
    assert second.failure == "the loss is nan" and second.miou_percent is None and second.gain_percent is None
    assert third.seconds is not None and 0 <= third.seconds < 3600 and third.miou_percent is None
    assert view.cost.trainings == 3 and view.cost.training_s == 1.5
    assert view.remaining_s == pytest.approx(0.5 * len([third, *others]) + 9 * 0.5 * GROWTH)


def test_a_run_that_was_left_while_measuring_says_how_far_it_came(tmp_path: Path) -> None:
    config = tiny_config(1)
    assert drive(tmp_path / "run", config, Stopping(config, 10**6, latencies=4)) is None
    view = looked(tmp_path / "run")
    assert view.work is not None and view.work.text == "measuring latencies" and view.work.step == 1
    assert view.work.done == 2 and view.work.total == 8 and view.work.rows == ()  # besides two of the start
    assert view.remaining_s == pytest.approx(9 * 0.5 * GROWTH)
    nothing = tmp_path / "nothing"
    assert drive(nothing, config, Stopping(config, 0, latencies=0)) is None
    view = looked(nothing)
    assert view.steps == () and view.work is not None and (view.work.step, view.work.done, view.work.total) == (0, 0, 1)
    assert view.remaining_s is None and view.cost.trainings == 0 and view.changed == view.began


def test_a_finished_and_a_stopped_run_have_no_work_left(tmp_path: Path) -> None:
    config = tiny_config(1)
    steps = finish(tmp_path / "run", config, CountingExecutor(config))
    view = looked(tmp_path / "run")
    assert view.state == "finished" and view.work is None and view.remaining_s is None
    assert [step.chosen for step in view.steps] == [step.chosen for step in steps]
    stopped = drive(tmp_path / "stopped", config, CountingExecutor(config, fail=lambda a: "the loss is nan"))
    view = looked(tmp_path / "stopped")
    assert stopped is not None and view.state == "stopped" and view.stopped == stopped.stopped and view.work is None


def test_a_race_shows_its_control_and_gains_over_it(tmp_path: Path) -> None:
    config = tiny_config(1, race=RacePlan(rungs=(1,), seeds=2))
    whole = CountingExecutor(config)
    drive(tmp_path / "whole", config, whole)
    seen = set()
    for count in (2, 8, len(whole.trained) - 1):
        assert drive(tmp_path / str(count), config, Stopping(config, count)) is None
        work = looked(tmp_path / str(count)).work
        assert work is not None
        seen.add(work.text)
        control = work.rows[-1]
        assert control.expansion == "control" and control.gain_percent is None
        scored = [row for row in work.rows[:-1] if row.state == SCORED]
        assert all((row.gain_percent is None) == (control.miou_percent is None) for row in scored)
    assert "training candidates, scored after 1 iterations" in seen and len(seen) >= 2


def test_two_networks_in_turns_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: CountingExecutor, first: Architecture, second: Architecture) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CountingExecutor, "compare", interrupted)
    config = tiny_config(2, noise=0.2)
    assert drive(tmp_path / "run", config, CountingExecutor(config)) is None
    work = looked(tmp_path / "run").work
    assert work is not None and work.text.endswith("in turns: which is faster?") and work.rows == ()


def test_looking_again_takes_in_what_came_since(tmp_path: Path) -> None:
    path, config = tmp_path / "run", tiny_config(1)
    drive(path, config, Stopping(config, 2))
    watch = Watch(path)
    first = watch.look()
    costly = watch.rest_s
    assert watch.look().steps == first.steps and 0 < watch.rest_s < costly, "what has not changed is not read again"
    drive(path, config, Stopping(config, 2))
    second = watch.look()
    assert second.work is not None and first.work is not None and second.work.done == first.work.done + 2
    assert second.cost.trainings == first.cost.trainings + 2 and second.changed >= first.changed
    drive(path, tiny_config(2), Stopping(config, 10**6))
    third = watch.look()
    assert third.state == "finished" and third.config.steps == 2 and len(third.steps) == 3
    fresh = looked(path)
    assert (third.steps, third.cost, third.work) == (fresh.steps, fresh.cost, fresh.work)
    watch.close()


def test_another_run_in_the_same_folder_is_another_run(tmp_path: Path) -> None:
    path, config = tmp_path / "run", tiny_config(1)
    drive(path, config, Stopping(config, 3))
    watch = Watch(path)
    assert watch.look().cost.trainings == 3
    shutil.rmtree(path)
    with pytest.raises(RunError, match=r"is incomplete: .*No such file"):
        watch.look()
    drive(path, tiny_config(3), Stopping(config, 2))
    view = watch.look()
    assert view.cost.trainings == 2 and view.config.steps == 3 and view.work is not None and view.work.done == 1
    watch.close()


def test_looking_leaves_no_trace(paused: Path) -> None:
    before = contents(paused)
    for _ in range(2):
        looked(paused)
    assert cli(["watch", str(paused), "--once"]) == 0
    assert contents(paused) == before


def test_a_run_in_a_database_is_seen_alike(tmp_path: Path) -> None:
    config = tiny_config(1, storage=f"sqlite:///{tmp_path}/studies.db")
    drive(tmp_path / "run", config, Stopping(config, 3))
    watch = Watch(tmp_path / "run")
    first = watch.look()
    assert first.work is not None and [row.state for row in first.work.rows[:3]] == [SCORED, SCORED, TRAINING]
    drive(tmp_path / "run", config, CountingExecutor(config))
    assert watch.look().state == "finished" and watch.look().changed >= first.changed
    watch.close()


DRIVER = """
import sys
from pathlib import Path
from search.executor import current_environment
from search.run import Run
from tests.tiny import tiny_config
config = tiny_config(1)
run = Run.start(Path(sys.argv[1]), config, tuple(f"class{index}" for index in range(11)), current_environment(config))
print("driving", flush=True)
sys.stdin.readline()
"""


def test_the_driver_is_found_without_touching_its_lock_and_not_mistaken_for_another(tmp_path: Path) -> None:
    path, config = tmp_path / "run", tiny_config(1)
    assert driver_of(path) is None
    drive(path, config, Stopping(config, 3))
    assert driver_of(path) is None and (path / LOCK).read_text().strip() == str(os.getpid()), "this process lives and no longer drives"
    with start(path, config):
        assert driver_of(path) == os.getpid()
    command = [sys.executable, "-c", DRIVER, str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "driving\n"
    view = looked(path)
    assert view.driver == process.pid and view.state == "running"
    process.kill()
    process.communicate()
    assert looked(path).state == "paused"
    for text in ("", "soon", "-1", "0", "9" * 30):
        (path / LOCK).write_text(text)
        assert driver_of(path) is None, text


def test_what_is_no_run_or_damaged_is_one_line(paused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert cli(["watch", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "lps-search expand --out" in refused(str(tmp_path / "nothing"))
    assert "leave out --once and --json, or --dashboard" in refused(str(paused), "--once", "--dashboard")
    assert "add --dashboard" in refused(str(paused), "--once", "--port", "0")
    watch = Watch(paused)
    watch.look()
    (paused / "latency.sqlite").unlink()
    with pytest.raises(RunError, match=r"is incomplete: .*No such file"):
        watch.look()
    watch.close()
    assert "latency.sqlite: No such file" in refused(str(paused))


# --- what is shown ---


def drawn(view: View, now: datetime, height: int = 0) -> str:
    from rich.console import Console

    console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - lives as long as the console
    console.print(frame(view, now, height=height, hint="q leaves"))
    console.file.close()
    return console.export_text()


def test_a_frame_shows_chain_candidates_time_and_cost(paused: Path) -> None:
    view = looked(paused)
    text = drawn(view, view.changed + timedelta(minutes=3))
    assert "paused: nobody drives it on this machine; go on with lps-search resume" in text
    for row in view.work.rows if view.work else ():
        (line,) = [line for line in text.splitlines() if row.architecture in line and row.expansion in line]
        assert f"{row.latency_ms:.3f}" in line and ("failed: the loss is nan" in line) == (row.state == FAILED)
    assert "begun" in text and "training candidates" in text and "2/8" in text and "q leaves" in text
    assert "took 3 trainings in 2 s" in text and "(estimated)" in text and "0 of 2 steps" in text


def test_a_low_terminal_keeps_the_end_of_the_chain_and_the_step_at_work(tmp_path: Path) -> None:
    config = tiny_config(2)
    steps = finish(tmp_path / "run", config, CountingExecutor(config))
    view = looked(tmp_path / "run")
    longer = View(**{**vars(view), "steps": (*steps, *[steps[-1]] * 20)})
    low, high = drawn(longer, view.changed, height=24), drawn(longer, view.changed, height=60)
    assert len(low.splitlines()) <= 24 and "without its first 11" in low and str(steps[-1].chosen.architecture) in low
    assert len(high.splitlines()) <= 60 and "without its first" not in high


def test_times_for_a_reader() -> None:
    seconds = {-3: "0 s", 0.4: "0 s", 59.6: "1 min", 61: "1 min 1 s", 3600: "1 h", 7830: "2 h 10 min", 270_000: "3 d 3 h"}
    assert {value: duration(value) for value in seconds} == seconds


def test_what_remains_by_hand() -> None:
    assert remaining_s([], 1.0, left=3, steps_left=2) is None
    assert remaining_s([10.0, 20.0], 0.0, left=2, steps_left=0) == 30.0
    assert remaining_s([10.0, 20.0], 0.0, left=2, steps_left=0, parallel=2) == 15.0
    assert remaining_s([10.0, 20.0], 0.5, left=2, latencies_left=6, steps_left=0) == 33.0
    step = lambda growth: LATENCIES_A_STEP * 2.0 + CANDIDATES_A_STEP * 15.0 * growth  # noqa: E731
    assert remaining_s([15.0], 2.0, left=1, steps_left=2) == pytest.approx(15.0 + step(GROWTH) + step(GROWTH**2))


def test_the_estimate_of_a_search_without_end_is_a_number_that_is_shown() -> None:
    few, many = (remaining_s([15.0], 2.0, left=1, steps_left=steps) for steps in (60, 10_000))
    assert few is not None and many is not None and few < many < math.inf
    assert duration(many).endswith(("d", "h"))


def test_json_tells_a_machine_the_same(paused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["watch", str(paused), "--json"]) == 0
    told, view = json.loads(capsys.readouterr().out), looked(paused)
    assert (told["state"], told["steps"], told["wanted"]) == ("paused", 0, 2) and len(told["chain"]) == 1
    assert told["chain"][0]["slope"] is None and told["cost"]["trainings"] == 3
    assert view.work is not None and [row["state"] for row in told["work"]["rows"]] == [row.state for row in view.work.rows]


def test_without_a_terminal_one_frame_is_printed(paused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["watch", str(paused)]) == 0
    whole = capsys.readouterr().out
    assert "training candidates" in whole and "\x1b" not in whole


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int, list[Any]]]:
    """`lps-search watch` on a terminal of its own, which is also what it reads keys from."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "-m", "search", "watch", *arguments]
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as tests in the background have it, and hand it on
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, ignored)
    try:
        yield process, ours, before
        assert termios.tcgetattr(theirs) == before, "the terminal is not left as it was"
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def read_until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], 120)
        assert ready, seen
        seen += os.read(terminal, 65536)
    return seen


@pytest.mark.parametrize("way", ["q", "interrupt", "termination"])
def test_one_leaves_the_live_view_in_order(paused: Path, way: str) -> None:
    before = contents(paused)
    with on_a_terminal(str(paused), "--every", "0.1") as (process, terminal, _):
        read_until(terminal, b"q or Ctrl-C leaves")
        if way == "q":
            os.write(terminal, b"xq")
        else:
            process.send_signal(signal.SIGINT if way == "interrupt" else signal.SIGTERM)
        read_until(terminal, b"\x1b[?1049l")  # back from the other screen
        assert process.wait(60) == 0
    assert contents(paused) == before


def test_the_live_view_follows_a_run_that_goes_on(tmp_path: Path) -> None:
    path, config = tmp_path / "run", tiny_config(1)
    drive(path, config, Stopping(config, 2))
    with on_a_terminal(str(path), "--every", "0.1") as (process, terminal, _):
        read_until(terminal, b"1/8")
        drive(path, config, Stopping(config, 2))
        read_until(terminal, b"3/8")
        drive(path, config, CountingExecutor(config))
        read_until(terminal, b"finished")
        os.write(terminal, b"q")
        assert process.wait(60) == 0
