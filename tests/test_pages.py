"""What a report says, against the stores it is read from; its three forms, and what they make of hostile text."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from plotly import graph_objects
from plotly.offline import get_plotlyjs

from lpsnet.errors import UserError
from search.config import RacePlan
from search.journal import without_password
from search.observer import Observer
from search.pages.build import ReportPlan, build_report, table_csv, write_run_report
from search.pages.content import SLOPE, Column, Plot, Report, Table, listed, number, shown
from search.pages.facts import RunFacts, read_facts
from search.pages.html import page, policy
from search.pages.markdown import markdown, plain
from search.pages.pictures import PicturePlan
from search.report import candidates_frame, family_frame
from search.run import Run
from search.runner import Progress, replay
from search.step import slope_text
from tests.long_run import make_long_run
from tests.test_report import chain, make_run

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="a()">\'{{7*7}}|_*`[x](javascript:a())'


def plan(folder: Path, frames: int = 0) -> ReportPlan:
    return ReportPlan(out=folder, pictures=PicturePlan(frames=frames, folder=folder))


def table(report: Report, key: str) -> Table:
    return next(one for one in report.tables if one.key == key)


def column(one: Table, name: str) -> list[object]:
    place = [column.name for column in one.columns].index(name)
    return [row[place] for row in one.rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_long_run(tmp_path_factory.mktemp("made") / "run", 3)


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    with Run.read(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(read_facts(run), plan(tmp_path_factory.mktemp("out")), Observer())


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[RunFacts]:
    """The run of `test_report`: a failed candidate, a free gain, a skipped operation, a warning, a class that never occurs."""
    opened = make_run(tmp_path / "odd")
    yield RunFacts(opened, Progress(steps=chain()))
    opened.close()


class TestContent:
    def test_the_chain_is_that_of_the_run(self, run: Run, report: Report) -> None:
        frame, found = family_frame(run, replay(run).steps), table(report, "family")
        np.testing.assert_array_equal(column(found, "ms to the scores"), frame["latency_scores_ms"])
        np.testing.assert_array_equal(column(found, "mIoU %"), frame["miou_percent"])
        assert column(found, "C") == list(frame["C"]) and column(found, "parameters") == list(frame["parameters"])

    def test_candidates_have_their_gain_over_the_parent_and_its_error(self, run: Run, report: Report) -> None:
        steps, found = replay(run).steps, table(report, "candidates")
        assert column(found, "network") == list(candidates_frame(run, steps)["architecture"])
        wanted = [None if t.gain is None else t.outcome - s.parent.miou_percent for s in steps for t in s.trials]  # type: ignore[union-attr,operator]
        for told, gain, error in zip(column(found, "gain"), wanted, column(found, "± gain"), strict=True):
            assert (told is None) == (gain is None) == (error is None)
            assert gain is None or (told == pytest.approx(gain) and error == RacePlan().seed_noise_percent)
        assert [found.groups[index] for index in sorted(found.marked)] == ["step 0", "step 1", "step 2", "step 3"]

    def test_iou_of_a_class_is_that_of_its_training(self, odd: RunFacts) -> None:
        found = table(build_report(odd, plan(odd.run.path / "report"), Observer()), "classes")
        assert [row[:3] for row in found.rows] == [("sky", 30.0, 40.0), ("road", None, 50.0), ("car", 10.0, 0.0), ("mean", 20.0, 30.0)]

    def test_percentiles_are_those_of_the_samples(self, run: Run, report: Report) -> None:
        found = table(report, "latency")
        assert len(found.rows) == 8 and column(found, "to the") == ["scores", "labels"] * 4
        kept = {(m.subject, m.conditions.boundary): m.samples_ms for m in run.store.all()}
        for step, row in zip([s for s in replay(run).steps for _ in range(2)], found.rows, strict=True):
            samples = kept[f"{step.chosen.architecture} classes=11", str(row[1])]
            wanted = [np.median(samples), min(samples), *np.percentile(samples, [5, 25, 75, 90, 95, 99])]
            np.testing.assert_allclose(np.array(row[2:10], float), wanted)

    def test_cost_sums_every_training_of_the_study(self, run: Run, report: Report) -> None:
        trials = [trial for step in range(4) for trial in run.study.trials(step)]
        total = table(report, "cost").rows[-1]
        assert total[1] == len(trials) and total[4] == 400 * sum(trial.value is not None for trial in trials)
        assert total[5] == pytest.approx(sum(trial.user_attrs["record"]["seconds"] for trial in trials))

    def test_what_was_skipped_or_failed_is_told_with_the_reason(self, odd: RunFacts) -> None:
        found = build_report(odd, plan(odd.run.path / "report"), Observer())
        rows = table(found, "omissions").rows
        assert ("step 1", "scale-1", "beyond the bounds at k = 1") in rows
        assert ("step 1", "scale-2 x1 = scale-3 x1", 'the loss is nan, "at" iteration 7') in rows
        assert ("step 2", "choice", "the chosen candidate is not slower than its parent") in rows
        assert "No pictures were asked for (--frames 0)." in next(s for s in found.sections if s.key == "pictures").text

    def test_why_the_search_stopped_is_told(self, odd: RunFacts) -> None:
        facts = dataclasses.replace(odd, progress=Progress(steps=chain()[:1], stopped="step 1: every candidate failed"))
        found = build_report(facts, plan(odd.run.path / "report"), Observer())
        assert found.sections[-1].text[0] == "0 of 2 steps are taken. The search stopped: step 1: every candidate failed"
        assert [item.key for section in found.sections for item in section.items if isinstance(item, Plot)]

    def test_a_run_that_decided_nothing_is_refused(self, tmp_path: Path, run: Run) -> None:
        with (
            Run.start(tmp_path / "run", run.config, run.class_names, run.environment) as opened,
            pytest.raises(UserError, match="has decided nothing yet; lps-search resume"),
        ):
            read_facts(opened)

    def test_every_plot_is_one_that_plotly_takes(self, report: Report) -> None:
        plots = [item for section in report.sections for item in section.items if isinstance(item, Plot)]
        assert len(plots) == 6
        for plot in plots:
            text = json.dumps({"data": plot.traces, "layout": plot.layout}, allow_nan=False)
            graph_objects.Figure(json.loads(re.sub(r'"--[a-z0-9-]+"', '"red"', text)))
            assert all(set(series.traces) <= set(range(len(plot.traces))) for series in plot.series)
            assert {key for key in (plot.table,) if key} <= {one.key for one in report.tables}


@pytest.fixture(scope="module")
def out(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report."""
    out = tmp_path_factory.mktemp("forms")
    write_run_report(run, plan(out), Observer())
    return out


