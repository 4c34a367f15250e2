"""Means, differences and their 95% intervals, from per-item values of several seeds. Knows numbers only.

Estimand: the expected score (or difference of two methods' scores) over seeds (initialisation and data order) and over
test items drawn like the ones at hand. The tasks, their training splits and the backbone are fixed.

Model of one task: y[s, i] = mean + seed[s] + item[i] + rest[s, i]. The error of the grand mean over S seeds and N items
has the variance `seeds + items - shared`: the spread of the seeds' means over S, that of the items' means over N, less
the rest's share, which both contain. It is an estimate with few degrees of freedom, since seeds are few: intervals and
tests use Student's t with Satterthwaite's effective number (Satterthwaite 1946, Biometrics Bulletin 2, 110-114),
(sum of parts)^2 / sum of (part^2 / its own degrees of freedom).

A suite pools its tasks' seed variances by adding them, each with its weight: that needs no equal variances. The degrees
of freedom then add up as far as the data allow: with equal weights and S seeds on T tasks they lie between S - 1 (one
task varies, the others do not) and T (S - 1) (all vary alike), more where the items' part is large. The one case where
a variance is borrowed is a cell with a single seed in a suite where others have several: it takes their mean. With one
seed everywhere **only the sampling of items is covered**, and `covers_seeds` says so.

How well this holds is measured by `tests/benchmarks/test_statistics_simulation.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8  # with which a difference has to be found to count as detectable
Seeds = Sequence[np.ndarray]  # per-item values, one array a seed; the items are the same, in order


class DifferentItems(ValueError):
    """Values that are compared item by item, of different numbers of items."""


@dataclass(frozen=True)
class Estimate:
    """A mean and the half-width of its 95% interval; None where there is too little to tell."""

    mean: float
    half_width: float | None
    covers_seeds: bool = False


@dataclass(frozen=True)
class Difference:
    """The mean of b - a over tasks, the half-width of its 95% interval, and the two-sided p of no difference."""

    mean: float
    half_width: float | None
    p: float | None
    tasks: int
    covers_seeds: bool = False


@dataclass(frozen=True)
class Moments:
    """What an interval needs of each task. Arrays (..., tasks), those of seeds (..., tasks, 2): a side for each method
    whose seeds vary on their own."""

    mean: np.ndarray
    items: np.ndarray  # variance of the mean by the spread of the items' means; nan for fewer than two items
    item_freedom: np.ndarray
    shared: np.ndarray  # what of `items` is in the seeds' spread too
    seed_variance: np.ndarray  # of one seed's mean
    seed_count: np.ndarray  # 0 for a side that is not there


@dataclass(frozen=True)
class Pooled:
    """Mean over tasks, the variance of its error, and the degrees of freedom of that variance. Arrays (...)."""

    mean: np.ndarray
    variance: np.ndarray
    freedom: np.ndarray
    covers_seeds: np.ndarray

    def half_width(self) -> np.ndarray:
        """Of the 95% interval; nan where there is too little to tell."""
        from scipy.special import stdtrit

        return np.asarray(stdtrit(self.freedom, 0.5 + CONFIDENCE / 2) * np.sqrt(self.variance))

    def p(self) -> np.ndarray:
        """Two-sided, of a mean of zero; 1 for a mean that is exactly zero, nan where there is too little to tell."""
        from scipy.special import stdtr

        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stdtr(self.freedom, -np.abs(self.mean) / np.sqrt(self.variance))
        return np.where((self.mean == 0) & ~np.isnan(self.variance), 1.0, p)


def detectable(variance: float, freedom: np.ndarray, level: float, power: float = POWER) -> float:
    """The true difference that two-sided t tests at `level` find with the probability `power`, in its own unit.

    `variance`: of the difference's error. `freedom` (tests,): estimated as in `Pooled`, so it differs between tests;
    the power is their mean. By the noncentral t distribution; a finding with the wrong sign counts as none.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr, nctdtrinc, stdtrit

    limits = stdtrit(freedom, 1 - level / 2)
    alone = nctdtrinc(freedom, 1 - power, limits)  # what each test needs, in standard errors

    def lacking(size: float) -> float:
        missed = np.nan_to_num(nctdtr(freedom, size, limits))  # SciPy gives nan where the probability underflows
        return float(missed.mean()) - (1 - power)

    low, high = float(alone.min()) / 2, float(alone.max()) * 2
    return float(brentq(lacking, low, high)) * math.sqrt(variance)


def interval(values_per_seed: Seeds) -> Estimate:
    """One method on one task. Raises ValueError for no seed, no item, or seeds with different items."""
    return suite_estimate([values_per_seed])


def suite_estimate(tasks: Sequence[Seeds], weights: Sequence[float] | None = None) -> Estimate:
    """One method's mean over a fixed set of tasks, each task's errors independent of the others'.

    `weights` are the tasks' shares, 1 in sum (default: equal; a mean of group means has others). Raises ValueError as
    `interval` does.
    """
    found = pooled(joined([moments_of(seeds) for seeds in tasks]), weights)
    half = float(found.half_width())
    return Estimate(float(found.mean), None if math.isnan(half) else half, bool(found.covers_seeds))


def paired_difference(a: Seeds, b: Seeds) -> Difference:
    """b - a on one task; see `suite_difference`."""
    return suite_difference([(a, b)])


