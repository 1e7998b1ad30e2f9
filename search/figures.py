"""Figures of latency tables (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latency.table import ConvRow


def draw_widths(rows: Sequence[ConvRow], path: Path, title: str) -> None:
    """Latency and efficiency over the width, standard against separable (the paper's Fig. 4 and 5), sweet spots filled."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for separable, colour, name in ((False, "#0072b2", "standard"), (True, "#d55e00", "separable")):
        mine = [row for row in rows if row.separable == separable]
        spots = [row for row in mine if row.sweet_spot]
        for axes, value in ((left, "latency_ms"), (right, "efficiency")):
            axes.plot([r.width for r in mine], [getattr(r, value) for r in mine], "o-", color=colour, markersize=4, mfc="white", label=name)
            axes.plot([r.width for r in spots], [getattr(r, value) for r in spots], "o", color=colour, markersize=5)
    left.set_ylabel("milliseconds a layer")
    right.set_ylabel("G MACs a millisecond")
    for axes in (left, right):
        axes.set_xlabel("channels in and out")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    left.legend(frameon=False)
    figure.suptitle(f"3x3 convolutions, {title}; filled: no wider layer costs the same", fontsize=10)
    figure.savefig(path)
