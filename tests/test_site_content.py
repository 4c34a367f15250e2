"""What the site's pages hold: names that mean harm as text, colours one can read, kernels, and no more than 8 MB."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peft_atlas.bench import kernel_rows
from peft_atlas.leaderboard.site import kernels

from . import browser
from .browser import Visit
from .simulated_board import Simulation
from .site_folder import write

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'});alert(3)//</script><!--",
    "{{ 7*7 }} {% raw %}",
    '<a href="https://example.com/">b</a>\u202e\x1b[31m',
)
SUITE = "suites/vtab-embedded.html"
CONTRASTS = """() => {
  const rgba = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => top.slice(0, 3).map((value, at) => value * top[3] + below[at] * (1 - top[3]));
  const behind = (element) => {
    const own = rgba(getComputedStyle(element).backgroundColor);
    if (own[3] === 1 || !element.parentElement) return over(own, [255, 255, 255]);
    return over(own, behind(element.parentElement));
  };
  const light = (colour) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const texts = [...document.body.querySelectorAll("*")].filter((element) => element.offsetParent
    && [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return texts.map((element) => {
    const ground = behind(element);
    const pair = [light(over(rgba(getComputedStyle(element).color), ground)), light(ground)].sort((a, b) => b - a);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), element.outerHTML.slice(0, 120)];
  });
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(Simulation().board(), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as running:
        yield running


@browser.needed
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_as_wcag_aa_asks(chromium: Any, folder: Path, scheme: str) -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3), computed from the colours that the browser uses."""
    visit = Visit(chromium, folder, color_scheme=scheme, viewport={"width": 1200, "height": 900})
    for path in ("index.html", SUITE, "methods/vpt.html", "releases.html"):
        found = visit.open(path).evaluate(CONTRASTS)
        assert len(found) > 20
        assert [one for one in found if not 4.5 <= one[0] <= 21] == []
    visit.close()


@browser.needed
def test_hostile_names_are_text_everywhere(chromium: Any, tmp_path: Path) -> None:
    folder = write(Simulation((*HOSTILE, "linear")).board(), tmp_path)
    visit = Visit(chromium, folder)
    pages = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.html"))
    assert len(pages) == 4 + 3 + len(HOSTILE) + 1
    for path in pages:
        page = visit.open(path)
        for figure in page.locator("figure.plot").all():
            figure.scroll_into_view_if_needed()
            page.wait_for_function("f => f.dataset.drawn || /cannot/.test(f.textContent)", arg=figure.element_handle())
        scripts = page.evaluate("() => [...document.scripts].filter((s) => !s.src).length")
        assert (scripts, page.locator("img, [onerror], iframe, object").count()) == (0, 0)
        assert page.evaluate("() => [...document.links].some((link) => link.host === 'example.com')") is False
        assert "49" not in page.locator("h1").inner_text()
    texts = visit.open("index.html").locator("tbody th a").all_inner_texts()
    assert {HOSTILE[0], HOSTILE[1], '<a href="https://example.com/">b</a>[31m'} <= set(texts)
    assert (visit.complaints, visit.outside()) == ([], [])
    visit.close()


@browser.needed
def test_measured_kernels_have_a_page(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"mode": "forward", "launch": "stream", "shape": "s", "size": "8x8", "work": 64, "dtype": "bfloat16"}
    facts |= {"p20": 1.0, "p80": 9.0, "peak_mb": None, "bytes": 1, "flops": 1, "roofline": None, "gpu": "Some GPU"}
    facts |= {"torch": "2.8", "triton": "3.4", "driver": None, "commit": None, "time": "2026"}
    times = {"eager": 6.0, "compile": 4.0, "triton": 2.0}
    rows = [kernel_rows.Row(kernel="nf4", provider=name, p50=time, **facts) for name, time in times.items()]
    kernel_rows.write(tmp_path / "measured.csv", rows)
    monkeypatch.setattr(kernels, "MEASURED", tmp_path / "measured.csv")
    visit = Visit(chromium, write(Simulation().board(), tmp_path))
    page = visit.open("kernels.html")
    page.wait_for_selector("figure[data-drawn]")
    assert page.locator("#kernels tbody td.number").all_inner_texts() == ["6.0", "4.0", "2.0", "2.00"]
    assert (visit.complaints, visit.outside()) == ([], [])
    visit.close()


def test_pages_forbid_any_other_origin(folder: Path) -> None:
    files = list(folder.rglob("*.html"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
        assert policy is not None and "default-src 'none'" in policy[1] and "http" not in policy[1].partition(";")[2]
        loaded = re.findall(r'<(?:script|img|link)\b[^>]*(?:src|href)="([^"]+)"', text)
        assert all(not re.match(r"[a-z]+:|//|/", address) for address in loaded if address != "data:,")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=", text)


def test_an_empty_board_gives_a_page_that_says_so(tmp_path: Path) -> None:
    empty = Simulation().board().model_copy(update={"suites": (), "methods": {}, "releases": (), "records": 0})
    folder = write(empty, tmp_path)
    assert "holds no records yet" in (folder / "index.html").read_text(encoding="utf-8")


def test_the_site_keeps_to_its_size_with_every_method(tmp_path: Path) -> None:
    """As many methods as the surveys have; goal: 8 MB."""
    names = [f"method-{number}" for number in range(125)]
    board = Simulation(names).board()
    two = board.model_copy(update={"suites": board.suites[:2]})  # the embedded protocol's, on one machine
    size = sum(file.stat().st_size for file in write(two, tmp_path).rglob("*") if file.is_file())
    assert size < 8e6
