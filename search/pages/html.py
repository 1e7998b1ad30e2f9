"""The page: one HTML file that asks nothing of any network. Jinja escapes every string, and the page runs no script but its own.

What may run is listed by digest in the page's content security policy, so that a script that came in with the data would not; the same
policy forbids every connection.
"""

from __future__ import annotations

import base64
import hashlib
import pkgutil
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from search.pages.content import Cell, Facts, Gallery, Picture, Plot, Report, Table, number, shown

KINDS = {Table: "table", Plot: "plot", Facts: "facts", Gallery: "gallery"}
SWATCHES = {
    "circle": "M6 1a5 5 0 1 0 .01 0z",
    "square": "M1.5 1.5h9v9h-9z",
    "diamond": "M6 0l6 6-6 6-6-6z",
    "triangle": "M6 1l5.5 10h-11z",
    "star": "M6 0l1.6 4.2 4.4.2-3.5 2.8 1.2 4.3L6 9l-3.7 2.5 1.2-4.3L0 4.4l4.4-.2z",
    "cross": "M1 3l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z",
    "line": "M0 5h12v2H0z",
    "dash": "M0 5h5v2H0zM7 5h5v2H7z",
}
"""Outline of each swatch in a square of 12."""


def page(report: Report) -> str:
    """The page of a report."""
    scripts = [_plotly(), _resource("report.js")]
    environment = Environment(
        loader=PackageLoader("search.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {"breakable": breakable, "sortable": sortable, "source": source}
    environment.tests |= {name: _is(kind) for kind, name in KINDS.items()}
    return environment.get_template("report.html").render(
        report=report,
        policy=policy(scripts),
        style=Markup(_resource("report.css")),
        scripts=[Markup(script) for script in scripts],
        shown=shown,
        figure=figure,
        swatches=SWATCHES,
    )


def _is(kind: type) -> Any:
    return lambda value: isinstance(value, kind)


def _resource(name: str) -> str:
    data = pkgutil.get_data("search.pages", f"templates/{name}")
    assert data is not None
    return data.decode()


def _plotly() -> str:
    """What `plotly.offline.get_plotlyjs` gives, without the half second that importing it takes."""
    data = pkgutil.get_data("plotly", "package_data/plotly.min.js")
    assert data is not None
    return data.decode()


def policy(scripts: list[str]) -> str:
    """A content security policy under which these scripts run and no other, and nothing is fetched. Plotly sets styles as it draws."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def figure(plot: Plot) -> dict[str, Any]:
    """What the page's script draws."""
    return {"data": plot.traces, "layout": plot.layout, "ranges": plot.ranges}


def breakable(text: str) -> Markup:
    """A text that may be broken after underscores and slashes."""
    return Markup("").join(part for letter in text for part in ((letter, Markup("<wbr>")) if letter in "_/" else (letter,)))


def sortable(value: Cell) -> str:
    """What a cell is sorted by: JavaScript's form of a number; empty for text."""
    found = number(value)
    return "" if found is None else f"{found:.9g}".replace("inf", "Infinity")


def source(picture: Picture) -> str:
    """A picture as the page holds it."""
    return f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode()}"
