"""Moderated variances: the laws of Smyth's estimator, and intervals of single tasks."""

from __future__ import annotations

import numpy as np
import pytest
from peft_atlas.bench.moderation import _trigamma_inverse, moderate, task_differences, task_estimates
from peft_atlas.bench.statistics import interval, paired_difference
from scipy.special import polygamma

from .simulation import Design, tally_tasks


@pytest.mark.parametrize("x", [0.05, 0.5, 1.0, 7.0, 300.0])
def test_the_inverse_of_trigamma(x: float) -> None:
    assert _trigamma_inverse(float(polygamma(1, x))) == pytest.approx(x, rel=1e-6)


def test_variances_that_are_alike_are_pooled() -> None:
    two = np.full(8, 2.0)
    variances, freedom = moderate(np.array([1.0, 1.2, 0.9, 1.1, 1.0, 1.05, 0.95, 1.0]), two)
    assert variances == pytest.approx(np.full(8, 1.025))
    assert freedom == pytest.approx(np.full(8, 16.0))


def test_variances_far_apart_keep_to_themselves() -> None:
    own = 10.0 ** np.arange(-4, 4)
    variances, freedom = moderate(own, np.full(8, 2.0))
    assert (np.diff(variances) > 0).all(), "their order stays"
    assert variances[-1] > 0.5 * own[-1]
    assert (freedom < 4).all()


def test_moderation_recovers_its_own_model() -> None:
    """Variances drawn from the prior: the estimate nears the true prior with many tasks."""
    generator = np.random.default_rng(0)
    prior, common, tasks, d = 6.0, 2.0, 20_000, 4
    true = prior * common / generator.chisquare(prior, tasks)
    own = true * generator.chisquare(d, tasks) / d
    variances, freedom = moderate(own, np.full(tasks, float(d)))
    assert freedom[0] - d == pytest.approx(prior, rel=0.1)
    assert np.mean((np.log(variances) - np.log(true)) ** 2) < 0.5 * np.mean((np.log(own) - np.log(true)) ** 2)


def test_too_few_tasks_and_seeds_that_agree_change_nothing() -> None:
    own = np.array([1.0, 4.0, 9.0])
    assert moderate(own, np.full(3, 2.0))[0] is own
    still = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    assert moderate(still, np.full(5, 2.0))[0] is still


def test_one_seed_or_few_tasks_give_the_interval_of_the_task_alone() -> None:
    generator = np.random.default_rng(1)
    single = [[generator.random(50)] for _ in range(6)]
    assert [estimate.half_width for estimate in task_estimates(single)] == pytest.approx(
        [interval(task).half_width for task in single]
    )
    few = [[generator.random(50) for _ in range(3)] for _ in range(3)]
    assert [e.half_width for e in task_estimates(few)] == pytest.approx([interval(task).half_width for task in few])
    pairs = list(zip(few, few[::-1], strict=True))
    assert [one.p for one in task_differences(pairs)] == pytest.approx([paired_difference(*pair).p for pair in pairs])


def test_simulated_tasks_are_covered_with_narrower_intervals() -> None:
    found = tally_tasks(Design(3, 300, "accuracy", "large"), 120)
    assert 0.90 <= found.covered <= 0.99
    assert found.half_width < 0.9 * found.alone_half_width
    assert found.false_alarms < 0.09
