"""The report of a 14-step run in a real browser: from a file, without network, with the keyboard, on a phone, in the dark, printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from search.cli import run
from tests.browser import Seen, chromium, open_page
from tests.long_run import make_long_run

STEPS = 14
HOSTILE = '</script><script>window.struck=1</script><img src=x onerror="window.struck=1">\'{{7*7}}'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a made-up run whose failures and names would rather be scripts."""
    folder = make_long_run(tmp_path_factory.mktemp("long") / "run", STEPS, failure=HOSTILE)
    compared = folder / "compared"
    compared.mkdir()
    row = {"network": HOSTILE, "paper": HOSTILE, "input": "32x64", "latency_scores_ms": 20.0, "miou_percent": 60.0, "data": "synthetic"}
    told = {
        "conditions": json.loads(CONDITIONS),
        "environment": ENVIRONMENT,
        "rows": [{**row, "miou_from": HOSTILE}, {**row, "failure": HOSTILE}],
    }
    (compared / "compare.json").write_text(json.dumps(told))
    assert run(["report", str(folder), "--pick", f"{HOSTILE}=2", "--pick", "M=8", "--pick", "L=10", "--frames", "2"]) == 0
    return folder / "report" / "report.html"


CONDITIONS = json.dumps({"backend": "ort", "device": "cpu", "shape": [1, 3, 32, 64], "precision": "fp32", "threads": 1})
ENVIRONMENT = {"device": "Made-up CPU", "cores": 2, "driver": "", "versions": {"onnxruntime": "1.31.1", "torch": "2.13.0"}}


@pytest.fixture(scope="module")
def seen(browser: Browser, report: Path) -> Seen:
    return open_page(browser, report, viewport={"width": 1280, "height": 900})


@pytest.fixture
def page(seen: Seen) -> Page:
    return seen.page


def violations(page: Page) -> list[str]:
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in Axe().run(page).response["violations"]]


def column(page: Page, table: str, number: int) -> list[str]:
    """The shown cells of a column, from the top."""
    cells = page.locator(f"#table-{table} tbody tr:visible > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_it_loads_from_a_file_without_complaint_or_request_and_nothing_in_it_ran(seen: Seen, report: Path) -> None:
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [report.as_uri()]
    assert seen.page.evaluate("window.struck") is None
    assert report.stat().st_size < 8e6
    assert HOSTILE in seen.page.inner_text("#table-omissions") and HOSTILE in seen.page.inner_text("#table-networks")


def test_every_plot_draws_its_points(page: Page) -> None:
    hosts = page.locator(".canvas")
    assert hosts.count() == 6
    for index in range(hosts.count()):
        assert hosts.nth(index).locator("svg.main-svg").count() > 0
    assert page.locator("#canvas-trajectory .scatterlayer .point").count() > 100
    assert page.locator("#canvas-class-map .hm image").count() == 1
    assert page.locator("#canvas-cost-bars .bars .point").count() == STEPS + 1


def test_what_plotly_draws_is_text_and_no_markup_of_the_data(page: Page) -> None:
    assert page.locator(".canvas a, .canvas foreignObject, .canvas script").count() == 0
    page.locator("#canvas-front-plot").focus()
    told = set()
    for _ in range(8):
        page.keyboard.press("ArrowDown")
        told.add(page.locator("#front-plot + figure .readout").inner_text())
    assert any(HOSTILE in text for text in told)
    page.keyboard.press("Tab")


@pytest.mark.parametrize(("table", "number", "first", "last"), [("family", 1, "14", "0"), ("candidates", 7, "", "-")])
def test_tables_sort_by_number_up_and_down_with_what_is_absent_last(page: Page, table: str, number: int, first: str, last: str) -> None:
    head = page.locator(f"#table-{table} thead th").nth(number - 1)
    before = column(page, table, number)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(text.replace("+", "")) for text in column(page, table, number) if text != "-"]
    assert values == sorted(values) and len(values) > 10
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    found = column(page, table, number)
    assert [float(text) for text in found if text != "-"] == sorted(values, reverse=True)
    assert found[-1] == last and sorted(found) == sorted(before) and found[0].startswith(first)


def test_text_sorts_and_totals_stay_below(page: Page) -> None:
    page.locator("#table-classes thead button").first.click()
    names = column(page, "classes", 1)
    assert names == sorted(names) and "mean" not in names
    assert page.inner_text("#table-classes tfoot th") == "mean"


