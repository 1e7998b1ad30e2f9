"""The fault drills themselves: every kind of fault strikes and is survived, and a search that goes wrong is found out."""

from __future__ import annotations

import csv
import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drill import KINDS, Drills, Fault, failed, main
from tests.drill_faults import COMMITS
from tests.drill_search import Search
from tests.processes import Process


def fault(kind: str, place: str, count: int = 1) -> Fault:
    return Fault(kind=kind, place=place, count=count, share=0.4)


pytestmark = pytest.mark.alone

ALONE = [
    [fault("clock jump", "driver.lock:after"), fault("build failure", "latency", 5), fault("driver killed", "weights:middle", 2)],
    [fault("out of memory", "training", 4), fault("torn journal tail", "journal attribute:after", 30)],
    [fault("damaged run's store", "journal outcome:before")],
    [fault("full disk", "weights:before")],
    [fault("damaged machine's store", "journal trial:after")],
    [fault("unreadable image", "journal locked:after", 20)],
    [fault("damaged journal", "candidates.csv:middle")],
    [fault("full disk", "journal locked:after")],
]
WORKERS = [[fault("worker killed", "latency in a worker", 4), fault("worker killed", "training in a worker", 5)]]


class Tampering(Drills):
    """Drills in which somebody, once told to, changes a latency and cuts the journal behind the back of a killed search."""

    tampers = False

    def damage(self, search: Search, fault: Fault, draw: random.Random) -> Callable[[], None] | None:
        if not self.tampers:
            return super().damage(search, fault, draw)
        with sqlite3.connect(search.run / "latency.sqlite") as store:
            (detail,) = store.execute("SELECT detail FROM measurements WHERE id = 1").fetchone()
            slower = {**json.loads(detail), "samples_ms": [0.4] * 5}
            store.execute("UPDATE measurements SET detail = ? WHERE id = 1", (json.dumps(slower),))
        journal = search.run / "study.journal"
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[: len(lines) // 2]))
        return None


def drills(base: Path) -> None:
    """The tests that need processes forked from one that has warmed up; in one process, as that takes seconds."""
    working = Tampering(base)
    rows = [*working.perform("alone", 0, ALONE, random.Random(1)), *working.perform("workers", 0, WORKERS, random.Random(2))]
    assert [row["kind"] for row in rows] == [one.kind for turn in (*ALONE, *WORKERS) for one in turn], rows
    assert {row["kind"] for row in rows} == set(KINDS)
    assert not any(map(failed, rows)), (rows, working.printed())
    assert all(bool(row["told"]) == (row["kind"].startswith(("full", "damaged", "unreadable"))) for row in rows), rows
    working.tampers = True
    (row,) = working.perform("alone", 0, [[fault("driver killed", "journal outcome:after", 4)]], random.Random(3))
    assert failed(row) and row["survived"] and not row["same"] and row["finished_again"] > 0 and not row["within"], row


def test_every_kind_of_fault_is_survived_and_a_search_that_goes_wrong_is_found_out(tmp_path: Path) -> None:
    process = Process(drills, tmp_path, output=tmp_path / "printed", environment={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.ends(290) == 0, process.printed()


class Canned:
    """Drills of two faults each that come to what they are told to."""

    sound = True

    def __init__(self, base: Path) -> None:
        pass

    def drill(self, number: int) -> list[dict[str, Any]]:
        places = [f"{point}:{when}" for point, times in COMMITS.items() for when in times]
        found = {"survived": True, "same": self.sound, "within": True, "most_at_once": 1, "finished_again": 0}
        return [{"drill": number, "kind": "full disk", "place": places[(2 * number + n) % len(places)], **found} for n in (0, 1)]


class Unsound(Canned):
    sound = False


@pytest.mark.parametrize(("kind", "code"), [(Canned, 0), (Unsound, 1)])
def test_rows_accrue_and_tell_whether_all_went_well(tmp_path: Path, kind: Any, code: int) -> None:
    assert main(["--faults", "3", "--out", str(tmp_path)], kind) == 1  # too few to hit every commit point
    assert json.loads((tmp_path / "summary.json").read_text())["commit_points_hit"] < len(COMMITS)
    before = (tmp_path / "drills.csv").read_text()
    (tmp_path / "drills.csv").write_text(before + "2,full di")  # killed while it wrote
    assert main(["--faults", "60", "--out", str(tmp_path)], kind) == code
    after = (tmp_path / "drills.csv").read_text()
    assert after.startswith(before)
    rows = list(csv.DictReader(after.splitlines()))
    assert [int(row["drill"]) for row in rows] == [number // 2 for number in range(60)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["faults"] == 60 and summary["searches"] == 30 and summary["chains_differ"] == (0 if code == 0 else 30)
    points = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    assert sum(int(row["faults"]) for row in points) == 60 and {row["point"] for row in points} >= set(COMMITS)
    assert (tmp_path / "strikes.png").read_bytes().startswith(b"\x89PNG")
