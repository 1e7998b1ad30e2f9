"""Hostile inputs for everything that reads files or texts: `make fuzz`, or `python -m tests.fuzz [TARGET ...] [--inputs N] [--seed S]`.

Each input is drawn from its target's name, the seed and its number, so that `--only NUMBER` gives it again. Right is an input that is
taken, or refused by the tool's own errors; all else is a finding: another exception, a lost process, more than `LIMIT_S` seconds of
processor time, or more than `LIMIT_BYTES` of memory. Counts accrue in a CSV file by target and seed; started again it goes on.
"""

from __future__ import annotations

import argparse
import csv
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from search.cli.failures import USER_ERRORS

LIMIT_S, LIMIT_BYTES = 5.0, 2 * 2**30
OUT = Path(__file__).resolve().parents[1] / "results" / "fuzz"
Attempt = Callable[[random.Random], None]


@dataclass(frozen=True)
class Target:
    """Something that reads.

    Args:
        name: of the row.
        inputs: of a million.
        prepare: makes valid files in a folder and returns what tries one input, which raises what the reader raises.
        reads: what, for the table.
    """

    name: str
    inputs: int
    prepare: Callable[[Path], Attempt]
    reads: str


@dataclass
class Count:
    """What came of the inputs of a target under a seed; a row of `summary.csv`."""

    target: str
    reads: str
    seed: int
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    crashes: int = 0
    slowest_ms: float = 0.0
    seconds: float = 0.0
    findings: list[tuple[int, str]] = field(default_factory=list)


class TooSlow(BaseException):
    """An input that took too long; no reader may catch it."""


def try_input(attempt: Attempt, target: str, seed: int, number: int, count: Count) -> None:
    """Try one input and count what came of it."""
    rng, start = random.Random(f"{target} {seed} {number}"), time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        attempt(rng)
        count.accepted += 1
    except USER_ERRORS:
        count.refused += 1
    except (Exception, TooSlow, SystemExit) as error:
        count.crashes += 1
        count.findings.append((number, f"{type(error).__name__}: {' '.join(str(error).split())[:300]} at {_place(error)}"))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    took = time.process_time() - start
    count.inputs += 1
    count.slowest_ms = max(count.slowest_ms, round(took * 1e3, 1))
    if took > LIMIT_S and not (count.findings and count.findings[-1][0] == number):  # within native code no alarm is heard
        count.crashes += 1
        count.findings.append((number, f"took {took:.1f} s"))


def _place(error: BaseException) -> str:
    """Where in the product an error arose last."""
    found, trace = "", error.__traceback__
    while trace is not None:
        name = Path(trace.tb_frame.f_code.co_filename)
        if name.parent.name in ("lpsnet", "latency", "search", "data", "cli", "pages", "backends"):
            found = f"{name.parent.name}/{name.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found or "no line of the product"


