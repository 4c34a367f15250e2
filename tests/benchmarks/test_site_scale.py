"""How soon the site shows its first table where 10,000 simulated records are behind it. The goal: 3 s.

    pytest tests/benchmarks/test_site_scale.py -s

Records are those of `test_scale`: 125 methods, eight tasks, ten seeds. The board and the pages are made once, as
`bench leaderboard` makes them, and printed apart; what is measured is a headless Chromium that opens a page from disk,
from the call to the moment at which every row is in the table, its heads sort and its filters filter.
"""

from __future__ import annotations

import time
from pathlib import Path

from peft_atlas.leaderboard import site
from peft_atlas.leaderboard.data import build
from peft_atlas.leaderboard.places import places

from .. import browser
from .test_scale import METHODS, simulate

RECORDS, GOAL = 10_000, 3.0
READY = f"""() => document.querySelectorAll('table.sortable tbody tr').length >= {METHODS}
    && document.querySelector('th[data-best] button') && document.querySelector('.filters output').textContent"""


@browser.needed
def test_first_table_of_many_records(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "results" / "leaderboard"
    simulate(results, RECORDS)
    start = time.perf_counter()
    board = build(results)
    built = time.perf_counter()
    files = site.files(board, places(out, results))
    print(f"\nboard in {built - start:.1f} s, {len(files)} files in {time.perf_counter() - built:.1f} s")
    for path, content in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    assert board.records == RECORDS
    with browser.chromium() as chromium:
        laps = []
        for page_path in ("index.html", f"suites/{board.suites[0].id}.html"):
            visit = browser.Visit(chromium, out / "site")
            start = time.perf_counter()
            visit.open(page_path).wait_for_function(READY)
            laps.append(time.perf_counter() - start)
            print(f"{page_path}: first table after {laps[-1]:.2f} s")
            assert visit.complaints == []
            visit.close()
    assert max(laps) < GOAL
