"""Intervals and tests: against closed forms and SciPy, and their coverage by simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft_atlas.bench.statistics import (
    Estimate,
    holm,
    interval,
    paired_difference,
    suite_difference,
    suite_estimate,
)
from scipy import stats

from .simulation import Design, tally

COMMITTED = Path(__file__).parent / "benchmarks" / "output" / "statistics_simulation.csv"


def constant(*scores: float, items: int = 50) -> list[np.ndarray]:
    """Seeds whose items do not vary."""
    return [np.full(items, score) for score in scores]


def noise(seeds: int, items: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(seeds, items)))


def test_one_seed_gives_the_t_interval_of_its_items() -> None:
    values = np.array([1.0, 0, 1, 1, 0, 1, 1, 1])
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    estimate = interval([values])
    assert estimate.mean == pytest.approx(0.75)
    assert estimate.half_width == pytest.approx((high - low) / 2)
    assert not estimate.covers_seeds


def test_items_that_never_vary_leave_the_t_interval_of_the_seeds() -> None:
    scores = [0.6, 0.7, 0.9]
    low, high = stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores))
    estimate = interval(constant(*scores))
    assert estimate.half_width == pytest.approx((high - low) / 2)
    assert estimate.covers_seeds


def test_seeds_that_never_vary_leave_the_interval_of_the_items() -> None:
    values = noise(1, 200)[0]
    assert interval([values] * 3).half_width == pytest.approx(interval([values]).half_width, rel=1e-6)


def test_what_the_spread_of_seeds_and_of_items_share_is_counted_once() -> None:
    """Noise that has neither seeds nor items in it has the standard error of all its values; twice is 41% more."""
    assert interval(noise(400, 400)).half_width == pytest.approx(1.96 / 400, rel=0.2)


@pytest.mark.parametrize(("seed_deviation", "item_deviation"), [(0.0, 1.0), (0.3, 1.0), (0.3, 0.1)])
def test_intervals_of_one_task_cover_the_truth_about_as_often_as_they_say(
    seed_deviation: float, item_deviation: float
) -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        seeds = generator.normal(0, seed_deviation, (4, 1))
        items = generator.normal(0, item_deviation, (1, 60))
        estimate = interval(list(2.0 + seeds + items + generator.normal(0, 0.5, (4, 60))))
        assert estimate.half_width is not None
        hits += abs(estimate.mean - 2.0) <= estimate.half_width
    assert 0.925 <= hits / 600 <= 0.975


def test_items_whose_seeds_cancel_leave_no_absurd_interval() -> None:
    """Two seeds with opposite noise: the items' means do not vary, less than chance allows. One degree is the least."""
    values = noise(1, 200)[0]
    estimate = interval([values, 0.01 - values])
    scores = [values.mean(), 0.01 - values.mean()]
    assert estimate.half_width == pytest.approx(stats.t.ppf(0.975, 1) * stats.sem(scores))


def test_too_little_to_tell() -> None:
    assert interval([np.array([0.5])]) == Estimate(0.5, None)
    difference = paired_difference([np.array([0.5])], [np.array([0.7])])
    assert (difference.half_width, difference.p) == (None, None)
    with pytest.raises(ValueError, match="at least one seed"):
        interval([])
    with pytest.raises(ValueError, match="same items"):
        interval([np.ones(3), np.ones(4)])
    with pytest.raises(ValueError, match="same items on both sides"):
        paired_difference([np.ones(3)], [np.ones(4)])
    with pytest.raises(ValueError, match="at least one task"):
        suite_estimate([])
    with pytest.raises(ValueError, match="add up to 1"):
        suite_estimate([noise(2, 5), noise(2, 5)], weights=[0.5, 0.6])


def test_one_seed_a_side_is_the_paired_t_test_of_the_items() -> None:
    a, b = noise(1, 40, 1), noise(1, 40, 2)
    difference = paired_difference(a, b)
    reference = stats.ttest_rel(b[0], a[0])
    assert difference.p == pytest.approx(reference.pvalue)
    low, high = reference.confidence_interval()
    assert difference.half_width == pytest.approx((high - low) / 2)
    assert difference.mean == pytest.approx((low + high) / 2)


def test_equal_numbers_of_seeds_are_paired_by_seed() -> None:
    a, b = [0.60, 0.70, 0.90], [0.62, 0.71, 0.93]
    assert paired_difference(constant(*a), constant(*b)).p == pytest.approx(stats.ttest_rel(b, a).pvalue)


def test_other_numbers_of_seeds_are_welchs_t_test() -> None:
    a, b = [0.60, 0.70, 0.90], [0.62, 0.71, 0.93, 0.80]
    reference = stats.ttest_ind(b, a, equal_var=False)
    difference = paired_difference(constant(*a), constant(*b))
    assert difference.p == pytest.approx(reference.pvalue)
    low, high = reference.confidence_interval()
    assert difference.half_width == pytest.approx((high - low) / 2)


