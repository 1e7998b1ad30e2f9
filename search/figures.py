"""Figures of latency tables and of the study of the proxy (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latency.layers import LayerRow
from latency.table import ConvRow
from search.files import new_figure


def draw_widths(rows: Sequence[ConvRow], path: Path, title: str) -> None:
    """Latency and efficiency over the width, standard against separable (the paper's Fig. 4 and 5), sweet spots filled."""
    figure = new_figure(10, 4.2)
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


def draw_layers(rows: Sequence[LayerRow], path: Path, title: str) -> None:
    """Latency over multiply-adds of every convolution of a layer table, on logarithmic axes, one colour a feature map's height."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    figure = new_figure(7, 4.6)
    axes = figure.subplots()
    heights = [row.conv.height for row in rows]
    norm = LogNorm(min(heights), max(max(heights), min(heights) + 1))
    for stride, marker in ((1, "o"), (2, "^")):
        mine = [row for row in rows if row.conv.stride == stride]
        macs, times = [row.conv.macs / 1e6 for row in mine], [row.latency_ms for row in mine]
        axes.scatter(macs, times, c=[row.conv.height for row in mine], norm=norm, marker=marker, s=16, label=f"stride {stride}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("M MACs of a layer")
    axes.set_ylabel("milliseconds a layer")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.colorbar(ScalarMappable(norm=norm, cmap="viridis"), ax=axes, label="height of the feature map (pixels)", format="%d")
    axes.set_title(f"{len(rows)} 3x3 convolutions, {title}", fontsize=10)
    figure.savefig(path)


def draw_rankings(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """How each training ranks over all steps, the cheapest at the top: rank correlation and regret with their 95 % intervals."""
    whole = sorted((row for row in rows if row["step"] == "all"), key=lambda row: row["iterations"], reverse=True)
    figure = new_figure(9, 1.2 + 0.3 * len(whole))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, name, color in ((left, "kendall", "#d55e00"), (right, "regret", "#0072b2")):
        for place, row in enumerate(whole):
            axes.errorbar(row[name], place, xerr=_ends(row, name), fmt="o", markersize=5, color=color, capsize=2)
        axes.axvline(0, color="0.6", linewidth=1)
        axes.grid(alpha=0.3)
    left.set_yticks(range(len(whole)), [row["setting"] for row in whole])
    left.set_xlabel("Kendall tau of the slopes")
    right.set_xlabel("regret of the choice (points of mIoU)")
    figure.savefig(path)


def _ends(row: Mapping[str, Any], name: str) -> list[list[float]]:
    """Distances from a figure to the ends of its interval, as error bars want them."""
    return [[max(0.0, row[name] - row[f"{name}_low"])], [max(0.0, row[f"{name}_high"] - row[name])]]
