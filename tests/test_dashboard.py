"""Optuna's dashboard on a run: the real process on the journal, and the one that `watch --dashboard` serves, which changes nothing."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from search.cli import run as cli
from search.run import Run
from search.study import METRIC
from tests.test_runner import CountingExecutor, finish
from tests.test_watch import contents
from tests.tiny import tiny_config

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one step; one of its candidates failed."""
    path, config = tmp_path_factory.mktemp("dashboard") / "run", tiny_config(1)
    finish(path, config, CountingExecutor(config, fail=lambda a: "the loss is nan" if str(a).startswith("B1-1-2") else None))
    return path


@contextmanager
def served(*command: str, address: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that serves pages, once it answers; without an address it prints its own first."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if not address:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("dashboard: ").strip()
        until = time.monotonic() + 120
        while True:
            try:
                asked(f"{address}api/meta")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, "it does not answer"
                time.sleep(0.2)
        yield address, process
    finally:
        process.kill()
        process.communicate()


def asked(url: str, method: str = "GET", body: bytes | None = None) -> Any:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])


def check_columns(address: str, run: Path) -> None:
    """What the dashboard tells of every trial is what the run's record holds."""
    studies = asked(f"{address}api/studies")["study_summaries"]
    with Run.read(run) as opened:
        assert [study["study_name"] for study in studies] == [f"{opened.study.name}/step-{step:02d}" for step in (0, 1)]
        for step, study in enumerate(studies):
            told = asked(f"{address}api/studies/{study['study_id']}")
            assert told["objective_names"] == [METRIC]
            described = {
                one["key"]: json.loads(one["value"]) if one["value"][0] in "0123456789" else one["value"] for one in told["user_attrs"]
            }
            assert described["data"] == "synthetic" and described["latency"].startswith("ms to the scores by ort on ")
            trials = opened.study.trials(step)
            assert len(told["trials"]) == len(trials) > step
            for shown, trial in zip(told["trials"], trials, strict=True):
                columns = {one["key"]: one["value"] for one in shown["user_attrs"]}
                assert list(columns)[:3] == ["architecture", "expansion", "k"]
                assert columns["architecture"] == trial.user_attrs["architecture"]
                assert float(columns["latency_ms"]) == trial.user_attrs["latency_ms"]
                if trial.value is None:
                    assert shown["state"] == "Fail" and columns["failure"] == "the loss is nan"
                    continue
                assert shown["values"] == [trial.value] and float(columns["miou_percent"]) == trial.value
                assert ("gain_percent" in columns) == (step > 0)
                if step:
                    assert float(columns["gain_percent"]) == pytest.approx(trial.value - opened.study.trials(0)[0].value)
            assert described["chosen"] in {trial.user_attrs["architecture"] for trial in trials}
            sortable = {column["key"] for column in told["union_user_attrs"] if column["sortable"]}
            assert {"latency_ms", "miou_percent", "train_s"} - ({"miou_percent"} if step else set()) <= sortable


def page(address: str, folder: Path) -> str:
    """The page at an address as Chromium has it after its scripts have run; skips where there is no Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium brings it")
    quiet = ["disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"]
    options = [f"--{name}" for name in ("headless", "no-sandbox", *quiet)]
    command = [CHROMIUM, *options, f"--user-data-dir={folder}", "--virtual-time-budget=20000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.fixture(scope="module")
def real(run: Path) -> Iterator[str]:
    """The address of the real `optuna-dashboard` on the run's journal."""
    port = free_port()
    command = str(Path(sys.executable).parent / "optuna-dashboard")
    with served(command, str(run / "study.journal"), "--port", str(port), address=f"http://127.0.0.1:{port}/") as (address, _):
        yield address


def test_the_real_dashboard_reads_a_journal_with_all_columns(run: Path, real: str) -> None:
    before = contents(run)
    check_columns(real, run)
    assert contents(run) == before


def test_the_page_of_the_real_dashboard_plots_the_scores_and_names_the_choice(run: Path, real: str, tmp_path: Path) -> None:
    text = page(f"{real}dashboard/studies/1", tmp_path / "chromium")
    with Run.read(run) as opened:
        chosen = opened.study._studies[1].user_attrs["chosen"]
        assert f"{opened.study.name}/step-01" in text and chosen in text and METRIC in text
        assert text.count('class="point"') >= sum(trial.value is not None for trial in opened.study.trials(1))


def test_watch_serves_a_dashboard_that_shows_everything_and_changes_nothing(run: Path) -> None:
    before = contents(run)
    command = [sys.executable, "-m", "search", "watch", str(run), "--dashboard", "--port", "0"]
    with served(*command) as (address, process):
        check_columns(address, run)
        for method, path in (("DELETE", "studies/0"), ("POST", "studies"), ("PUT", "studies/0/note"), ("POST", "trials/0/tell")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                asked(f"{address}api/{path}", method, b"{}")
            assert refused.value.code == 405 and "changes nothing" in json.loads(refused.value.read())["reason"]
            refused.value.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert contents(run) == before


def test_a_port_that_is_taken_and_a_missing_package_are_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli(["watch", str(run), "--dashboard", "--port", port]) == 2
        assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    assert cli(["watch", str(run), "--dashboard"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'lps-search[dashboard]' brings it" in line
