"""Fault drills: `make drill`, or `python -m tests.drill --faults 500 --out results/drills`.

A drill is a small search that suffers several faults, one after the other, each drawn from the drill's number, with where it strikes:
some end its process, which then goes on by the same command or by `resume`, some it must bear. At its end the chain, every
candidate's figures and the weights are held against a search of the same seed that nothing befell. A row a fault is appended to
`drills.csv` as a drill ends, so that the command goes on where it stopped; `summary.json`, `kinds.csv`, `points.csv` and
`strikes.png` are made from the rows. The exit code is 1 where a search did not survive, differs, or lost more than what was running.

What a run promises, and what is checked besides:

- killed, or refused by a full disk: nothing that was finished is trained again; at most what was running is;
- a worker killed, memory short once, a clock that jumps: the search goes on by itself;
- a build that fails: the network is left out, as in a search in which it never can be built;
- a damaged store, journal or image: one line names it and nothing is read over it. A machine's store is moved away; a run's store is
  moved away and filled again from the machine's by `resume --remeasure`, or put back; a journal or an image is put back.

What is not drilled: a loss of power, which takes what the system has not written yet, and a run's copy of a predictor.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.files import append_row, grown_rows
from search.run import JOURNAL as JOURNAL_FILE
from search.run import STORE, provenance
from tests.drill_faults import JOURNAL, PLACES, Fault
from tests.drill_report import write_report
from tests.drill_search import AT_ONCE, Life, Search, counted, warm_up

COMMIT_PLACES = tuple(place for place in PLACES if ":" in place)
_APPENDED = tuple(f"{name}:after" for name in JOURNAL.values())
_NO_WRITE = ("journal locked", "weights removed", "training state removed")
_WRITTEN = tuple(place for place in COMMIT_PLACES if place.partition(":")[0] not in _NO_WRITE)
KINDS: dict[str, tuple[str, ...]] = {
    "driver killed": (*COMMIT_PLACES, "training", "training in a worker", "latency", "latency in a worker", "any moment"),
    "worker killed": ("training in a worker", "latency in a worker"),
    "full disk": _WRITTEN,
    "torn journal tail": _APPENDED,
    "damaged machine's store": COMMIT_PLACES,
    "damaged run's store": COMMIT_PLACES,
    "damaged journal": COMMIT_PLACES,
    "clock jump": (*COMMIT_PLACES, "training", "latency"),
    "out of memory": ("training", "training in a worker"),
    "build failure": ("latency", "latency in a worker"),
    "unreadable image": (*COMMIT_PLACES, "frame"),
}
"""Where each kind of fault strikes."""

_KILL = "driver killed"
_FATAL = (
    _KILL, "full disk", "torn journal tail", "damaged machine's store", _KILL, "full disk", "damaged run's store", _KILL,
    "unreadable image", _KILL, "full disk", "torn journal tail", "damaged journal",
)  # fmt: skip
"""What ends the process, in turns from drill to drill: what is most likely in life most often."""

_BORNE = (("clock jump", "out of memory"), ("build failure", "clock jump"), ("out of memory", "build failure"))
"""What a search must bear, in turns from drill to drill."""

FAULTS = 5
"""Processes of a drill that are ended by a fault."""

SEEDS = 2
"""Searches differ by as many seeds."""

PAGE = 4096
"""Bytes of a page of SQLite's files."""

_NOISE = 40
"""Bytes of a journal that are damaged."""

_LIVES = 5
"""Processes after the last fault after which a search that has not ended is given up."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A search that nothing befell: its figures, passes, and what was trained and measured how often."""

    figures: str
    passes: dict[str, int]
    trained: Counter[tuple[str, ...]]
    measured: Counter[tuple[str, ...]]
    seconds: float


