"""Inputs that coverage guides: `pip install atheris && python -m tests.fuzz_guided TARGET [RUNS]`, a row of `results/fuzz/guided.csv`.

It finds its way into branches that `fuzz.py` draws only by luck, in pure Python only: texts of networks, JSON and YAML. A finding ends it,
with its traceback, and leaves the input in a file `crash-...`.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Reader = Callable[[bytes], Any]
OUT = Path(__file__).resolve().parents[1] / "results" / "fuzz" / "guided.csv"


def architecture(folder: Path) -> tuple[Reader, list[bytes]]:
    from lpsnet.architecture import NAMED, Architecture

    return lambda data: Architecture.parse(data.decode(errors="replace")), [str(one).encode() for one in NAMED.values()]


def description(folder: Path) -> tuple[Reader, list[bytes]]:
    from lpsnet.data.folder import read_description

    def read(data: bytes) -> None:
        (folder / "dataset.yaml").write_bytes(data)
        read_description.cache_clear()
        read_description(folder)

    return read, [b"classes: [a, {name: b, colour: [1, 2, 3]}]\nsize: [72, 128]\nignore: 255\n"]


def config(folder: Path) -> tuple[Reader, list[bytes]]:
    from search.config import SearchConfig
    from search.run import read_header

    def read(data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        read_header(folder)

    values = {"format": 1, "study": "s", "class_names": ["a"], "config": SearchConfig(data="synthetic", height=64, width=64).to_dict()}
    return read, [json.dumps(values).encode()]


TARGETS = {"architecture": architecture, "dataset.yaml": description, "config": config}
WATCHED = (
    "lpsnet.architecture",
    "lpsnet.recipe",
    "lpsnet.data.folder",
    "latency.told",
    "latency.measurement",
    "search.config",
    "search.run",
)


def main() -> None:
    import atheris

    name, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
    with atheris.instrument_imports(include=["lpsnet", "latency", "search", "yaml", "json"]):
        for module in WATCHED:
            importlib.import_module(module)
        from search.cli.failures import USER_ERRORS
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    read, seeds = TARGETS[name](folder)
    (folder / "corpus").mkdir()
    for number, seed in enumerate(seeds):
        (folder / "corpus" / str(number)).write_bytes(seed)
    counts = {"target": name, "inputs": 0, "accepted": 0}

    def attempt(data: bytes) -> None:
        counts["inputs"] += 1  # type: ignore[operator]
        with contextlib.suppress(*USER_ERRORS):
            read(data)
            counts["accepted"] += 1  # type: ignore[operator]
        if counts["inputs"] == runs:  # atheris ends the process
            _write(counts)
            shutil.rmtree(folder)

    atheris.Setup([sys.argv[0], f"-runs={runs}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=4096", str(folder / "corpus")], attempt)
    atheris.Fuzz()


def _write(counts: dict[str, Any]) -> None:
    rows = list(csv.DictReader(OUT.read_text().splitlines())) if OUT.exists() else []
    rows = sorted([row for row in rows if row["target"] != counts["target"]] + [counts], key=lambda row: str(row["target"]))
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(counts), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
