"""Rank correlations against SciPy's, their exact p, and the coverage of their intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from peft_atlas.bench.agreement import agreement
from scipy import stats


def test_coefficients_are_scipys_with_ties() -> None:
    generator = np.random.default_rng(0)
    for number in (4, 8, 15):
        ours, theirs = generator.integers(0, 6, (2, number))
        found = agreement(ours, theirs)
        assert found is not None and found.methods == number
        assert found.tau.value == pytest.approx(stats.kendalltau(ours, theirs).statistic)
        assert found.rho.value == pytest.approx(stats.spearmanr(ours, theirs).statistic)


def test_p_is_the_exact_one_and_equal_orders_have_no_interval() -> None:
    ours, theirs = [1.0, 2, 3, 4, 5, 6, 7], [2.0, 1, 3, 4, 6, 5, 7]
    found = agreement(ours, theirs)
    assert found is not None and found.tau.low is not None and found.tau.low < found.tau.value
    assert found.tau.p == pytest.approx(stats.kendalltau(ours, theirs, method="exact").pvalue)
    same = agreement(ours, ours)
    assert same is not None
    assert (same.tau.value, same.tau.low, same.rho.high) == (pytest.approx(1), None, None)
    assert same.tau.p == pytest.approx(2 / math.factorial(7))


def test_too_few_methods_and_ties_of_all_are_no_agreement() -> None:
    assert agreement([1, 2, 3], [1, 2, 3]) is None
    assert agreement([1, 1, 1, 1], [1, 2, 3, 4]) is None
    with pytest.raises(ValueError, match="one finite score"):
        agreement([1, 2, 3, 4], [1, 2, 3])
    with pytest.raises(ValueError, match="one finite score"):
        agreement([1, 2, 3, math.nan], [1, 2, 3, 4])


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_intervals_hold_the_truth_about_as_often_as_they_say(correlation: float) -> None:
    """Of normal pairs with correlation r, tau is 2/pi asin(r) and rho 6/pi asin(r/2)."""
    generator = np.random.default_rng(1)
    truth = (2 / math.pi * math.asin(correlation), 6 / math.pi * math.asin(correlation / 2))
    hits = np.zeros(2)
    for _ in range(150):
        ours, noise = generator.standard_normal((2, 10))
        found = agreement(ours, correlation * ours + math.sqrt(1 - correlation**2) * noise)
        assert found is not None
        for place, one in enumerate((found.tau, found.rho)):
            hits[place] += one.low is not None and one.high is not None and one.low <= truth[place] <= one.high
    assert ((hits / 150 >= 0.90) & (hits / 150 <= 1.0)).all()
