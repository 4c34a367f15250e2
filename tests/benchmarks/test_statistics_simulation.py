"""How often intervals cover, tests raise false alarms and a planted difference is found: 2,000 simulated suites a row.

`tests/simulation.py` states the generating model. The output is committed as `output/statistics_simulation.csv`; it is
the same on every machine up to the last digits of floating-point functions. `output/moderation_simulation.csv` is the
same for single tasks whose seed variances are moderated. Takes about 4 minutes of one core.

    pytest tests/benchmarks/test_statistics_simulation.py
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from ..simulation import Design, tally, tally_tasks

SUITES = 2000
OUTPUT = Path(__file__).parent / "output" / "statistics_simulation.csv"
TASKS_OUTPUT = OUTPUT.with_name("moderation_simulation.csv")
THREE_SEEDS = [
    Design(3, items, kind, deviations)
    for kind, deviations, items in product(("accuracy", "real"), ("none", "alike", "spread"), (200, 500, 1000))
]
SINGLE_TASKS = [
    Design(3, 500, kind, deviations)
    for kind, deviations in product(("accuracy", "real"), ("none", "alike", "spread", "large"))
]
OTHERS = [
    *(Design(seeds, 500) for seeds in (1, 2, 5)),
    Design(3, 500, common=0.5),
    Design(3, 1000, common=0.5),
]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """A row for each design, also written to the committed file."""
    found = [{**asdict(design), "suites": SUITES, **asdict(tally(design, SUITES))} for design in THREE_SEEDS + OTHERS]
    frame = pd.DataFrame(found)
    OUTPUT.parent.mkdir(exist_ok=True)
    frame.to_csv(OUTPUT, index=False, float_format="%.5g")
    return frame


def test_intervals_cover_between_93_and_97_percent(rows: pd.DataFrame) -> None:
    vary = rows[(rows["seeds"] == 3) & (rows["deviations"] != "none")]
    assert len(vary) == 14
    for column in ("mean_covered", "difference_covered"):
        assert vary[column].between(0.93, 0.97).all(), vary[[*asdict(THREE_SEEDS[0]), column]]


def test_the_same_method_twice_is_called_different_in_at_most_6_5_percent(rows: pd.DataFrame) -> None:
    three = rows[rows["seeds"] == 3]
    assert (three["false_alarms"] <= 0.065).all(), three[[*asdict(THREE_SEEDS[0]), "false_alarms"]]


def test_two_points_are_found_in_80_percent(rows: pd.DataFrame) -> None:
    large = rows[(rows["seeds"] == 3) & (rows["items"] == 1000) & (rows["kind"] == "accuracy")]
    assert len(large) == 4
    assert (large["found"] >= 0.80).all(), large[[*asdict(THREE_SEEDS[0]), "found"]]


def test_moderated_intervals_of_single_tasks_cover() -> None:
    """A task that varies far more than the others of its suite is covered less often: moderation has its price."""
    found = [{**asdict(design), "suites": SUITES, **asdict(tally_tasks(design, SUITES))} for design in SINGLE_TASKS]
    rows = pd.DataFrame(found)
    rows.to_csv(TASKS_OUTPUT, index=False, float_format="%.5g")
    assert rows["covered"].between(0.92, 0.97).all(), rows
    assert (rows["worst_covered"] >= 0.80).all(), rows
    assert (rows["half_width"] <= rows["alone_half_width"]).all(), rows
    assert (rows["false_alarms"] <= 0.08).all(), rows
