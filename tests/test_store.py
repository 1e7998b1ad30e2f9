"""The latency store: what goes in comes out, one answer a key, many writers, and damage that is named."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latency.measurement import Conditions, Environment, Measurement, TimingPlan
from latency.store import Store, StoreError, default_store_path

ROOT = Path(__file__).resolve().parents[1]
CONDITIONS = Conditions(backend="ort", device="cpu", shape=(1, 3, 64, 128), boundary="scores", threads=2, plan=TimingPlan(min_s=0.1))
HERE = Environment(device="Some CPU", cores=2, driver="", versions={"onnxruntime": "1.31.1"})

WRITER = """
import sys
from pathlib import Path
from latency.measurement import Conditions, Environment, Measurement
from latency.store import Store

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
conditions = Conditions(backend="ort", device="cpu", shape=(1, 3, 64, 128), boundary="scores")
environment = Environment(device="Some CPU", cores=2, driver="", versions={})
store = Store(path)
print("open", flush=True)
sys.stdin.readline()
for number in range(count):
    store.add(Measurement(subject=f"{name}-{number}", conditions=conditions, environment=environment, created="now",
                          samples_ms=tuple(1.0 + i for i in range(200)), clock="perf_counter", warmup_runs=3, load_s=0.1))
    print(number, flush=True)