def suite_difference(tasks: Sequence[tuple[Seeds, Seeds]], weights: Sequence[float] | None = None) -> Difference:
    """b - a over a fixed set of tasks, from (a, b) for each. Items are the same, in order, on both sides.

    Items are always compared in pairs. Seed s of a is paired with seed s of b where both have the same number of seeds
    (they share the data order); otherwise each side's seeds vary on their own. Raises ValueError where seeds or sides
    have different items.
    """
    found = pooled(joined([two_sides(a, b) for a, b in tasks]), weights)
    half, p = float(found.half_width()), float(found.p())
    return difference(float(found.mean), half, p, len(tasks), bool(found.covers_seeds))


def difference(mean: float, half: float, p: float, tasks: int, covers_seeds: bool) -> Difference:
    """From figures of `Pooled`, where nan says that there is too little to tell."""
    known = not math.isnan(half)
    return Difference(mean, half if known else None, p if known else None, tasks, covers_seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in their order (Holm 1979, Scand. J. Statist. 6, 65-70).

    Raises ValueError for a value outside 0..1, and for nan.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def pooled(moments: Moments, weights: Sequence[float] | None = None) -> Pooled:
    """Weighted mean over the last axis of tasks. Raises ValueError for no task or weights that do not match."""
    tasks = moments.mean.shape[-1]
    share = np.full(tasks, 1 / max(tasks, 1)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not tasks or share.shape != (tasks,) or not math.isclose(float(share.sum()), 1.0):
        raise ValueError("a mean needs at least one task, and weights for each that add up to 1")
    seed_parts = _seed_parts(moments, share)
    item_parts = share**2 * (moments.items - moments.shared)
    variance = seed_parts.sum((-2, -1)) + np.maximum(item_parts.sum(-1), 0.0)
    seed_freedom = np.maximum(moments.seed_count - 1, 1)
    item_freedom = np.maximum(moments.item_freedom, 1)
    spread = (seed_parts**2 / seed_freedom).sum((-2, -1)) + (item_parts**2 / item_freedom).sum(-1)
    freedom = np.divide(variance**2, spread, out=np.ones_like(variance), where=spread > 0)
    covers_seeds = np.asarray((moments.seed_count > 1).any((-2, -1)))
    # the shared part is subtracted: where it nearly cancels the items' part, the formula falls below a single degree
    return Pooled((share * moments.mean).sum(-1), variance, np.maximum(freedom, 1.0), covers_seeds)


def moments_of(seeds: Seeds) -> Moments:
    """Of one method on one task, without the axis of tasks. Raises ValueError as `interval` does."""
    values = _stacked(seeds)
    items = values.mean(axis=0)
    return _moments(items, [values], [_shared(values)])


def joined(moments: Sequence[Moments]) -> Moments:
    """With a new last axis, of tasks or of methods (a side's axis stays the last). Raises ValueError for none."""
    if not moments:
        raise ValueError("a mean needs at least one task")
    axis = moments[0].mean.ndim
    return Moments(*(np.stack([getattr(one, field.name) for one in moments], axis) for field in fields(Moments)))


def _seed_parts(moments: Moments, share: np.ndarray) -> np.ndarray:
    """What each side's seeds add to the variance; single seeds' parts are spread over the sides that have several."""
    count = moments.seed_count
    weight = share[:, None] ** 2 / np.maximum(count, 1)
    several = count > 1
    number = np.maximum(several.sum((-2, -1)), 1)
    borrowed = (weight * (count == 1)).sum((-2, -1)) / number
    return np.where(several, (weight + borrowed[..., None, None]) * moments.seed_variance, 0.0)


def two_sides(a: Seeds, b: Seeds) -> Moments:
    """Of b - a on one task, without the axis of tasks."""
    first, second = _stacked(a), _stacked(b)
    if first.shape[1] != second.shape[1]:
        raise DifferentItems("a difference needs the same items on both sides")
    if len(first) == len(second):
        return moments_of(list(second - first))
    items = second.mean(axis=0) - first.mean(axis=0)
    return _moments(items, [first, second], [_shared(first), _shared(second)])


def _stacked(seeds: Seeds) -> np.ndarray:
    """Values (seeds, items)."""
    if not len(seeds) or not len(seeds[0]):
        raise ValueError("an interval needs at least one seed, and at least one item")
    if len({len(values) for values in seeds}) != 1:
        raise DifferentItems("an interval needs the same items for each seed")
    return np.stack([np.asarray(values, dtype=np.float64) for values in seeds])


def _shared(values: np.ndarray) -> float:
    """The variance of the rest over the number of values."""
    seeds, items = values.shape
    if seeds < 2 or items < 2:
        return 0.0
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)


def _moments(items: np.ndarray, sides: Sequence[np.ndarray], shared: Sequence[float]) -> Moments:
    count = np.array([len(values) for values in sides] + [0] * (2 - len(sides)))
    variance = np.zeros(2)
    for place, values in enumerate(sides):
        if len(values) > 1:
            variance[place] = values.mean(axis=1).var(ddof=1)
    number = len(items)
    spread = items.var(ddof=1) / number if number > 1 else math.nan
    return Moments(items.mean(), np.asarray(spread), np.asarray(number - 1), np.asarray(sum(shared)), variance, count)
