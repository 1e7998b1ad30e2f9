"""The search of a fault drill: whole, but small enough to be run hundreds of times.

Trainings are real, of two iterations on six frames. Latency is arithmetic on the network, by a backend of the drill's own, so that two
searches of one seed come to the same chain; it passes through the executor, its processes and both stores like any other. The
picture of the search is not drawn, but written. Processes are forked from one that has imported everything and trained once.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import io
import json
import os
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from latency import TimingPlan, backends, worker
from latency.measurement import Conditions
from lpsnet.data import folder as folder_data
from lpsnet.data.synthetic import CLASS_NAMES, Scene
from tests.drill_faults import Fault, Shared, Striker, install

_FORK = get_context("fork")
_LIMITS = "--max-scale 0.625 --max-width 48 --max-depth 2 --max-paths 1"
_COMMON = f"--steps 2 --input 32x64 --backend drill --threads 1 --latency-seconds 0 --noise 0 --proxy-iterations 2 --batch 2 {_LIMITS}"
VARIANTS = {
    "alone": "--seeds 1 --latency-limit 0",
    "workers": "--seeds 1 --latency-limit 60 --parallel 2 --threads 2",
    "race": "--rungs 1 --seeds 2 --inherit --latency-limit 0",
}
"""A search in one process; one whose latencies and trainings have processes of their own; one with rungs, seeds and inherited weights."""

_LONGEST_S = 900.0
"""A process that has not ended by then hangs."""

_NEVER = ("Traceback", "--max-hours was over")
"""What is never printed: the second only where a clock was believed that had jumped."""

AT_ONCE = {"alone": 1, "workers": 2, "race": 1}
"""Trainings that run at a time."""

_OF_THE_MOMENT = ("train_s", "trial", "latency_stable")
"""Columns of `candidates.csv` that tell of the machine or of how often a run was begun, not of the candidates."""


def write_frames(root: Path) -> Path:
    """A folder data set of a few small scenes."""
    (root / folder_data.DESCRIPTION).parent.mkdir(parents=True)
    (root / folder_data.DESCRIPTION).write_text("classes: [" + ", ".join(f"{{name: {name}}}" for name in CLASS_NAMES) + "]\n")
    for number, (split, count) in enumerate((("train", 4), ("val", 2))):
        for index in range(count):
            image, label = Scene(np.random.default_rng((number, index)), 32, 64).draw()
            for kind, values in (("images", image), ("masks", label)):
                path = root / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return root


class DrillBackend:
    """Latency by arithmetic on a network's parameters; what it computes is torch's."""

    name = "drill"

    def __init__(self, striker: Striker | None) -> None:
        self._striker = striker

    def unavailable(self, device: str) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return {"drill": "1"}

    @contextlib.contextmanager
    def load(self, module: nn.Module, conditions: Conditions) -> Iterator[Any]:
        network: Any = module.module
        architecture = network.architecture
        if self._striker:
            self._striker.building(f"{architecture}@{conditions.boundary}")
        work = sum(b * c for b, c in zip(architecture.depths, architecture.widths, strict=True))
        found_ms = 0.1 + work * architecture.scales[0] ** 2 / 1e4 + architecture.depths[2] / 97 + len(conditions.boundary) / 50
        yield _Session(module, found_ms, self._striker)


class _Session:
    clock = "perf_counter"

    def __init__(self, module: nn.Module, found_ms: float, striker: Striker | None) -> None:
        self.found: dict[str, Any] = {}
        self._module, self._ms, self._striker = module, found_ms, striker

    def infer(self, image: np.ndarray) -> np.ndarray:
        if self._striker:
            self._striker.working("latency")
        with torch.inference_mode():
            return np.asarray(self._module(torch.from_numpy(image)).numpy())

    def run_ms(self) -> float:
        return self._ms


class _Forked:
    """What `Worker` asks of multiprocessing, by a fork: to start anew takes seconds."""

    Pipe = staticmethod(_FORK.Pipe)

    def Process(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> Any:  # noqa: N802 - multiprocessing's name
        return _FORK.Process(target=_apart, args=(target, args), daemon=daemon)


def _apart(target: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Call in a fork that holds no lock of its parent and no end of another's pipe, as a process that is started anew holds none."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            held = os.readlink(f"/proc/self/fd/{number}")
            if held.endswith(".lock") or (held.startswith("socket:") and number != args[0].fileno()):
                os.close(number)
    target(*args)


def _prepare(striker: Striker | None) -> None:
    """Make this process one of the drill's: its backend, its workers, no picture."""
    import search.cli.search_verbs
    import search.report
    import search.run

    backends.BACKENDS = {**backends.BACKENDS, "drill": lambda: DrillBackend(striker)}  # type: ignore[assignment]
    forked = _Forked()
    worker.multiprocessing.get_context = lambda method: forked  # type: ignore[assignment,return-value]
    search.cli.search_verbs.timing_plan = lambda seconds: TimingPlan(warmup_s=0, min_samples=5, min_s=seconds)  # type: ignore[assignment]
    search.run.provenance = cache(search.run.provenance)
    search.report.write_trajectory = lambda path, run, steps: search.report.replace_file(path, b"no picture")  # type: ignore[assignment]


