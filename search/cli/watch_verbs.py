"""`lps-search watch`: look at a run while it is driven, or afterwards; come and go at will."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.options import AsJson

if TYPE_CHECKING:
    from search.watch import View, Watch

PIPE_WIDTH = 150
"""Columns of a frame where there is no terminal that could say."""


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("watch")(watch)


def watch(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    once: Annotated[bool, typer.Option("--once", help="Show the run as it is now and leave; without a terminal always so.")] = False,
    every: Annotated[
        float,
        typer.Option(help="Look again after so many seconds, or later where that takes more than 2 % of a core.", min=0.1, max=3600.0),
    ] = 2.0,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Also serve Optuna's dashboard of the run's studies.")] = False,
    host: Annotated[str | None, typer.Option(help="Address the dashboard listens on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; 0 for any that is free. Default: 8080.", min=0, max=65535)] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a run, driven or not: chain, step at work with its candidates, time and cost. Leave by q or Ctrl-C; the run goes on."""
    from search.watch import Watch

    once = once or as_json
    if once and dashboard:
        raise UserError("a dashboard is served until you leave; leave out --once and --json, or --dashboard")
    if not dashboard and (host is not None or port is not None):
        raise UserError("--host and --port are the dashboard's; add --dashboard")
    watched = Watch(run)
    try:
        if as_json:
            print(json.dumps(told(watched.look())))
        elif once or not (dashboard or _is_terminal()):
            _print_once(watched)
        else:
            with _leaving(), _served(run, host or "127.0.0.1", 8080 if port is None else port) if dashboard else nullcontext("") as address:
                _show(watched, every, address)
    except KeyboardInterrupt:  # how one leaves
        return
    finally:
        watched.close()


def told(view: View) -> dict[str, Any]:
    """A view for a machine; what is no finite number is null."""
    chain = [
        {
            "step": step.number,
            "expansion": step.chosen_trial.candidate.text,
            "architecture": str(step.chosen.architecture),
            "latency_ms": step.chosen.latency_ms,
            "miou_percent": step.chosen.miou_percent,
            "slope": _finite(step.chosen_trial.slope),
        }
        for step in view.steps
    ]
    work = None
    if view.work is not None:
        rows = [{**dataclasses.asdict(row), "slope": _finite(row.slope)} for row in view.work.rows]
        work = {**dataclasses.asdict(view.work), "rows": rows}
    return {
        "run": str(view.path),
        "state": view.state,
        "driver": view.driver,
        "stopped": view.stopped,
        "steps": max(0, len(view.steps) - 1),
        "wanted": view.config.steps,
        "chain": chain,
        "work": work,
        "cost": dataclasses.asdict(view.cost),
        "began": view.began.isoformat(timespec="seconds"),
        "changed": view.changed.isoformat(timespec="seconds"),
        "remaining_s": view.remaining_s,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _print_once(watched: Watch) -> None:
    from rich.console import Console

    from search.cli.watch_frame import frame

    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(frame(watched.look(), datetime.now(UTC)))


def _is_terminal() -> bool:
    """Whether a picture can be kept up to date on stdout."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _show(watched: Watch, every: float, address: str) -> None:
    """Keep a frame up to date until somebody leaves; without a terminal only the dashboard is there to be served."""
    from rich.live import Live

    from search.cli.watch_frame import frame

    if not _is_terminal():
        print(f"dashboard: {address}", flush=True)
        while True:
            time.sleep(3600)
    hint = "q or Ctrl-C leaves; the run goes on" + (f"; dashboard: {address}" if address else "")
    view, looked = watched.look(), time.monotonic()
    with Live(screen=True, auto_refresh=False) as live, _keys() as pressed:
        while True:
            live.update(frame(view, datetime.now(UTC), height=live.console.height, hint=hint), refresh=True)
            if pressed(min(1.0, every)) in ("q", "Q"):
                return
            if time.monotonic() - looked >= max(every, watched.rest_s):
                view, looked = watched.look(), time.monotonic()


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Gives a function that waits so many seconds for a key: each is told at once, and none is shown."""
    if not sys.stdin.isatty():
        yield _wait
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([file], [], [], seconds)
        return os.read(file, 1).decode(errors="replace") or "q" if ready else ""  # no key at all: the terminal has gone

    try:
        tty.setcbreak(file)
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _leaving() -> Iterator[None]:
    """Leave in order, with the terminal as it was, also when told to by a signal."""

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _served(run: Path, host: str, port: int) -> Iterator[str]:
    """The dashboard of a run; gives its address. Raises as `dashboard` does."""
    from search.dashboard import dashboard
    from search.run import JOURNAL, read_header

    storage = read_header(run).config.storage or str(run / JOURNAL)
    with dashboard(storage, host, port) as address:
        yield address
