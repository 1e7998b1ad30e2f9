"""What is fuzzed of the report: its page and its Markdown with hostile text wherever there is any."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from tests.fuzz import Attempt
from tests.fuzz_mutations import WORDS, mutate_text

if TYPE_CHECKING:
    from search.pages.content import Report

HOSTILE = (
    *(word for word in WORDS if len(word) < 200 and word.isascii()),
    "</script><script>alert(1)</script>",
    "![x](http://y)",
    "a|b",
    "<!--",
    "]]>",
    "&lt;",
)


def pages(folder: Path) -> Attempt:
    """No element, attribute or script may come of a text."""
    from markdown_it import MarkdownIt

    from search.pages import html
    from search.pages.markdown import markdown
    from tests.test_pages import Parsed

    shown, reader = folder / "report.html", MarkdownIt("commonmark", {"html": True}).enable("table")

    def attempt(rng: random.Random) -> None:
        report = made_of(lambda: mutate_text(rng, rng.choice(HOSTILE)).encode(errors="replace").decode()[:500])
        with patch.object(html, "_plotly", lambda: "void 0"):  # megabytes that no input changes
            shown.write_text(html.page(report))
        parsed = Parsed(shown)
        assert len(parsed.scripts) == 2 and not {name for name in parsed.names if name.startswith("on")}
        assert not parsed.tags & {"i", "img", "iframe", "object", "form", "input", "link", "base"}
        assert all(target.startswith("#") for target in parsed.targets)
        tokens = reader.parse(markdown(report, ""))
        inner = [child for token in tokens for child in token.children or []]
        assert not [one.type for one in (*tokens, *inner) if one.type in ("html_block", "html_inline", "link_open", "image", "code_inline")]

    return attempt


def made_of(text: Callable[[], str]) -> Report:
    """A report with a table, a plot and facts, all its texts drawn."""
    from search.pages.content import Column, Facts, Plot, Report, Section, Series, Table
    from search.pages.plots import linear, points

    columns, rows = (Column(name=text()), Column(name=text(), breaks=True)), ((text(), text()),) * 2
    table = Table(key="t", title=text(), columns=columns, rows=rows, groups=(text(), text()), note=text())
    trace = points([1.0, 2.0], [1.0, 2.0], [[text(), text()], [text()]], colour="depth", labels=[text(), text()])
    shapes = (("depth", "circle"), ("width", "square"))
    series = tuple(Series(name=text(), colour=colour, shape=shape, traces=(0,)) for colour, shape in shapes)
    layout = {"xaxis": linear(text())}
    plot = Plot(key="p", title=text(), description=text(), traces=(trace,), layout=layout, series=series, note=text())
    parts = (table, plot, Facts(key="f", title=text(), rows=((text(), text()),)))
    return Report(title=text(), lead=text(), sections=(Section(key="s", title=text(), text=(text(),), items=parts),), made=text())
