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
from statistics import fmean
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
    """How a contest ended. `means` are mean scores over the tasks; None for a trial that failed on one."""

    contest: Contest
    records: tuple[tuple[Record | None, ...], ...]  # [trial][task]
    means: tuple[float | None, ...]
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
                {"values": dict(values), "mean": mean, "scores": [score_of(record) for record in row]}
                for values, mean, row in zip(contest.trials, self.means, self.records, strict=True)
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
        if len(metrics := {registry("tasks").card(task).metric for task in tasks}) > 1:
            raise UsageError(f"protocol {protocol_id}: tuning tasks of {family} have no metric in common: {metrics}")
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
    """The trial with the best mean score over the tasks; ties go to the earlier trial (the smaller values).

    Not the best mean rank: there, one item on one task would outweigh many on another.
    """
    records = tuple(tuple(store.current(cell) for cell in row) for row in contest.cells)
    means = [_mean([score_of(record) for record in row]) for row in records]
    missing = any(record is None or record.status == "cancelled" for row in records for record in row)
    primaries = (record.primary for row in records for record in row if record is not None)
    sign = -1 if any(primary is not None and not primary.higher_is_better for primary in primaries) else 1
    able = {trial: sign * mean for trial, mean in enumerate(means) if mean is not None}
    winner = None if missing or not able else max(able, key=lambda trial: (able[trial], -trial))
    return Verdict(contest, records, tuple(means), winner)


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return fmean(known) if len(known) == len(scores) else None


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
