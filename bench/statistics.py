"""Intervals for scores. Knows numbers only.

Estimand of `interval`: the expected score of a method on one task, over seeds (initialisation and data order) and over
test items drawn like the ones at hand. The task, its training split and the backbone are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and the half-width of its 95% interval; None where there is too little to tell."""

    mean: float
    half_width: float | None


def interval(values_per_seed: Sequence[np.ndarray]) -> Estimate:
    """Mean over seeds and items, from one array of per-item values a seed; all seeds share the items, in order.

    Values follow y[s, i] = mean + seed[s] + item[i] + rest[s, i]. The error of the grand mean has two independent
    parts: the spread of the seeds' means over S, and that of the items' means over N, less the rest's share that the
    first part already contains. Each gets its own t quantile (S - 1 and N - 1 degrees of freedom), and the squared
    half-widths add up (Howe 1974). **With one seed only the sampling of items is covered**, not the spread over seeds.

    Raises ValueError for no seed, no item, or seeds with different items.
    """
    if not values_per_seed or len({len(values) for values in values_per_seed}) != 1 or not len(values_per_seed[0]):
        raise ValueError("an interval needs at least one seed, and the same items for each")
    values = np.stack([np.asarray(seed, dtype=np.float64) for seed in values_per_seed])
    seeds, items = values.shape
    mean = float(values.mean())
    if items < 2:
        return Estimate(mean, None)
    by_item = float(values.mean(axis=0).var(ddof=1)) / items
    if seeds == 1:
        return Estimate(mean, _t(items - 1) * math.sqrt(by_item))
    by_seed = float(values.mean(axis=1).var(ddof=1)) / seeds
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + mean
    shared = float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)
    squared = _t(seeds - 1) ** 2 * by_seed + _t(items - 1) ** 2 * max(by_item - shared, 0.0)
    return Estimate(mean, math.sqrt(squared))


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Plain mean of a fixed set of tasks whose errors are independent."""
    mean = sum(estimate.mean for estimate in estimates) / len(estimates)
    halves = [estimate.half_width for estimate in estimates]
    if any(half is None for half in halves):
        return Estimate(mean, None)
    return Estimate(mean, math.sqrt(sum(half**2 for half in halves if half is not None)) / len(estimates))


def _t(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