def test_a_suite_adds_its_tasks_variances_with_satterthwaites_degrees_of_freedom() -> None:
    rows = np.array([[0.6, 0.7, 0.9], [0.2, 0.3, 0.1]])
    variances = rows.var(axis=1, ddof=1) / 3 / 4
    freedom = variances.sum() ** 2 / (variances**2 / 2).sum()
    estimate = suite_estimate([constant(*row) for row in rows])
    assert estimate.mean == pytest.approx(rows.mean())
    assert estimate.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(variances.sum()))


def test_a_suite_of_one_seed_adds_the_variances_of_the_items() -> None:
    tasks = [noise(1, 400, 1), noise(1, 900, 2)]
    expected = 1.96 * math.sqrt(sum(stats.sem(task[0]) ** 2 for task in tasks)) / 2
    estimate = suite_estimate(tasks)
    assert estimate.half_width == pytest.approx(expected, rel=0.01)
    assert not estimate.covers_seeds


def test_a_single_seed_borrows_the_mean_seed_variance_of_the_other_tasks() -> None:
    several = [constant(0.6, 0.7, 0.9), constant(0.2, 0.3, 0.1)]
    variances = [np.var([0.6, 0.7, 0.9], ddof=1), np.var([0.2, 0.3, 0.1], ddof=1)]
    parts = np.array([variance * (1 / 3 + 1 / 2) for variance in variances]) / 9
    freedom = parts.sum() ** 2 / (parts**2 / 2).sum()
    estimate = suite_estimate([*several, constant(0.5)])
    assert estimate.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(parts.sum()))
    assert estimate.covers_seeds


def test_weights_are_the_tasks_shares() -> None:
    first, second = noise(3, 30, 1), noise(3, 30, 2)
    estimate = suite_estimate([first, second], weights=[1.0, 0.0])
    assert (estimate.mean, estimate.half_width) == pytest.approx((interval(first).mean, interval(first).half_width))
    difference = suite_difference([(first, second), (second, first)], weights=[0.75, 0.25])
    assert difference.mean == pytest.approx(0.5 * (np.mean(second) - np.mean(first)))
    assert difference.tasks == 2


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_method_does_not_differ_from_itself(seeds: int) -> None:
    tasks = [noise(seeds, 40, task) for task in range(3)]
    difference = suite_difference([(task, [values.copy() for values in task]) for task in tasks])
    assert (difference.mean, difference.half_width, difference.p) == (0.0, 0.0, 1.0)


def test_swapping_the_sides_turns_the_sign_only() -> None:
    tasks = [(noise(3, 40, task), noise(2, 40, 10 + task)) for task in range(3)]
    forward, back = suite_difference(tasks), suite_difference([(b, a) for a, b in tasks])
    assert back.mean == pytest.approx(-forward.mean)
    assert back.p == pytest.approx(forward.p)


def test_pairing_items_is_what_finds_a_small_difference_on_hard_and_easy_items() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.normal(0, 1, 300)
    a = [difficulty + generator.normal(0, 0.1, 300) for _ in range(3)]
    b = [difficulty + 0.05 + generator.normal(0, 0.1, 300) for _ in range(3)]
    paired = paired_difference(a, b).p
    shuffled = paired_difference(a, [generator.permutation(values) for values in b]).p
    assert paired is not None and paired < 0.05
    assert shuffled is not None and shuffled > 0.1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_the_value_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(p_values)) or q == pytest.approx(max(adjusted))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert min(adjusted) == pytest.approx(min(1.0, min(p_values) * len(p_values)))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_holm_takes_p_values_only(wrong: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, wrong])


def test_simulated_suites_are_covered_and_alarms_are_rare() -> None:
    """Bounds are four standard errors of 250 suites around 95%, 95% and 5%."""
    found = tally(Design(seeds=3, items=200), suites=250, seed=1)
    assert 0.895 <= found.mean_covered <= 0.998
    assert 0.895 <= found.difference_covered <= 0.998
    assert found.false_alarms <= 0.105


def test_simulated_seeds_that_vary_much_are_covered_too() -> None:
    """Skewed real items that add little: almost all of the error comes from three seeds a task."""
    found = tally(Design(seeds=3, items=1000, kind="real"), suites=150, seed=2)
    assert found.mean_covered >= 0.88
    assert found.false_alarms <= 0.12


def test_the_committed_simulation_shows_what_is_promised() -> None:
    rows = pd.read_csv(COMMITTED)
    rows = rows[(rows["seeds"] == 3) & (rows["deviations"] != "none")]
    assert (rows["suites"] == 2000).all()
    assert set(rows["items"]) == {200, 500, 1000} and set(rows["kind"]) == {"accuracy", "real"}
    assert rows["mean_covered"].between(0.93, 0.97).all()
    assert rows["difference_covered"].between(0.93, 0.97).all()
    assert (rows["false_alarms"] <= 0.065).all()
    assert (rows.loc[(rows["items"] == 1000) & (rows["kind"] == "accuracy"), "found"] >= 0.8).all()
