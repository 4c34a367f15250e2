"""The site in a real browser, from disk: sorting, filters, comparison, deep links, plots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import browser
from .browser import Visit
from .simulated_board import NAMES, TEXT, VISION, Simulation
from .site_folder import write

SUITE = "suites/vtab-embedded.html"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(Simulation().board(), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as running:
        yield running


@pytest.fixture
def visit(chromium: Any, folder: Path) -> Iterator[Visit]:
    """A visit that must end without a complaint and without a request that leaves the folder."""
    found = Visit(chromium, folder, viewport={"width": 1200, "height": 900})
    yield found
    assert (found.complaints, found.outside()) == ([], [])
    found.close()


def column(page: Any, table: str, title: str) -> list[str]:
    """What is read in a column of the rows that are shown, from top to bottom."""
    script = """([table, title]) => {
      const heads = [...document.querySelectorAll(`#${table} thead th`)].map((head) => head.textContent.trim());
      const rows = [...document.querySelectorAll(`#${table} tbody tr`)].filter((row) => row.offsetParent);
      return rows.map((row) => row.cells[heads.indexOf(title)].textContent.trim());
    }"""
    found: list[str] = page.evaluate(script, [table, title])
    return found


def shown(page: Any) -> set[str]:
    """Names in all tables that are shown."""
    script = "() => [...document.querySelectorAll('tbody tr')].filter((r) => r.offsetParent).map((r) => r.dataset.name)"
    return set(page.evaluate(script))


TABLE = "vtab-embedded-equal-steps"


@browser.needed
def test_a_head_sorts_by_number_and_says_so(visit: Visit) -> None:
    page = visit.open("index.html")
    head = page.locator(f"#{TABLE} th", has_text="trainable")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    counts = [int(text.replace(",", "")) for text in column(page, TABLE, "trainable")]
    assert counts == sorted(counts) and len(counts) == len(NAMES) - 1
    page.keyboard.press("Enter")  # the head has the focus: a keyboard does the same
    assert head.get_attribute("aria-sort") == "descending"
    assert [int(text.replace(",", "")) for text in column(page, TABLE, "trainable")] == counts[::-1]
    again = visit.open("index.html" + page.evaluate("location.hash"))
    assert [int(text.replace(",", "")) for text in column(again, TABLE, "trainable")] == counts[::-1]


@browser.needed
def test_cells_without_a_score_stand_at_the_end_either_way(visit: Visit) -> None:
    page = visit.open(SUITE)
    head = page.locator("#scores th", has_text="mnist")
    for way in ("descending", "ascending"):
        head.locator("button").click()
        found = column(page, "scores", "mnist")
        assert head.get_attribute("aria-sort") == way
        assert found[-2:] == ["oom", "oom"]
        means = [float(text.split()[0]) for text in found[:-2]]
        assert means == sorted(means, reverse=way == "descending")
    page.locator("#scores td.oom a").first.click()
    assert "can't allocate 3 GB" in page.locator("#absent").inner_text()


@browser.needed
@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        ("category", "additive", {"vpt", "ssf", "vpt(budget=0.5%)"}),
        ("q", "DORA", {"dora"}),
        ("budget", "0.5%", {f"{name}(budget=0.5%)" for name in NAMES[:3]}),
        ("budget", "own", set(NAMES)),
    ],
)
def test_filters_leave_what_fits_and_are_part_of_the_link(visit: Visit, name: str, value: str, left: set[str]) -> None:
    page = visit.open("index.html")
    every = shown(page)
    control = page.locator(f".filters [name={name}]")
    control.fill(value) if name == "q" else control.select_option(value)
    assert shown(page) == left
    assert page.locator(".filters output").inner_text() == f"{len(left)} of {len(every)} shown"
    state = page.evaluate("location.hash")
    assert shown(visit.open(f"index.html{state}")) == left
    page.locator(".filters [type=reset]").click()
    page.wait_for_function("() => !location.hash.includes('=')")
    assert shown(page) == every


@browser.needed
def test_family_hardware_and_who_vouches_choose_suites(visit: Visit) -> None:
    page = visit.open("index.html")

    def suites() -> list[str]:
        return page.locator("section.suite:visible h2").all_inner_texts()

    assert suites() == ["vtab-embedded", "nlp-embedded", "vtab-embedded-m2"]
    page.locator("[name=family]").select_option("text")
    assert suites() == ["nlp-embedded"]
    page.locator("[name=family]").select_option("")
    page.locator("[name=hardware]").select_option("Apple M2, 8 cores")
    assert suites() == ["vtab-embedded-m2"]
    page.locator("[name=hardware]").select_option("")
    page.locator("[name=mark]").select_option("self-reported")
    assert suites() == ["vtab-embedded-m2"]


@browser.needed
def test_two_picked_methods_stand_side_by_side(visit: Visit) -> None:
    page = visit.open("index.html")
    for name in ("lora", "vpt"):
        page.locator(f"#{TABLE}").get_by_label(f"compare {name}", exact=True).check()
    page.locator(".picked a").click()
    page.wait_for_selector("#comparison table")
    assert page.evaluate("location.hash") == "#suite=vtab-embedded&a=lora&b=vpt"
    board = Simulation().board()
    lora, vpt = (next(c for c in board.suites[0].contenders if c.name == name) for name in ("lora", "vpt"))
    table = page.get_by_role("region", name="Scores by task")
    rows = {row[0]: row[1:] for row in (text.split("\t") for text in table.locator("tr").all_inner_texts())}
    for task in VISION[1:]:
        one, other = (next(e.interval for e in c.entries if e.task == task) for c in (lora, vpt))
        assert one is not None and other is not None
        assert rows[task][:2] == [f"{one.mean:.1f} ± 1.5", f"{other.mean:.1f} ± 1.5"]
        assert abs(float(rows[task][2].replace("\u2212", "-")) - (other.mean - one.mean)) < 0.06
    assert rows["mnist"][1] == "oom"
    (pair,) = [p for p in board.suites[0].rankings[0].pairs if {p.a, p.b} == {"lora", "vpt"}]
    mean = pair.mean if pair.a == "lora" else -pair.mean
    sign = "+" if mean > 0 else "\u2212"
    assert f"Mean of vpt minus lora, paired over items: {sign}{abs(mean):.2f}" in page.locator(".verdict").inner_text()
    page.locator("[name=suite]").select_option("nlp-embedded")
    page.wait_for_function("() => document.getElementById('comparison').textContent.includes('imdb')")
    assert page.evaluate("location.hash") == "#suite=nlp-embedded&a=lora&b=vpt"
    assert {TEXT[0], TEXT[1]} <= set(page.locator("#comparison tbody th").all_inner_texts())


@browser.needed
def test_plots_are_drawn_when_they_are_near_and_not_before(visit: Visit) -> None:
    page = visit.open(SUITE + "#pareto-cost=ledger_peak")
    assert not any("plotly" in url for url in visit.requests)
    for figure in page.locator("figure.plot").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_function("f => f.dataset.drawn || /cannot/.test(f.textContent)", arg=figure.element_handle())
        assert figure.locator(".main-svg").count() > 0, figure.inner_text()
    pareto = page.locator("figure[data-plot=pareto]")
    assert "memory of a training step (ledger), MiB" in (pareto.locator(".xtitle").text_content() or "")
    points = page.evaluate(
        "() => document.querySelector('[data-plot=pareto] .canvas').data.slice(1).flatMap((t) => t.y)"
    )
    rankings = [ranking for ranking in Simulation().board().suites[0].rankings if ranking.budget is None]
    means = [point.quality for ranking in rankings for point in ranking.tradeoffs[1].points]
    assert sorted(points) == pytest.approx(sorted(means), rel=1e-5)
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"


@browser.needed
@pytest.mark.parametrize(
    "path", ["index.html", SUITE, "methods.html", "methods/vpt.html", "compare.html", "releases.html"]
)
def test_pages_fit_a_phone_and_hold_no_dead_link(visit: Visit, path: str) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = visit.open(path)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    own = f"{visit.folder.as_uri()}/"
    links = {link.partition("#")[0] for link in page.evaluate("() => [...document.links].map((link) => link.href)")}
    inside = {link for link in links if link.startswith(own)}
    assert inside and all((visit.folder / link[len(own) :]).is_file() for link in inside)
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    unnamed = (
        "() => [...document.querySelectorAll('input, select')].filter((e) => !e.labels.length && !e.ariaLabel).length"
    )
    assert page.evaluate(unnamed) == 0


@browser.needed
def test_releases_show_what_changed_between_two(visit: Visit) -> None:
    page = visit.open("releases.html#from=0.1&to=0.2")
    assert page.locator("section.release:visible h2").all_inner_texts() == ["0.2", "0.1"]
    assert page.locator(".filters output").inner_text() == "1 changes in 1 step"
    assert page.locator(".changes:visible").all_inner_texts() == ["new: vpt in vtab-embedded (equal-steps), rank 2"]