def warm_up(base: Path) -> Path:
    """Search once in this process, which all others are forked from, so that everything is imported and used; returns the data."""
    from search import cli

    torch.set_num_threads(1)
    data = write_frames(base / "data")
    os.environ["LPS_SEARCH_LOCKS"] = str(base / "locks")
    _prepare(None)
    cli.get_command = cache(cli.get_command)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.run(Search(base=base / "first", data=data, variant="race", seed=0).expand()) == 0
    gc.collect()
    gc.freeze()  # a collection would copy what all processes share
    return data


@dataclass(frozen=True, kw_only=True)
class Life:
    """One process of a search, from its start to its end.

    Args:
        code: it ended with, negative for a signal.
        printed: everything it printed.
        told: see `drill_faults._work`.
        passes: how often it passed each place.
    """

    code: int
    printed: str
    told: list[list[str]]
    passes: dict[str, int]

    @property
    def struck(self) -> list[int]:
        """Numbers of the faults that struck, in order."""
        return [int(words[1]) for words in self.told if words[0] == "struck"]

    @property
    def complaints(self) -> list[str]:
        """The lines by which it told what is wrong."""
        return [line for line in self.printed.splitlines() if line.startswith("error: ")]

    @property
    def orderly(self) -> bool:
        """Whether it ended well and not before its time, was killed, or said in one line what is wrong."""
        told = self.code == 2 and len(self.complaints) == 1
        return not any(text in self.printed for text in _NEVER) and (self.code in (0, -9) or told)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search of the drill in a folder of its own.

    Args:
        base: the folder: `run` and the machine's store lie there.
        data: see `write_frames`.
        variant: one of `VARIANTS`.
        seed: of the search.
    """

    base: Path
    data: Path
    variant: str
    seed: int

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.base / "run"

    @property
    def machine(self) -> Path:
        """The machine's store."""
        return self.base / "machine.sqlite"

    def expand(self) -> list[str]:
        """The command line that begins it, or goes on with it."""
        options = f"{_COMMON} {VARIANTS[self.variant]} --seed {self.seed} --data folder:{self.data}"
        return ["expand", *options.split(), "--store", str(self.machine), "--out", str(self.run)]

    def resume(self, *options: str) -> list[str]:
        """The command line that goes on with it."""
        limit = VARIANTS[self.variant].partition("--latency-limit ")[2].split()[0]
        return ["resume", str(self.run), "--store", str(self.machine), "--latency-limit", limit, *options]

    def go_on(self, draw: random.Random) -> list[str]:
        """The command line that begins it or goes on with it, as it lies there: by either verb where both would."""
        store = self.run / "latency.sqlite"
        if store.with_name(f"{store.name}.damaged").exists() and not store.exists():
            return self.resume("--remeasure")
        return self.resume() if (self.run / "config.json").exists() and draw.random() < 0.5 else self.expand()

    def live(
        self, faults: Sequence[Fault] = (), arguments: Sequence[str] = (), *, unbuildable: Collection[str] = (), unit_s: float = 0.0
    ) -> Life:
        """Run a command line, by default `expand`, in a process of its own.

        Args:
            faults: what befalls it.
            arguments: the command line.
            unbuildable: networks, each with a boundary, that no engine can be built of.
            unit_s: the seconds whose share a fault at any moment waits for.
        """
        shared = Shared()
        process = _FORK.Process(target=_begin, args=(arguments or self.expand(), faults, unbuildable, shared, self.base / "locks"))
        after_s, number = next(((f.share * unit_s, n) for n, f in enumerate(faults) if f.place == "any moment"), (None, 0))
        process.start()
        process.join(_LONGEST_S if after_s is None else after_s)
        if process.is_alive():
            process.kill()
            if after_s is not None:
                shared.tell("struck", number)
        process.join()
        passes = shared.counts()
        told, printed = shared.close()
        assert process.exitcode is not None
        return Life(code=process.exitcode, printed=printed, told=told, passes=passes)

    def unbuildable(self) -> frozenset[str]:
        """The networks, each with a boundary, that the run holds to be unbuildable."""
        with contextlib.closing(sqlite3.connect(self.run / "latency.sqlite")) as store:
            rows = store.execute("SELECT subject, conditions FROM measurements WHERE failure IS NOT NULL").fetchall()
        return frozenset(f"{subject.split()[0]}@{json.loads(conditions)['boundary']}" for subject, conditions in rows)

    def figures(self) -> str:
        """A digest of the chain, of every candidate's figures, and of the weights; "none" where the search has not ended in any."""
        if not (self.run / "family.csv").is_file():
            return "none"
        told = [(self.run / "family.csv").read_text()]
        for row in csv.DictReader((self.run / "candidates.csv").read_text().splitlines()):
            told.append(str({name: value for name, value in row.items() if name not in _OF_THE_MOMENT}))
        told += [f"left over: {path.name}" for path in sorted(self.run.rglob(".*"))]
        for path in sorted((self.run / "checkpoints").glob("[!.]*")):
            told.append(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def counted(lives: list[Life], what: str) -> Counter[tuple[str, ...]]:
    """How often each thing of a kind was told in all."""
    return Counter(tuple(words[1:]) for life in lives for words in life.told if words[0] == what)


def _begin(arguments: list[str], faults: Sequence[Fault], unbuildable: Collection[str], shared: Shared, locks: Path) -> None:
    os.environ["LPS_SEARCH_LOCKS"] = str(locks)
    for standard in (1, 2):
        os.dup2(shared.output, standard)
    shared.tell("begin")
    striker = Striker(faults, unbuildable, shared)
    _prepare(striker)
    install(striker, shared)
    from search.cli import run

    sys.exit(run(arguments))
