"""Every pair of methods on a task at once: what `statistics.suite_difference` computes for one pair, from matrices.

The variance of a difference of two rows is a squared distance between them, so that one matrix product serves all
pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import DifferentItems, Moments, Pooled, detectable, moments_of


@dataclass(frozen=True)
class Detectable:
    """How large a difference between two methods had to be for 80% of repetitions to find it at 5%."""

    alone: float  # as the only comparison
    among_all: float  # at the first step of Holm's procedure over all pairs, the strictest
    pairs: int


def smallest_detectable(found: Pooled, among: np.ndarray, significance: float) -> Detectable | None:
    """Of the tests of the pairs `among` (pairs,), whose variances are averaged. None where none has a variance."""
    known = among & ~np.isnan(found.variance) & (found.variance > 0)
    if not known.any():
        return None
    variance, freedom = float(found.variance[known].mean()), found.freedom[known]
    alone, among_all = (detectable(variance, freedom, level) for level in (significance, significance / len(known)))
    return Detectable(alone, among_all, len(known))


def pair_moments(cells: Sequence[np.ndarray]) -> Moments:
    """Of `second - first` for each pair of a task's cells, in the order of `pair_places`; arrays (pairs,).

    A cell holds values (seeds, items). Pairs with the same number of seeds are paired by seed, as in
    `suite_difference`. A cell of a single item, among others of many, stands for scores whose items are not known: its
    pairs get no interval. Raises DifferentItems for other differences in the number of items.
    """
    items = max(cell.shape[1] for cell in cells)
    if {cell.shape[1] for cell in cells} - {1, items}:
        raise DifferentItems("the cells of a task have different numbers of items")
    first, second = pair_places(len(cells))
    single = [moments_of(list(cell)) for cell in cells]
    mean = np.array([moments.mean for moments in single])
    shared = np.array([moments.shared for moments in single])
    variance = np.array([moments.seed_variance[0] for moments in single])
    count = np.array([len(cell) for cell in cells])
    found = Moments(
        mean[second] - mean[first],
        _item_spread(cells, items)[first, second],
        np.full(len(first), items - 1),
        shared[first] + shared[second],
        np.stack([variance[first], variance[second]], axis=-1),
        np.stack([count[first], count[second]], axis=-1),
    )
    for seeds in np.unique(count):
        _pair_seeds(found, cells, np.flatnonzero(count == seeds), items)
    return found


def pair_places(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the first and the second of each pair."""
    first, second = np.triu_indices(number, 1)
    return first, second


def _item_spread(cells: Sequence[np.ndarray], items: int) -> np.ndarray:
    """Variance of each difference of means by its items (methods, methods); nan where items are not known."""
    known = np.array([items > 1 and cell.shape[1] == items for cell in cells])
    means = np.stack([cell.mean(axis=0) - cell.mean() if cell.shape[1] == items else np.zeros(items) for cell in cells])
    return np.where(known[:, None] & known, _squared_distances(means) / max(items - 1, 1) / items, np.nan)


def _pair_seeds(found: Moments, cells: Sequence[np.ndarray], members: np.ndarray, items: int) -> None:
    """Write what pairing by seed changes for the pairs among `members`, which have the same number of seeds."""
    first, second = pair_places(len(cells))
    place = np.full(len(cells), -1)
    place[members] = np.arange(len(members))
    pairs = (place[first] >= 0) & (place[second] >= 0)
    where = (place[first[pairs]], place[second[pairs]])
    seeds = len(cells[members[0]])
    found.seed_variance[pairs, 1], found.seed_count[pairs, 1] = 0.0, 0
    if seeds < 2:
        return
    scores = np.stack([cells[member].mean(axis=1) - cells[member].mean() for member in members])
    found.seed_variance[pairs, 0] = (_squared_distances(scores) / (seeds - 1))[where]
    if items < 2:
        return
    rest = np.stack([_rest(cells[member], items).ravel() for member in members])
    found.shared[pairs] = (_squared_distances(rest) / ((seeds - 1) * (items - 1)) / (seeds * items))[where]


def _rest(cell: np.ndarray, items: int) -> np.ndarray:
    """What seeds and items do not explain; zeros where items are not known."""
    if cell.shape[1] != items:
        return np.zeros((len(cell), items))
    return np.asarray(cell - cell.mean(axis=0) - cell.mean(axis=1, keepdims=True) + cell.mean())


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    """Between all rows (rows, rows)."""
    products = rows @ rows.T
    length = np.diag(products)
    return np.maximum(length[:, None] + length - 2 * products, 0.0)