def test_a_step_can_be_chosen_in_the_table_and_its_plot(page: Page) -> None:
    page.select_option("#filter-candidates", "step 3")
    assert set(column(page, "candidates", 1)) == {"3"}
    assert page.evaluate("document.getElementById('canvas-gains').layout.xaxis.range") == [2.5, 3.5]
    page.select_option("#filter-candidates", "")
    assert len(set(column(page, "candidates", 1))) == STEPS + 1
    assert page.evaluate("document.getElementById('canvas-gains').layout.xaxis.range") == [0.5, STEPS + 0.5]


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(page: Page) -> None:
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    reachable = "document.querySelectorAll('a[href], button, select, [tabindex=\"0\"]')"
    wanted = page.evaluate(f"[...{reachable}].map((element, place) => (element.dataset.order = String(place)))")
    page.locator(".skip").focus()
    reached = [page.evaluate("document.activeElement.dataset.order")]
    for _ in wanted[1:]:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.order"))
    assert reached == wanted
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_arrow_keys_walk_the_points_of_a_plot_and_the_legend_hides_some(page: Page) -> None:
    page.locator("#canvas-trajectory").focus()
    readout = page.locator("#trajectory + figure .readout")
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("step 0: start, B1-1-1-1-1_C4-8-16-32-32_R4")
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("step 1: ")
    assert page.locator("#canvas-trajectory .hoverlayer .hovertext").count() == 1
    points = page.locator("#canvas-trajectory .scatterlayer .point")
    before = points.count()
    button = page.locator("#trajectory + figure .legend button", has_text="width")
    button.press("Space")
    assert button.get_attribute("aria-pressed") == "false" and points.count() < before
    button.press("Space")
    assert button.get_attribute("aria-pressed") == "true" and points.count() == before


def test_arrow_keys_walk_rows_and_columns_of_a_map(page: Page) -> None:
    page.locator("#canvas-class-map").focus()
    readout = page.locator("#class-map + figure .readout")
    told = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        told.append(readout.inner_text().partition(":")[0])
    assert told == ["sky, step 0", "sky, step 1", "building, step 1", "building, step 0", "sky, step 0"]


def test_light_and_dark_follow_the_system_and_the_switch(page: Page) -> None:
    def shows(ground: str, ink: str) -> None:
        """The plots are drawn anew a moment after the page has changed; waits for it."""
        tick = "document.querySelector('#canvas-trajectory .xtick text')"
        told = f"[getComputedStyle(document.body).backgroundColor, getComputedStyle({tick}).fill]"
        page.wait_for_function(f"wanted => JSON.stringify({told}) === JSON.stringify(wanted)", arg=[ground, ink])

    light, dark = ("rgb(255, 255, 255)", "rgb(27, 31, 35)"), ("rgb(20, 23, 26)", "rgb(232, 234, 237)")
    shows(*light)
    page.emulate_media(color_scheme="dark")
    shows(*dark)
    page.select_option("#theme", "light")
    shows(*light)
    page.emulate_media(color_scheme="light")
    page.select_option("#theme", "dark")
    shows(*dark)
    page.select_option("#theme", "")
    shows(*light)


def test_axe_finds_nothing(page: Page) -> None:
    assert violations(page) == []


def test_axe_finds_nothing_in_the_dark_with_a_series_hidden_and_a_step_chosen(page: Page) -> None:
    page.select_option("#theme", "dark")
    page.select_option("#filter-candidates", "step 3")
    button = page.locator("#trajectory + figure .legend button").first
    button.click()
    assert violations(page) == []
    button.click()
    page.select_option("#theme", "")


def test_a_phone_shows_it_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    # Plots follow the window in their own time; `wait_for_function` would need what the page's policy forbids.
    drawn = "Math.max(...[...document.querySelectorAll('.main-svg')].map((svg) => svg.getBoundingClientRect().right))"
    while page.evaluate(drawn) > 390:
        page.wait_for_timeout(50)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert violations(page) == []
    page.set_viewport_size({"width": 1280, "height": 900})


def test_it_prints_in_light_colours_with_every_plot_within_the_page(page: Page) -> None:
    page.emulate_media(color_scheme="dark", media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    widths = page.evaluate("[...document.querySelectorAll('.canvas .main-svg')].map((svg) => svg.getBoundingClientRect().width)")
    assert max(widths) <= 703  # A4 less its margins, at 96 pixels an inch
    assert not page.locator("nav").is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.emulate_media(color_scheme="light", media="screen")
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_names_of_classes_that_are_markup_stay_names(browser: Browser, tmp_path: Path) -> None:
    names = (HOSTILE, '<a href="javascript:window.struck=1">a</a>', "=1+1", "${alert(1)}", "%{x}", "| a | b |")
    folder = make_long_run(tmp_path / "<b>run", 1, classes=names)
    assert run(["report", str(folder), "--frames", "0"]) == 0
    seen = open_page(browser, folder / "report" / "report.html")
    assert seen.complaints == [] and seen.page.evaluate("window.struck") is None
    assert set(column(seen.page, "classes", 1)) == set(names)
    assert seen.page.locator("b, .canvas a").count() == 0
    ticks = seen.page.locator("#canvas-class-map .ytick text").all_text_contents()
    assert ticks[1:] == [names[1][:17] + "…", *names[2:]] and len(ticks[0]) == 18
    seen.page.context.close()
