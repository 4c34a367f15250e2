"""Paired tests between methods of one suite that stand in different rankings, or of a few chosen ones among themselves.

The methods of a ranking are compared there (`Ranking.pairs`). A baseline that sets its own training length is ranked
apart, so what is above it is asked here: on the same test items, over the tasks where both have every seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..bench.ranking import SIGNIFICANCE
from ..bench.statistics import Difference, DifferentItems, Seeds, holm, suite_difference
from ..bench.tables import entry_of
from .board import Board, Contender, Entry, Suite
from .entries import Evidence


@dataclass(frozen=True)
class Comparison:
    """`b` against `a` on tasks of one metric; `difference` is b - a in the unit of the tasks, positive where b is
    better. None where the two were scored on different test items, or nothing is stored of them."""

    a: str
    b: str
    metric: str
    tasks: tuple[str, ...]
    difference: Difference | None
    p_holm: float | None = None

    @property
    def better(self) -> str | None:
        """The method that is significantly better; None where they cannot be told apart."""
        if self.difference is None or self.p_holm is None or self.p_holm >= SIGNIFICANCE:
            return None
        return self.b if self.difference.mean > 0 else self.a


class Comparer:
    """Compares contenders of one suite."""

    def __init__(self, found: Board, suite: Suite, evidence: Evidence) -> None:
        self.found, self.suite, self.evidence = found, suite, evidence
        self._items: dict[tuple[str, str], Seeds] = {}

    def against(self, baseline: Contender) -> list[Comparison]:
        """Every other method without a budget, for each metric; adjusted by Holm over all of them."""
        others = [c for c in self.suite.contenders if c.budget is None and c.name != baseline.name]
        return self._compared([(baseline, other) for other in others])

    def among(self, members: Sequence[Contender]) -> list[Comparison]:
        """Every pair, for each metric; adjusted by Holm over all of them."""
        return self._compared(list(itertools.combinations(members, 2)))

    def _compared(self, pairs: Sequence[tuple[Contender, Contender]]) -> list[Comparison]:
        found = [self._pair(a, b, metric, tasks) for a, b in pairs for metric, tasks in self._shared(a, b).items()]
        known = [one.difference.p for one in found if one.difference is not None and one.difference.p is not None]
        adjusted = iter(holm(known))
        return [
            replace(one, p_holm=next(adjusted)) if one.difference is not None and one.difference.p is not None else one
            for one in found
        ]

    def _shared(self, a: Contender, b: Contender) -> dict[str, list[tuple[Entry, Entry]]]:
        """Metric -> entries of the tasks on which both have all their seeds."""
        found: dict[str, list[tuple[Entry, Entry]]] = {}
        for first, second in zip(a.entries, b.entries, strict=True):
            if first.status == second.status == "ok":
                found.setdefault(self.found.tasks_metric(first.task), []).append((first, second))
        return found

    def _pair(self, a: Contender, b: Contender, metric: str, shared: Sequence[tuple[Entry, Entry]]) -> Comparison:
        tasks = tuple(first.task for first, _ in shared)
        sides = [(self._values(a, first), self._values(b, second)) for first, second in shared]
        if not all(len(first) and len(second) for first, second in sides):
            return Comparison(a.name, b.name, metric, tasks, None)
        try:
            difference = suite_difference(sides)
        except DifferentItems:  # as from a forged record
            return Comparison(a.name, b.name, metric, tasks, None)
        sign = 1 if self.found.tasks[tasks[0]].higher_is_better else -1
        return Comparison(a.name, b.name, metric, tasks, replace(difference, mean=sign * difference.mean))

    def _values(self, member: Contender, entry: Entry) -> Seeds:
        """Per-item values of every seed, in the unit of the task."""
        place = (member.name, entry.task)
        if place not in self._items:
            records = [self.evidence.record(score.record) for score in entry.scores]
            self._items[place] = entry_of(records, self.evidence).items
        return self._items[place]