class TestForms:
    def test_all_three_hold_every_cell_of_every_table(self, report: Report, out: Path) -> None:
        text, source = Parsed(out / "report.html").text, (out / "report.md").read_text()
        for one in report.tables:
            rows = list(csv.reader((out / "tables" / f"{one.key}.csv").read_text().splitlines()))
            assert rows[0] == [column.name for column in one.columns] and len(rows) == 1 + len(one.rows)
            for row, cells in zip(one.rows, rows[1:], strict=True):
                for kind, value, cell in zip(one.columns, row, cells, strict=True):
                    assert shown(kind, value) in text and plain(shown(kind, value)) in source
                    assert number(value) is None or float(cell) == pytest.approx(number(value), rel=1e-5)

    def test_nothing_is_written_but_the_report(self, run: Run, folder: Path) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        written = write_run_report(run, plan(folder / "report"), Observer())
        after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and (folder / "report") not in path.parents}
        assert after == before
        assert written.page == folder / "report" / "report.html" and written.bytes == written.page.stat().st_size < 8e6

    def test_a_folder_that_cannot_be_written_is_named(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"cannot write .*file.*--out"):
            write_run_report(run, plan(tmp_path / "file"), Observer())

    def test_the_page_may_run_its_own_scripts_only_and_fetch_nothing(self, out: Path) -> None:
        parsed = Parsed(out / "report.html")
        plotly, own = parsed.scripts
        assert plotly == get_plotlyjs()
        allowed = re.findall(r"'sha256-([^']+)'", parsed.policy)
        assert [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in (plotly, own)] == allowed
        assert "default-src 'none'" in parsed.policy and "unsafe-eval" not in parsed.policy
        assert all(target.startswith(("#", "data:image/")) for target in parsed.targets)
        assert policy([]) != parsed.policy


