"""The smallest detectable difference: a planted difference of that size is found in about 80% of repetitions."""

from __future__ import annotations

import numpy as np
import pytest
from peft_atlas.bench.pairwise import pair_moments, smallest_detectable
from peft_atlas.bench.ranking import SIGNIFICANCE
from peft_atlas.bench.statistics import Pooled, detectable, joined, pooled
from scipy import stats

from .simulation import Design, simulate

ALL = np.ones(1, dtype=bool)


def differences(design: Design, gain: float, suites: int, seed: int) -> Pooled:
    """Of two methods in simulated suites (suites,): the second is better by `gain`."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(suites):
        both, _ = simulate(design, (0.0, gain), generator)
        tasks = [pair_moments([np.stack(method[task]) for method in both]) for task in range(len(both[0]))]
        found.append(pooled(joined(tasks)))
    joint = {name: np.concatenate([getattr(one, name) for one in found]) for name in ("mean", "variance", "freedom")}
    return Pooled(**joint, covers_seeds=np.ones(suites, dtype=bool))


@pytest.mark.parametrize("design", [Design(3, 150, "real"), Design(3, 150, "real", "large")])
def test_a_planted_difference_of_that_size_is_found_in_about_four_of_five(design: Design) -> None:
    pilot = differences(design, 0.0, 60, seed=1)
    smallest = smallest_detectable(pilot, np.ones(60, dtype=bool), SIGNIFICANCE)
    assert smallest is not None and smallest.pairs == 60 and smallest.among_all > smallest.alone
    for size, level in ((smallest.alone, SIGNIFICANCE), (smallest.among_all, SIGNIFICANCE / 60)):
        repeated = differences(design, size, 300, seed=2)
        assert 0.74 <= np.mean((repeated.p() < level) & (repeated.mean > 0)) <= 0.86


def test_it_is_the_noncentral_t_distributions_and_grows_with_noise() -> None:
    freedom, level = 7.3, 0.001
    size = detectable(4.0, np.array([freedom]), level) / 2
    assert stats.nct.sf(stats.t.isf(level / 2, freedom), freedom, size) == pytest.approx(0.8, abs=1e-5)
    noisy = Pooled(np.zeros(1), np.full(1, 9.0), np.full(1, freedom), ALL)
    quiet = Pooled(np.zeros(1), np.full(1, 1.0), np.full(1, freedom), ALL)
    wide, narrow = (smallest_detectable(one, ALL, 0.05) for one in (noisy, quiet))
    assert wide is not None and narrow is not None and wide.alone == pytest.approx(3 * narrow.alone)
    assert wide.alone == wide.among_all, "one pair: Holm has nothing to correct"


def test_too_little_to_tell_is_no_size() -> None:
    unknown = Pooled(np.zeros(1), np.full(1, np.nan), np.full(1, np.nan), ALL)
    assert smallest_detectable(unknown, ALL, 0.05) is None
    assert smallest_detectable(Pooled(np.zeros(1), np.ones(1), np.full(1, 5.0), ALL), ~ALL, 0.05) is None
