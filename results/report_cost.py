"""What a report of 14 steps costs: `python results/report_cost.py` makes up a run, reports it in fresh processes and writes `report.json`.

The run's latencies and scores mean nothing (`tests/long_run.py`); its size is that of a search of 14 steps with all ten operations. In each
turn the report is built once with its pictures predicted and once with them kept. `build_s` is what the command tells: from the stores to
the written files; `command_s` and its CPU time begin with the interpreter, and hold the import of torch. Exits 1 where a limit is missed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from search.run import provenance

ROOT = Path(__file__).resolve().parents[1]
STEPS, TURNS = 14, 3
MOST_S, MOST_BYTES = 3.0, 8_000_000


def timed(*arguments: str) -> dict[str, Any]:
    """What a command prints as JSON, with its seconds and CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout or "{}"), "command_s": seconds, "command_cpu_s": cpu}


def main() -> int:
    """Measure, write and print; returns the exit code."""
    found: dict[str, list[dict[str, Any]]] = {"predicted": [], "kept": []}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        timed("tests.long_run", str(run), str(STEPS))
        for turn in range(TURNS):
            for turns in found.values():
                turns.append(timed("search", "report", str(run), "--out", str(Path(folder) / f"report-{turn}"), "--json"))
    size = found["kept"][-1]["bytes"]
    met = max(turn["seconds"] for turns in found.values() for turn in turns) <= MOST_S and size <= MOST_BYTES
    limits = {"limit_s": MOST_S, "limit_bytes": MOST_BYTES}
    result = {**provenance(), "steps": STEPS, "bytes": size, **limits, "met": met, "load": round(os.getloadavg()[0], 1)}
    names = {"build_s": "seconds", "command_s": "command_s", "command_cpu_s": "command_cpu_s"}
    for kind, turns in found.items():
        result[kind] = {name: [round(turn[value], 2) for turn in turns] for name, value in names.items()}
    (ROOT / "results" / "report.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