@contextmanager
def alarmed() -> Iterator[None]:
    """Let an input that takes too long be interrupted; everything is quiet meanwhile."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {LIMIT_S} s of processor time")

    before = signal.signal(signal.SIGVTALRM, ring)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGVTALRM, before)


def run_here(target: Target, seed: int, start: int, stop: int) -> Count:
    """Try inputs in this process, without a limit to its memory."""
    count = Count(target.name, target.reads, seed)
    with tempfile.TemporaryDirectory(dir=_fast()) as folder, alarmed():
        attempt = target.prepare(Path(folder))
        for number in range(start, stop):
            try_input(attempt, target.name, seed, number, count)
    return count


def _fast() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _serve(target: Target, seed: int, start: int, stop: int, connection: Any, at: Any) -> None:
    """Try inputs in a process of its own whose memory is bounded; `at` is the number of the input at work."""
    count, told = Count(target.name, target.reads, seed), time.monotonic()
    with tempfile.TemporaryDirectory(dir=_fast()) as folder, alarmed():
        attempt = target.prepare(Path(folder))
        try_input(attempt, target.name, seed, start, Count(target.name, "", seed))  # what is imported late is no input's memory
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT_BYTES, resource.RLIM_INFINITY))
        for number in range(start, stop):
            at.value = number
            try_input(attempt, target.name, seed, number, count)
            if time.monotonic() - told > 5 or count.findings:
                connection.send(count)
                count, told = Count(target.name, target.reads, seed), time.monotonic()
    connection.send(count)


def run_apart(target: Target, seed: int, start: int, stop: int) -> Iterator[Count]:
    """Try inputs in processes of their own, a new one after each that is lost; yields what came of them as it comes."""
    context = multiprocessing.get_context("spawn")
    while start < stop:
        ours, theirs = context.Pipe()
        at = context.Value("q", start - 1, lock=False)
        worker = context.Process(target=_serve, args=(target, seed, start, stop, theirs, at), daemon=True)
        worker.start()
        theirs.close()
        done = start
        while done < stop:
            try:
                count = ours.recv()
            except EOFError:
                break
            done += count.inputs
            yield count
        worker.join()
        if done < stop:  # those since it last told are tried again, but for the one that it was lost at
            lost = at.value
            if lost < start:
                raise SystemExit(f"{target.name} cannot be prepared: its process ended with {worker.exitcode}")
            if lost > done:
                yield from run_apart(target, seed, done, lost)
            ending = f"the process ended with exit code {worker.exitcode}"
            yield Count(target.name, target.reads, seed, inputs=1, crashes=1, findings=[(lost, ending)])
            done = lost + 1
        start = done


COLUMNS = ("target", "reads", "seed", "inputs", "accepted", "refused", "crashes", "slowest_ms", "seconds")


class Summary:
    """The counts so far, a row a target and seed, and the findings beside them."""

    def __init__(self, folder: Path) -> None:
        self._path, self._findings = folder / "summary.csv", folder / "findings.csv"
        self.rows: dict[tuple[str, int], Count] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            for row in csv.DictReader(self._path.read_text().splitlines()):
                numbers = {name: int(row[name]) for name in ("seed", "inputs", "accepted", "refused", "crashes")}
                times = {name: float(row[name]) for name in ("slowest_ms", "seconds")}
                if row["target"] != TOTAL:
                    self.rows[row["target"], numbers["seed"]] = Count(row["target"], row["reads"], **numbers, **times)  # type: ignore[arg-type]

    def done(self, target: Target, seed: int) -> int:
        """Inputs tried so far."""
        known = self.rows.get((target.name, seed))
        return known.inputs if known else 0

    def add(self, found: Count, seconds: float) -> None:
        """Add what came of some inputs, and write."""
        row = self.rows.setdefault((found.target, found.seed), Count(found.target, found.reads, found.seed))
        for name in ("inputs", "accepted", "refused", "crashes"):
            setattr(row, name, getattr(row, name) + getattr(found, name))
        row.slowest_ms, row.seconds, row.reads = max(row.slowest_ms, found.slowest_ms), round(row.seconds + seconds, 1), found.reads
        if found.findings:
            with self._findings.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([found.target, found.seed, *one] for one in found.findings)
        self._write()

    def _write(self) -> None:
        rows = sorted(self.rows.values(), key=lambda row: (row.seed, row.target))
        total = Count(TOTAL, "", rows[0].seed)
        for name in ("inputs", "accepted", "refused", "crashes", "seconds"):
            setattr(total, name, round(sum(getattr(row, name) for row in rows), 1))
        total.slowest_ms = max(row.slowest_ms for row in rows)
        temporary = self._path.with_name(f".{self._path.name}")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in [*rows, total])
        temporary.replace(self._path)


TOTAL = "all"


def main() -> int:
    from search.run import provenance, write_json
    from tests.fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all by default; there are: {', '.join(TARGETS)}")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets, each its share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try this one input of one target, and show what it raises")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in given.targets or TARGETS]
    if given.only is not None:
        with tempfile.TemporaryDirectory(dir=_fast()) as folder:
            chosen[0].prepare(Path(folder))(random.Random(f"{chosen[0].name} {given.seed} {given.only}"))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "environment.json", {**provenance(), "command": "python -m tests.fuzz"})  # of the last start
    summary, share = Summary(given.out), given.inputs / sum(target.inputs for target in TARGETS.values())
    for target in chosen:
        since = time.monotonic()
        for count in run_apart(target, given.seed, summary.done(target, given.seed), round(target.inputs * share)):
            summary.add(count, time.monotonic() - since)
            since = time.monotonic()
            for number, text in count.findings:
                print(f"{target.name} --seed {given.seed} --only {number}: {text}", file=sys.stderr)
        if row := summary.rows.get((target.name, given.seed)):
            told = (
                f"{row.inputs} inputs, {row.accepted} taken, {row.refused} refused, {row.crashes} crashes, the slowest {row.slowest_ms} ms"
            )
            print(f"{target.name}: {told}", flush=True)
    return 1 if any(row.crashes for row in summary.rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
