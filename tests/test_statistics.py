"""Intervals: against closed forms, and their coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from peft_atlas.bench.statistics import Estimate, interval
from scipy import stats


def test_one_seed_gives_the_t_interval_of_its_items() -> None:
    values = np.array([1.0, 0, 1, 1, 0, 1, 1, 1])
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    estimate = interval([values])
    assert estimate.mean == pytest.approx(0.75)
    assert estimate.half_width == pytest.approx((high - low) / 2)


def test_items_that_never_vary_leave_the_t_interval_of_the_seeds() -> None:
    scores = [0.6, 0.7, 0.9]
    low, high = stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores))
    estimate = interval([np.full(50, score) for score in scores])
    assert estimate.half_width == pytest.approx((high - low) / 2)


def test_seeds_that_never_vary_leave_the_interval_of_the_items() -> None:
    values = np.random.default_rng(0).normal(size=200)
    assert interval([values] * 3).half_width == pytest.approx(interval([values]).half_width, rel=1e-6)


@pytest.mark.parametrize(("seed_deviation", "item_deviation"), [(0.0, 1.0), (0.3, 1.0), (0.3, 0.1)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seed_deviation: float, item_deviation: float) -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        seeds = generator.normal(0, seed_deviation, (4, 1))
        items = generator.normal(0, item_deviation, (1, 60))
        estimate = interval(list(2.0 + seeds + items + generator.normal(0, 0.5, (4, 60))))
        assert estimate.half_width is not None
        hits += abs(estimate.mean - 2.0) <= estimate.half_width
    assert 0.93 <= hits / 600 <= 0.995


def test_too_little_to_tell() -> None:
    assert interval([np.array([0.5])]) == Estimate(0.5, None)
    with pytest.raises(ValueError, match="at least one seed"):
        interval([])
    with pytest.raises(ValueError, match="same items"):
        interval([np.ones(3), np.ones(4)])
