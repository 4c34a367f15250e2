"""Contests: the trials of one method on one family, with the same budget as every other method's.

A recipe says what may vary: `tuning: {lr: [1.0e-4, 1.0e-2]}` (two floats: the ends of a log-spaced range),
`tuning: {c: [0.01, 0.1, 1.0, ...]}` (other lists: the values themselves, thinned where there are too many), or several
names, whose product must be the number of trials (a range takes as many values as the lists leave room for).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .names import Name, Value
from .plan import make_cell
from .records import Cell, Record
from .store import Store

if TYPE_CHECKING:
    from .protocol import Protocol


@dataclass(frozen=True)
class Contest:
    """One method on one family: its trials, each a set of values, and a cell for each tuning task."""

    name: Name
    family: str
    backbone: str
    tasks: tuple[str, ...]
    trials: tuple[Mapping[str, Value], ...]
    cells: tuple[tuple[Cell, ...], ...]  # [trial][task]


@dataclass(frozen=True)
class Verdict:
    """How a contest ended. `ranks` are mean ranks over the tasks, 1 is best; failed trials share the last rank."""

    contest: Contest
    records: tuple[tuple[Record | None, ...], ...]  # [trial][task]
    ranks: tuple[float, ...]
    winner: int | None  # None while a trial is missing, or when every trial failed

    @property
    def values(self) -> Mapping[str, Value] | None:
        """The winning values."""
        return None if self.winner is None else self.contest.trials[self.winner]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        contest = self.contest
        return {
            "method": str(contest.name),
            "family": contest.family,
            "backbone": contest.backbone,
            "tasks": list(contest.tasks),
            "trials": [
                {"values": dict(values), "rank": rank, "scores": [score_of(record) for record in row]}
                for values, rank, row in zip(contest.trials, self.ranks, self.records, strict=True)
            ],
            "winner": None if self.values is None else dict(self.values),
        }


def contests(protocol_id: str, names: Sequence[Name], families: Sequence[str]) -> tuple[list[Contest], list[str]]:
    """The contests of these methods, and a line for each that cannot be. Imports the methods' code."""
    from .protocol import load_protocol
    from .registry import registry
    from .support import unsupported_reason

    protocol = load_protocol(protocol_id)
    found: list[Contest] = []
    unsupported: list[str] = []
    for name, family in itertools.product(names, families):
        tasks = protocol.tuning.tasks[family]
        method_class = registry("methods").load(name.id)
        space = registry("methods").card(name.id).tuning
        trials = trial_values(name.id, space, protocol.tuning.trials)
        configs = [[_config(protocol, name, values, task) for task in tasks] for values in trials]
        backbone = registry("backbones").card(protocol.families[family].backbone)
        reason = unsupported_reason(method_class, configs[0][0], backbone, registry("tasks").card(tasks[0]))
        if reason is not None:
            unsupported.append(f"{name} x {family}: {reason}")
            continue
        cells = tuple(
            tuple(
                make_cell(
                    *(protocol, _named(name, values), config, task, protocol.seeds[0]),
                    selection=True,
                    steps=protocol.tuning.steps[family],
                )
                for task, config in zip(tasks, row, strict=True)
            )
            for values, row in zip(trials, configs, strict=True)
        )
        found.append(Contest(name, family, backbone.id, tuple(tasks), tuple(trials), cells))
    return found, unsupported


def trial_values(method: str, space: Mapping[str, Any], trials: int) -> list[dict[str, Value]]:
    """Exactly `trials` sets of values from a recipe's `tuning`, in the order of its lists (a range: ascending)."""
    ranges = [name for name, values in space.items() if _is_range(values)]
    explicit = math.prod(len(values) for name, values in space.items() if name not in ranges)
    lists: dict[str, list[Value]] = {}
    for name, values in space.items():
        if name in ranges:
            lists[name] = _log_spaced(values[0], values[1], trials // explicit)
        else:
            lists[name] = _thinned(values, trials) if len(space) == 1 else list(values)
    found = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    if len(found) != trials or len(ranges) > 1 or not space:
        raise UsageError(f"{method}: its recipe's `tuning` does not make {trials} trials")
    return found


def judge(contest: Contest, store: Store) -> Verdict:
    """Rank the trials on each task and average; ties go to the earlier trial (the smaller values)."""
    records = tuple(tuple(store.current(cell) for cell in row) for row in contest.cells)
    ranks = [0.0] * len(records)
    for column in zip(*records, strict=True):
        scores = [_goodness(record) for record in column]
        for trial, score in enumerate(scores):
            better = sum(other > score for other in scores)
            equal = sum(other == score for other in scores)
            ranks[trial] += (better + (equal + 1) / 2) / len(contest.tasks)
    missing = any(record is None or record.status == "cancelled" for row in records for record in row)
    able = [trial for trial, row in enumerate(records) if all(_goodness(record) > -math.inf for record in row)]
    winner = None if missing or not able else min(able, key=lambda trial: (round(ranks[trial], 9), trial))
    return Verdict(contest, records, tuple(ranks), winner)


def _named(name: Name, values: Mapping[str, Value]) -> Name:
    return Name(name.id, {**name.arguments, **values})


def _config(protocol: Protocol, name: Name, values: Mapping[str, Value], task_id: str) -> Any:
    from .recipes import configure, resolve
    from .registry import registry

    task = registry("tasks").card(task_id)
    backbone = protocol.family(task).backbone
    return configure(name.id, resolve(name.id, {**name.arguments, **values}, task.family, backbone, task_id))


def _is_range(values: Any) -> bool:
    return len(values) == 2 and all(isinstance(value, float) for value in values)


def _thinned(values: Sequence[Value], number: int) -> list[Value]:
    """At most `number` of the values, both ends among them: a protocol may have fewer trials than the list."""
    if len(values) <= number or number == 1:
        return list(values)[: max(number, 1)]
    return [values[round(step * (len(values) - 1) / (number - 1))] for step in range(number)]


def _log_spaced(low: float, high: float, number: int) -> list[Value]:
    """Values from low to high with equal ratios, to two significant digits."""
    if number < 1:
        return []
    if number == 1:
        return [float(f"{math.sqrt(low * high):.1e}")]
    return [float(f"{low * (high / low) ** (step / (number - 1)):.1e}") for step in range(number)]


def score_of(record: Record | None) -> float | None:
    return record.primary.value if record is not None and record.primary is not None and record.status == "ok" else None


def _goodness(record: Record | None) -> float:
    """Higher is better; minus infinity for an attempt that failed."""
    score = score_of(record)
    if record is None or record.primary is None or score is None:
        return -math.inf
    return score if record.primary.higher_is_better else -score
