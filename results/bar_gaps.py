"""Longest stillness of the progress bar in a search: `python results/bar_gaps.py RUN [OPTIONS OF EXPAND]`, exit 1 above 10 s.

Runs `lps-search expand` in this process and times the calls that move its bar; prints the figure as one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise

from search.cli import run
from search.cli.console import Live

LIMIT_S = 10.0

if __name__ == "__main__":
    marks = [(time.perf_counter(), "start")]
    work = Live.work

    def timed(self: Live, what: str, done: int, total: int, detail: str = "") -> None:
        marks.append((time.perf_counter(), f"{what} {done}/{total} {detail}".strip()))
        work(self, what, done, total, detail)

    Live.work = timed  # type: ignore[method-assign]
    code = run(["expand", "--out", *sys.argv[1:]])
    marks.append((time.perf_counter(), "end"))
    gaps = [(after - before, text) for (before, _), (after, text) in pairwise(marks)]
    longest, text = max(gaps)
    whole = marks[-1][0] - marks[0][0]
    print(
        json.dumps(
            {"longest_gap_s": round(longest, 2), "before": text, "search_s": round(whole, 1), "moves": len(marks) - 2, "limit_s": LIMIT_S}
        )
    )
    sys.exit(code or longest > LIMIT_S)