class Drills:
    """Drills in a folder that holds nothing else.

    Args:
        base: the folder, in memory where that is possible: what a power failure loses is not drilled.
    """

    def __init__(self, base: Path) -> None:
        self._base, self._data = base, warm_up(base)
        self._images = {path: path.read_bytes() for path in self._data.glob("images/*/*")}
        self._whole: dict[tuple[str, int, frozenset[str]], Whole] = {}
        self._lives: list[Life] = []

    def whole(self, variant: str, seed: int, unbuildable: frozenset[str] = frozenset()) -> Whole:
        """The search that nothing befell, in which some networks cannot be built."""
        key = (variant, seed, unbuildable)
        if key not in self._whole:
            start = time.monotonic()
            search = self._search("whole", variant, seed)
            life = search.live(unbuildable=unbuildable)
            assert life.code == 0 and not any(again(life.told).values()), life.printed
            self._whole[key] = Whole(
                figures=search.figures(),
                passes=life.passes,
                trained=counted([life], "train"),
                measured=counted([life], "measure"),
                seconds=time.monotonic() - start,
            )
        return self._whole[key]

    def drill(self, number: int) -> list[dict[str, Any]]:
        """Do the drill of a number; returns its rows."""
        draw = random.Random(f"drill {number}")
        workers = number % 5 == 4
        variant, seed = "workers" if workers else draw.choice(("alone", "alone", "alone", "race")), number % SEEDS
        borne = ("worker killed",) * 2 if workers else _BORNE[number % len(_BORNE)]
        passes = self.whole(variant, seed).passes

        def faults(turn: int) -> list[Fault]:
            fatal = _FATAL[(number * FAULTS + turn) % len(_FATAL)]
            return [self.drawn(draw, kind, passes, turn) for kind in (*borne[turn::FAULTS], fatal)]

        return [{"drill": number, **row} for row in self.perform(variant, seed, [faults(turn) for turn in range(FAULTS)], draw)]

    def perform(self, variant: str, seed: int, turns: Sequence[list[Fault]], draw: random.Random) -> list[dict[str, Any]]:
        """Let faults befall a search, one process after the other; returns a row for each that struck, which all tell what it came to.

        Args:
            variant: of the search.
            seed: of the search.
            turns: what befalls each process; the last fault of each ends it.
            draw: decides what is damaged how, and by which command the search goes on.
        """
        start, unit_s = time.monotonic(), self.whole(variant, seed).seconds / len(turns)
        search = self._search("drill", variant, seed)
        self._lives, rows = [], []
        for faults in turns:
            rows += self.suffer(search, faults, draw, unit_s)
            if self._lives[-1].code == 0:
                break
        last = len(self._lives)
        while (self._lives[-1].code != 0 or len(self._lives) == last) and len(self._lives) < last + _LIVES:
            self._lives.append(search.live(arguments=search.go_on(draw)))
        unbuildable = search.unbuildable() if self._lives[-1].code == 0 else frozenset()
        # One that found no memory waits until the others of its step have ended: until then it is unfinished, too.
        at_once = AT_ONCE[variant] + sum(row["kind"] == "out of memory" for row in rows)
        found = verdict(self._lives, search.figures(), self.whole(variant, seed, unbuildable), at_once)
        seconds = round(time.monotonic() - start, 1)
        return [{"variant": variant, "seed": seed, **row, **found, "seconds": seconds} for row in rows]

    def drawn(self, draw: random.Random, kind: str, passes: dict[str, int], turn: int) -> Fault:
        """A fault of a kind, all points where it may strike alike likely, so early that others can follow."""
        points: dict[str, list[str]] = {}
        for place in KINDS[kind]:
            if (place in passes or place == "any moment") and not (turn and place.startswith("environment.json")):
                points.setdefault(place.partition(":")[0], []).append(place)
        point = "frame" if "frame" in points and draw.random() < 0.5 else draw.choice(sorted(points))
        place = draw.choice(points[point])
        # The start is no candidate: a search whose first network cannot be built ends.
        first = 3 if kind == "build failure" else 1
        count = draw.randint(first, max(first, passes.get(place, 1) // FAULTS))
        return Fault(kind=kind, place=place, count=count, share=draw.random())

    def suffer(self, search: Search, faults: list[Fault], draw: random.Random, unit_s: float) -> list[dict[str, Any]]:
        """Let faults befall a process of a search, the last of which ends it; returns a row for each that struck."""
        options = ["--max-hours", "1"] if any(fault.kind == "clock jump" for fault in faults) else []
        life = search.live(faults, [*search.go_on(draw), *options], unit_s=unit_s)
        self._lives.append(life)
        told = life.complaints
        if len(faults) - 1 in life.struck and (repair := self.damage(search, faults[-1], draw)):
            self._lives.append(search.live())
            told = self._lives[-1].complaints
            repair()
        rows = []
        for number in life.struck:
            fault = faults[number]
            row = {"kind": fault.kind, "place": fault.place, "count": fault.count}
            rows.append(row | {"told": self._shortened(told) if fault is faults[-1] else ""})
        return rows

    def damage(self, search: Search, fault: Fault, draw: random.Random) -> Callable[[], None] | None:
        """Damage a file as a fault's kind says, where it is there; returns what its user does after it was refused."""
        stores = {"damaged machine's store": search.machine, "damaged run's store": search.run / STORE}
        if store := stores.get(fault.kind):
            if not store.is_file() or not store.stat().st_size:
                return None
            content = store.read_bytes()
            overwrite_page(store, draw)

            def away() -> None:
                if store != search.machine and search.machine.with_name(f"{search.machine.name}.damaged").exists():
                    store.write_bytes(content)  # the machine's store, which was moved away, cannot fill it
                    return
                for path in (store, store.with_name(f"{store.name}-journal")):
                    if path.exists():
                        path.rename(f"{path}.damaged")

            return away
        if fault.kind == "damaged journal":
            return overwrite_line(search.run / JOURNAL_FILE, draw)
        if fault.kind == "unreadable image":
            if fault.place != "frame":  # else it was cut when the search came to read it
                path = draw.choice(sorted(self._images))
                path.write_bytes(self._images[path][: draw.randrange(len(self._images[path]))])
            return self._restored
        return None

    def _restored(self) -> None:
        for path, content in self._images.items():
            path.write_bytes(content)

    def printed(self) -> str:
        """What the processes of the last drill printed."""
        return "\n".join(f"--- exit code {life.code}\n{life.printed}" for life in self._lives)

    def _shortened(self, told: list[str]) -> str:
        return "; ".join(told).replace(str(self._base), "")[:200]

    def _search(self, name: str, variant: str, seed: int) -> Search:
        base = self._base / name
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        return Search(base=base, data=self._data, variant=variant, seed=seed)


def overwrite_page(store: Path, draw: random.Random) -> None:
    """Put zeros or noise in the place of a page of an SQLite file."""
    page = draw.randrange(store.stat().st_size // PAGE)
    with store.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(bytes(PAGE) if draw.random() < 0.5 else draw.randbytes(PAGE))


def overwrite_line(journal: Path, draw: random.Random) -> Callable[[], None] | None:
    """Put noise in the place of a few bytes of a journal, above its last line; returns what puts them back, None for too short a one."""
    content = journal.read_bytes() if journal.is_file() else b""
    last = content.rstrip(b"\n").rfind(b"\n")
    if last < _NOISE:
        return None
    at = draw.randrange(last - _NOISE + 1)
    journal.write_bytes(content[:at] + draw.randbytes(_NOISE) + content[at + _NOISE :])

    def put_back() -> None:
        journal.write_bytes(content)

    return put_back


def verdict(lives: list[Life], figures: str, whole: Whole, at_once: int) -> dict[str, Any]:
    """What a search came to against one that nothing befell.

    Args:
        lives: its processes.
        figures: of its end.
        whole: the other one.
        at_once: trainings that may have been running when a fault struck.
    """
    begun = again([words for life in lives for words in life.told])
    strikes = sum(max(len(life.struck), life.code != 0) for life in lives)
    trained = (counted(lives, "train") - whole.trained).total()
    measured = (counted(lives, "measure") - whole.measured).total()
    return {
        "faults": sum(len(life.struck) for life in lives),
        "lives": len(lives),
        "survived": lives[-1].code == 0 and all(life.orderly for life in lives),
        "same": figures == whole.figures,
        "trained_again": trained,
        "most_at_once": begun["most"],
        "finished_again": begun["finished"],
        "measured_again": measured,
        "within": not begun["finished"] and begun["most"] <= at_once and trained <= at_once * strikes and measured <= strikes,
    }


def again(told: list[list[str]]) -> dict[str, int]:
    """Trainings that were opened again: how many of them had been finished and kept, and the most between two ends of a process."""
    seen, kept = set(), set()
    found, here = {"finished": 0, "most": 0}, 0
    for what, *key in told:
        named = tuple(key)
        if what == "begin":
            here = 0
        elif what == "keep":
            kept.add(named)
        elif what == "open":
            here += named in seen
            found = {"finished": found["finished"] + (named in kept), "most": max(found["most"], here)}
            seen.add(named)
    return found


def failed(row: dict[str, Any]) -> bool:
    """Whether a search did not survive, differs, or lost more than what was running."""
    return any(str(row[name]) != "True" for name in ("survived", "same", "within"))


def main(arguments: list[str], drills: type[Drills] = Drills) -> int:
    """Do drills until there are as many faults as asked for; returns 1 where one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description="Random faults over a small search.")
    parser.add_argument("--faults", type=int, default=500, help="how many faults there are to be in all, those of earlier calls included")
    parser.add_argument("--out", type=Path, default=Path("results/drills"), help="folder of the rows, and of what is made of them")
    parser.add_argument("--only", type=int, help="do the drill of this number, show what was printed, and record nothing")
    asked = parser.parse_args(arguments)
    path, made = asked.out / "drills.csv", provenance() | {"command": f"python -m tests.drill --faults {asked.faults}"}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None, prefix="lps-search-drill-") as base:
        if asked.only is not None:
            working = drills(Path(base))
            rows = working.drill(asked.only)
            print(working.printed(), *rows, sep="\n")
            return int(any(map(failed, rows)))
        working = None
        while len(rows := grown_rows(path)) < asked.faults:
            working = working or drills(Path(base))
            for row in working.drill(int(rows[-1]["drill"]) + 1 if rows else 0):
                append_row(path, row | {"commit": made["commit"][:7]})
                if failed(row):
                    print(f"failed: {row}; python -m tests.drill --only {row['drill']} shows it", flush=True)
    return int(not write_report(asked.out, grown_rows(path), made))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