"""


def measurement(first_ms: float = 1.0, subject: str = "net") -> Measurement:
    return Measurement(
        subject=subject,
        conditions=CONDITIONS,
        environment=HERE,
        samples_ms=tuple(first_ms + number / 7 for number in range(9)),
        clock="perf_counter",
        warmup_runs=4,
        load_s=0.25,
        created="2026-01-01T00:00:00+00:00",
        found={"providers": ["CPUExecutionProvider"], "output_shape": [1, 19, 4, 8]},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "below" / "latency.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_measurement_comes_back_as_it_went_in(store: Store) -> None:
    taken = measurement(1 / 3)
    store.add(taken)
    assert store.find("net", CONDITIONS, HERE) == taken
    assert store.all() == [taken]


def test_nothing_is_found_in_an_empty_store(store: Store) -> None:
    assert store.find("net", CONDITIONS, HERE) is None
    assert store.all() == []


def test_the_first_row_of_a_key_is_its_answer(store: Store) -> None:
    for first_ms in (5.0, 1.0, 9.0):
        store.add(measurement(first_ms))
    assert store.find("net", CONDITIONS, HERE) == measurement(5.0)
    assert [taken.samples_ms[0] for taken in store.all()] == [5.0, 1.0, 9.0]


def test_another_subject_condition_or_environment_is_another_key(store: Store) -> None:
    store.add(measurement())
    assert store.find("network", CONDITIONS, HERE) is None
    for change in ({"boundary": "labels"}, {"threads": 1}, {"shape": (1, 3, 128, 64)}, {"plan": TimingPlan(min_s=0.2)}):
        assert store.find("net", dataclasses.replace(CONDITIONS, **change), HERE) is None
    for change in ({"device": "Other CPU"}, {"cores": 1}, {"versions": {"onnxruntime": "1.31.2"}}):
        assert store.find("net", CONDITIONS, dataclasses.replace(HERE, **change)) is None
    assert store.find("net", dataclasses.replace(CONDITIONS), dataclasses.replace(HERE)) == measurement()


def test_a_failure_comes_back_as_its_reason_and_is_no_measurement(store: Store) -> None:
    store.add_failure("net", CONDITIONS, HERE, "2026-01-01T00:00:00+00:00", "ONNX export failed: 'quoted'; naïve")
    assert store.find("net", CONDITIONS, HERE) == "ONNX export failed: 'quoted'; naïve"
    assert store.all() == []


def test_a_failure_answers_its_key_even_if_a_measurement_follows(store: Store) -> None:
    store.add_failure("net", CONDITIONS, HERE, "", "out of memory")
    store.add(measurement())
    assert store.find("net", CONDITIONS, HERE) == "out of memory"


def test_an_empty_reason_is_still_a_failure(store: Store) -> None:
    store.add_failure("net", CONDITIONS, HERE, "", "")
    assert store.find("net", CONDITIONS, HERE) == ""
    assert store.all() == []


def test_rows_are_there_when_the_store_is_opened_again(path: Path) -> None:
    for number in range(3):
        store = Store(path)
        store.add(measurement(subject=f"net-{number}"))
        store.close()
    store = Store(path)
    assert [taken.subject for taken in store.all()] == ["net-0", "net-1", "net-2"]
    store.close()


def test_two_open_stores_see_each_others_rows(store: Store, path: Path) -> None:
    other = Store(path)
    other.add(measurement(subject="theirs"))
    store.add(measurement(subject="mine"))
    assert store.find("theirs", CONDITIONS, HERE) == measurement(subject="theirs")
    assert other.find("mine", CONDITIONS, HERE) == measurement(subject="mine")
    other.close()


def test_two_writing_processes_lose_nothing(store: Store, path: Path) -> None:
    processes = [writer(path, name, 50) for name in ("a", "b")]
    for process in processes:  # both stores are open now, so that the rows are written side by side
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    found = [taken.subject for taken in store.all()]
    for name in ("a", "b"):
        assert [subject for subject in found if subject[0] == name] == [f"{name}-{number}" for number in range(50)]


def test_a_killed_writer_leaves_a_readable_store_with_every_acknowledged_row(path: Path) -> None:
    process = writer(path, "a", 100_000)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    acknowledged = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.readlines()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    last = max(int(line) for line in acknowledged if line.endswith("\n"))
    store = Store(path)
    found = [taken.subject for taken in store.all()]
    assert found == [f"a-{number}" for number in range(len(found))]
    assert len(found) > last
    store.add(measurement())
    store.close()


def test_a_snapshot_has_every_row_and_leaves_the_file_alone(path: Path) -> None:
    store = Store(path)
    for number in range(3):
        store.add(measurement(subject=f"net-{number}"))
    store.add_failure("broken", CONDITIONS, HERE, "now", "out of memory")
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    seen = Store.snapshot(path)
    assert seen.all() == store.all() and seen.all(beyond=2) == store.all()[2:]
    assert seen.find("broken", CONDITIONS, HERE) == "out of memory" and seen.last_row() == 4
    store.add(measurement(subject="later"))
    seen.add(measurement(subject="nowhere"))
    assert seen.find("later", CONDITIONS, HERE) is None and store.find("nowhere", CONDITIONS, HERE) is None
    assert before[0] != path.read_bytes() and before[2] == sorted(path.parent.iterdir())
    store.close()
    assert Store.snapshot(path).last_row() == 5


def test_a_snapshot_is_taken_beside_an_open_writer_and_leaves_no_lock(path: Path) -> None:
    Store(path).add(measurement())
    writer = sqlite3.connect(path, timeout=0, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # a writer that has not written yet
    assert len(Store.snapshot(path).all()) == 1
    writer.execute("COMMIT")
    Store.snapshot(path)
    writer.execute("BEGIN EXCLUSIVE")  # would be refused at once if anybody held a lock
    writer.execute("ROLLBACK")
    writer.close()


def test_snapshots_beside_a_busy_writer_are_whole(path: Path) -> None:
    process = writer(path, "a", 300)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    counts = []
    while process.poll() is None and len(counts) < 200:
        found = [taken.subject for taken in Store.snapshot(path).all()]
        assert found == [f"a-{number}" for number in range(len(found))]
        counts.append(len(found))
    process.communicate()
    assert counts == sorted(counts) and len(Store.snapshot(path).all()) == 300


def test_a_snapshot_of_what_a_killed_writer_left_rolls_it_back(path: Path) -> None:
    Store(path).add(measurement())
    dying = sqlite3.connect(path, isolation_level=None)
    dying.execute("PRAGMA cache_size = 1")
    dying.execute("BEGIN")
    dying.execute("UPDATE measurements SET detail = ?", ("x" * 200_000,))
    left = path.parent / "left.sqlite"
    shutil.copy(path, left)
    shutil.copy(f"{path}-journal", f"{left}-journal")
    dying.execute("ROLLBACK")
    dying.close()
    assert left.read_bytes() != path.read_bytes(), "nothing of the update reached the file"
    assert Store.snapshot(left).all() == [measurement()]


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to look like one" * 40])
def test_a_snapshot_of_something_else_is_refused_and_of_an_empty_file_empty(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    if content:
        with pytest.raises(StoreError, match=r"latency\.sqlite is corrupt"):
            Store.snapshot(path)
    else:
        assert Store.snapshot(path).all() == []
    with pytest.raises(StoreError, match="cannot be read"):
        Store.snapshot(path.parent / "none.sqlite")


def test_random_bytes_are_no_store(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(np.random.default_rng(0).bytes(40_000))
    with pytest.raises(StoreError, match=r"below/latency\.sqlite is corrupt"):
        Store(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_damaged_page_is_named_and_not_read_over(path: Path, share: float) -> None:
    store = Store(path)
    for number in range(60):
        store.add(dataclasses.replace(measurement(subject=f"net-{number}"), samples_ms=tuple(1 + i / 3 for i in range(400))))
    store.close()
    connection = sqlite3.connect(path)
    page = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * share) // page * page)
        file.write(np.random.default_rng(1).bytes(page))
    with pytest.raises(StoreError, match=r"below/latency\.sqlite"):
        Store(path).all()


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("detail", "{"),
        ("detail", "[]"),
        ("detail", '{"samples_ms": [1, 2, 3, 4, 5]}'),
        ("detail", "5"),
        ("conditions", "{}"),
        ("environment", "no json"),
    ],
)
def test_a_row_that_makes_no_sense_is_named_by_file_and_row(store: Store, path: Path, column: str, text: str) -> None:
    store.add(measurement(subject="sound"))
    store.add(measurement(subject="broken"))
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE measurements SET {column} = ? WHERE subject = 'broken'", (text,))
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=r"below/latency\.sqlite is corrupt in row 2"):
        store.all()
    assert store.find("sound", CONDITIONS, HERE) == measurement(subject="sound")


def test_a_file_where_a_folder_is_due_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"file/latency\.sqlite cannot be opened"):
        Store(tmp_path / "file" / "latency.sqlite")
    with pytest.raises(StoreError, match=r"file/below/latency\.sqlite cannot be opened"):
        Store(tmp_path / "file" / "below" / "latency.sqlite")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_folder_where_the_file_is_due_is_named(tmp_path: Path) -> None:
    (tmp_path / "latency.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"latency\.sqlite"):
        Store(tmp_path / "latency.sqlite")


def test_a_database_of_something_else_with_a_table_of_that_name_is_refused(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE measurements (id INTEGER PRIMARY KEY, weight REAL)")
    connection.close()
    with pytest.raises(StoreError, match=r"below/latency\.sqlite"):
        Store(path)


def test_the_default_store_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setenv("XDG_DATA_HOME", "/shared/data")
    monkeypatch.setenv("LPS_SEARCH_STORE", "~/mine.sqlite")
    assert default_store_path() == Path("/somebody/mine.sqlite")
    monkeypatch.delenv("LPS_SEARCH_STORE")
    assert default_store_path() == Path("/shared/data/lps-search/latency.sqlite")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_store_path() == Path("/somebody/.local/share/lps-search/latency.sqlite")
    monkeypatch.setenv("LPS_SEARCH_STORE", "")
    assert default_store_path() == Path("/somebody/.local/share/lps-search/latency.sqlite")
