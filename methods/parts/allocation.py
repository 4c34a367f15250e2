"""Dividing a budget of parameters between single weights and low-rank updates (He et al. 2023, arXiv 2303.08566)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def allocate(
    scores: Tensor, sizes: Sequence[int], costs: Sequence[int], budget: int, threshold: float
) -> tuple[list[int], Tensor]:
    """(numbers of the weights that get a low-rank update, positions of single entries): together `budget` parameters.

    `scores` (N,) has all weights laid end to end, `sizes` how many entries each has, and `costs` what its update would
    take, 0 where it can have none. The entries with the largest scores are chosen; a weight with at least `threshold`
    * cost of them gets the update in their place. The number of entries chosen is the largest that does not exceed the
    budget; what is left then goes to the next entries outside the updated weights.
    """
    order = scores.argsort(descending=True, stable=True)
    owner = torch.repeat_interleave(torch.tensor(sizes, device=scores.device))[order]
    cost = torch.tensor(costs, device=scores.device)
    allocation = _Allocation(owner, cost, cost * threshold)
    updated = allocation.updated(_largest(lambda n: allocation.total(n) <= budget, len(order)))
    single = order[~updated[owner]][: budget - int(cost[updated].sum())]
    return updated.nonzero().flatten().tolist(), single


class _Allocation:
    """What the n best entries lead to; `owner` (N,) is the weight of each entry, best first."""

    def __init__(self, owner: Tensor, cost: Tensor, least: Tensor) -> None:
        self.owner, self.cost, self.least = owner, cost, least

    def counts(self, n: int) -> Tensor:
        """How many of the entries lie in each weight."""
        return torch.bincount(self.owner[:n], minlength=len(self.cost))

    def updated(self, n: int) -> Tensor:
        """Which weights get the update."""
        return (self.cost > 0) & (self.counts(n) >= self.least)

    def total(self, n: int) -> int:
        """Parameters in updates and single entries; it grows with n where the threshold is at most one."""
        return int(torch.where(self.updated(n), self.cost, self.counts(n)).sum())


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 0 to `most` that fits; 0 does."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