class Parsed(HTMLParser):
    """A page as a browser reads it: its text, scripts that would run, attributes and targets."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.tags: set[str] = set()
        self.policy = ""
        self._inside = ""
        self._text: list[str] = []
        self.feed(path.read_text())
        self.text = "".join(self._text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        held = dict(attributes)
        self._inside = "data" if held.get("type") == "application/json" else tag
        self.tags.add(tag)
        self.names |= set(held)
        self.targets += [str(held[name]) for name in ("src", "href") if name in held]
        if held.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(held["content"])

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside not in ("data", "style"):
            self._text.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report, in all forms, of names and reasons that are markup, a template, a formula or code."""
    root = tmp_path_factory.mktemp("hostile")
    folder = make_long_run(root / "<i>run", 2, classes=(HOSTILE, "=cmd()", "@x", "a"), failure=HOSTILE)
    told = json.loads((folder / "environment.json").read_text())
    told |= {"command": f"lps-search --storage postgresql://me:secret@host/x {HOSTILE}", "processor": HOSTILE}
    (folder / "environment.json").write_text(json.dumps(told))
    with Run.read(folder) as run:
        facts = read_facts(run)
        first = dataclasses.replace(facts.steps[1], skipped={HOSTILE: HOSTILE}, warnings=(HOSTILE,))
        facts.progress.steps[1] = first
        report = build_report(facts, plan(root / "out"), Observer())
    (root / "report.html").write_text(page(report))
    (root / "report.md").write_text(markdown(report, f"{HOSTILE}.png"))
    for one in report.tables:
        (root / f"{one.key}.csv").write_text(table_csv(one))
    return root


class TestHostile:
    def test_the_page_shows_them_and_holds_no_element_attribute_or_script_of_theirs(self, hostile: Path) -> None:
        parsed = Parsed(hostile / "report.html")
        assert parsed.text.count(HOSTILE) > 5
        assert len(parsed.scripts) == 2 and not {name for name in parsed.names if name.startswith("on")}
        assert not parsed.tags & {"i", "img", "iframe", "object", "form", "input", "link", "base"}
        assert all(target.startswith("#") for target in parsed.targets)

    def test_figures_hold_them_escaped_for_plotly(self, hostile: Path) -> None:
        source = (hostile / "report.html").read_text()
        data = [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', source)]
        grid = next(figure for figure in data if figure["data"][0]["type"] == "heatmap")
        assert "&lt;/script" in grid["data"][0]["hovertext"][0][0] and HOSTILE in grid["data"][0]["customdata"][0][0]
        assert "<" not in "".join(grid["layout"]["yaxis"]["ticktext"])

    def test_markdown_shows_them_as_text(self, hostile: Path) -> None:
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse((hostile / "report.md").read_text())
        inner = [child for token in tokens for child in token.children or []]
        assert not [one for one in (*tokens, *inner) if one.type in ("html_block", "html_inline", "link_open", "code_inline", "em_open")]
        texts = ["".join(child.content for child in token.children) for token in tokens if token.children]
        assert sum(" ".join(HOSTILE.split()) in text for text in texts) > 5

    def test_a_spreadsheet_computes_nothing(self, hostile: Path) -> None:
        names = [row[0] for row in csv.reader((hostile / "classes.csv").read_text().splitlines())]
        assert names == ["class", HOSTILE, "'=cmd()", "'@x", "a", "mean"]
        columns = (Column(name="-a"), Column(name="b", form=".1f"))
        assert table_csv(Table(key="", title="", columns=columns, rows=(("+1", -1.5),))) == "'-a,b\n'+1,-1.5\n"

    def test_a_password_is_nowhere(self, hostile: Path) -> None:
        for name in ("report.html", "report.md"):
            text = (hostile / name).read_text()
            assert "secret" not in text and "postgresql://me:" in text.replace("\\", "")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_plain_text_comes_through_markdown_as_it_was(text: str) -> None:
    wanted = " ".join(text.split())
    source = f"| a | b |\n|---|---|\n| x{plain(text)}x | y |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(source)
    cells = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
    assert cells == ["a", "b", f"x{wanted}x", "y"]


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (".2f", 1.005e-2, "0.01"),
        (",d", 1234567, "1,234,567"),
        ("", None, "-"),
        (".1f", float("nan"), "-"),
        ("", True, "yes"),
        ("", False, "no"),
        (SLOPE, float("inf"), "free gain"),
        (SLOPE, -float("inf"), "no gain"),
        (SLOPE, 2.0, slope_text(2.0)),
        ("", "x", "x"),
    ],
)
def test_a_cell_is_shown(form: str, value: object, text: str) -> None:
    assert shown(Column(name="", form=form), value) == text  # type: ignore[arg-type]


def test_an_enumeration_reads_as_a_sentence() -> None:
    assert [listed(list(text)) for text in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://me:p/w:x@host/name", "postgresql://me:***@host/name"),
        ("mysql+pymysql://me:secret@host:3306/name", "mysql+pymysql://me:***@host:3306/name"),
        ("--storage postgresql://me:s@h/n --out x", "--storage postgresql://me:***@h/n --out x"),
        ("postgresql://host/name?user=me&password=p%2Fw&sslmode=require", "postgresql://host/name?user=me&password=***&sslmode=require"),
        ("http://host:80/path", "http://host:80/path"),
    ],
)
def test_passwords_of_urls_are_hidden(text: str, told: str) -> None:
    assert without_password(text) == told
