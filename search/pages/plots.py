"""Parts of plotly figures as plain values: points with their texts, axes, symbols. Pure; plotly itself is only needed by the page.

plotly reads markup in every text it draws, so texts are escaped here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

SYMBOLS = {"circle": "circle", "square": "square", "diamond": "diamond", "triangle": "triangle-up", "star": "star", "cross": "x"}
"""Marker of plotly by the name of a swatch."""

DIMENSIONS = {"start": "circle", "depth": "square", "width": "diamond", "scale": "triangle"}
"""Shape by dimension, so that colour alone tells nothing; the colours are of the same names."""

TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Ticks a decade of a logarithmic axis; wide ones have fewer."""


def escaped(text: str) -> str:
    """A text that plotly draws as it is."""
    return html.escape(text, quote=False)


def points(
    x: Sequence[float | None],
    y: Sequence[float | None],
    texts: Sequence[Sequence[str]],
    *,
    colour: str,
    shape: str = "circle",
    size: float = 9.0,
    opacity: float = 1.0,
    outlined: bool = False,
    line: str = "",
    stairs: bool = False,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """A trace of points.

    Args:
        x: positions.
        y: likewise, as many.
        texts: what is told of each point, line by line.
        colour: name of a colour of the page's style.
        shape: of the markers.
        size: of the markers, pixels; 0 for none.
        opacity: of the markers.
        outlined: whether the markers stand out.
        line: "solid", "dash" or "dot" joins the points.
        stairs: whether the line runs level from point to point.
        labels: a short text beside each point.
    """
    modes = ["markers"] * bool(size) + ["lines"] * bool(line) + ["text"] * bool(labels)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "+".join(modes),
        "x": list(x),
        "y": list(y),
        "hoverinfo": "text",
        "hovertext": ["<br>".join(map(escaped, lines)) for lines in texts],
        "customdata": [", ".join(lines) for lines in texts],
    }
    if size:
        edge = {"color": "--ink", "width": 1.5 if outlined else 0}
        trace["marker"] = {"color": f"--{colour}", "symbol": SYMBOLS[shape], "size": size, "opacity": opacity, "line": edge}
    if line:
        trace["line"] = {"color": f"--{colour}", "width": 1.5, "dash": line, "shape": "hv" if stairs else "linear"}
    if labels:
        trace |= {"text": [escaped(label) for label in labels], "textposition": "top left", "textfont": {"size": 11}}
    return trace


def bars(minus: Sequence[float], plus: Sequence[float], colour: str, *, width: float = 1.2, cap: float = 3.0) -> dict[str, Any]:
    """Error bars of a trace: how far they reach below and above each point."""
    reach = {"type": "data", "symmetric": False, "array": list(plus), "arrayminus": list(minus)}
    return {**reach, "color": f"--{colour}", "thickness": width, "width": cap}


def linear(title: str, **more: Any) -> dict[str, Any]:
    """A linear axis."""
    return {"title": {"text": escaped(title)}, **more}


def by_step(numbers: Sequence[int], **more: Any) -> dict[str, Any]:
    """An axis of steps."""
    return linear("step", tickmode="array", tickvals=list(numbers), tickangle=0, tickfont={"size": 11}, showgrid=False, **more)


def logarithmic(title: str, values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis over positive values, its ticks written out."""
    low, high = min(values), max(values)
    decades = math.log10(high / low)
    steps = TICKS if decades < 1.2 else (1.0, 2.0, 5.0) if decades < 3.5 else (1.0,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [step * 10.0**power for power in range(first - 1, last + 1) for step in steps]
    margin = max(0.06 * decades, 0.1)
    return {
        "type": "log",
        "title": {"text": escaped(title)},
        "range": [math.log10(low) - margin, math.log10(high) + margin],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }
