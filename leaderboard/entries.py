"""Entries of a suite: each method on each task, over its seeds, with the evidence behind every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bench.records import Record
from ..bench.store import Store, StoreError, read_record
from ..bench.tables import PERCENT, entry_of, with_intervals
from . import board, today
from .today import Answers, Today

if TYPE_CHECKING:
    import pandas as pd

    from ..bench.tables import Entry as Estimated

CURVE_POINTS = 25
Place = tuple[str, str]  # method's name, task
Marks = Mapping[str, board.Mark]  # a record's path -> who vouches for it


class Evidence(Store):
    """A results folder whose records and per-item values are read once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._records: dict[str, Record] = {}
        self._items: dict[tuple[str, int], dict[str, np.ndarray] | None] = {}

    def readable(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of the index whose record is still there; the others are named in a warning."""
        known = np.fromiter((self._knows(path) for path in rows["path"]), bool, len(rows))
        return rows[known].reset_index(drop=True)

    def record(self, path: str) -> Record:
        """The record at a path relative to the folder, that of a `readable` row. StoreError where there is none."""
        if not self._knows(path):
            raise StoreError(f"{self.root / path} is gone, or no record any more")
        return self._records[path]

    def _knows(self, path: str) -> bool:
        if path not in self._records:
            record = read_record(self.root / path)
            if record is None:
                return False
            self._records[path] = record
        return True

    def predictions(self, record: Record) -> dict[str, np.ndarray] | None:
        """The per-item values alone: the rest would fill the memory."""
        place = (record.key, record.attempt)
        if place not in self._items:
            arrays = super().predictions(record)
            known = arrays is not None and "per_item" in arrays
            self._items[place] = {"per_item": arrays["per_item"]} if known and arrays is not None else None
        return self._items[place]

    def items(self, path: str) -> np.ndarray | None:
        """Per-item values of a row, as `ranking.rank_suite` asks for them."""
        arrays = self.predictions(self.record(path))
        return None if arrays is None else arrays["per_item"]


def contenders(
    rows: pd.DataFrame,
    tasks: Sequence[str],
    evidence: Evidence,
    answers: Answers,
    marks: Marks,
    costs: Mapping[Place, int],
) -> tuple[board.Contender, ...]:
    """One for each name that was recorded on one of `tasks`, sorted by name.

    `rows`: of one arena. `costs`: place in `Board.costs` of a name on a task.
    """
    found = []
    inside = rows[rows["task"].isin(list(tasks))]
    for name, mine in inside.groupby("method_name", sort=True):
        by_task = {str(task): cells for task, cells in mine.groupby("task")}
        records = {task: [evidence.record(path) for path in cells["path"]] for task, cells in by_task.items()}
        estimates = with_intervals({(str(name), task): entry_of(found, evidence) for task, found in records.items()})
        entries = [
            _entry(task, str(name), by_task.get(task), records.get(task, []), estimates, answers, marks, costs)
            for task in tasks
        ]
        first = next(iter(records.values()))[0].cell.method
        budget = _budget(str(name))
        found.append(
            board.Contender(
                name=str(name), method=first.id, compute=_compute(first.id), budget=budget, entries=tuple(entries)
            )
        )
    return tuple(found)


def _budget(name: str) -> str | None:
    from ..bench.errors import UsageError
    from ..bench.names import parse_one
    from ..bench.recipes import BUDGET

    try:
        value = parse_one(name).arguments.get(BUDGET)
    except UsageError:  # a name of another release, or none at all
        return None
    return None if value is None else str(value)


def _compute(method: str) -> str:
    from ..bench.registry import registry

    methods = registry("methods")
    return methods.card(method).compute if method in methods else "unknown"


def _entry(
    task: str,
    name: str,
    cells: pd.DataFrame | None,
    records: Sequence[Record],
    estimates: Mapping[Place, Estimated],
    answers: Answers,
    marks: Marks,
    costs: Mapping[Place, int],
) -> board.Entry:
    answer = answers.get((name, task))
    if cells is None:
        reason = answer.reason if answer is not None else None
        status: board.CellStatus = "unsupported" if reason else "missing"
        return board.Entry(task=task, backbone="", status=status, reason=reason, interval=None, scores=())
    scores = tuple(_score(path, record, marks) for path, record in zip(cells["path"], records, strict=True))
    counts = next((record.parameters for record in records if record.parameters is not None), None)
    estimate = estimates[name, task].estimate
    cell = records[0].cell
    return board.Entry(
        task=task,
        backbone=cell.backbone.id,
        status=_status(scores),
        reason=_reasons(scores),
        interval=None if estimate is None else board.Interval(mean=estimate.mean, half_width=estimate.half_width),
        scores=scores,
        ece=_mean(record.metrics.get("ece") for record in records),
        drift=_mean(record.drift.value if record.drift else None for record in records),
        trainable=counts.adapter if counts else None,
        head=counts.head if counts else None,
        shipped_bytes=counts.shipped_bytes if counts else None,
        settings=tuple(_setting(key, value, answer) for key, value in cell.method.config.items()),
        method_version=cell.method.version,
        commits=tuple(sorted({record.environment.commit for record in records if record.environment.commit})),
        command=today.command(cell.protocol.id, name, task, [score.seed for score in scores]),
        same_cell=_same_cell(records, answer),
        cost=costs.get((name, task)),
    )


def _score(path: str, record: Record, marks: Marks) -> board.Score:
    value = record.primary.value if record.status == "ok" and record.primary else None
    percent = record.primary is not None and record.primary.name in PERCENT
    stored = record.predictions
    return board.Score(
        seed=record.cell.seed,
        status=record.status,
        value=value if value is None or not percent else 100 * value,
        record=path,
        predictions=None if stored is None else f"{path.rpartition('/')[0]}/{stored.file}",
        reason=(record.error.message.splitlines() or [""])[0][:160] if record.error else None,
        mark=marks.get(path, "maintainers"),
        curve=_thinned([point.loss for point in record.curve]),
        steps=len(record.curve),
    )


def _thinned(losses: Sequence[float]) -> tuple[float, ...]:
    """Means over equal spans of steps, to four digits."""
    if not losses:
        return ()
    spans = np.array_split(np.asarray(losses), min(len(losses), CURVE_POINTS))
    return tuple(float(f"{span.mean():.4g}") for span in spans)


def _status(scores: Sequence[board.Score]) -> board.CellStatus:
    """Of the whole entry: ok, partial, or what befell the first seed that failed."""
    failed: list[board.CellStatus] = [score.status for score in scores if score.value is None]
    if not failed:
        return "ok"
    return failed[0] if len(failed) == len(scores) else "partial"


def _reasons(scores: Sequence[board.Score]) -> str | None:
    lines = [f"seed {score.seed}: {score.status}: {score.reason or 'no reason given'}" for score in scores
             if score.value is None]  # fmt: skip
    return "; ".join(lines) or None


def _setting(name: str, value: Any, answer: Today | None) -> board.Setting:
    """Layer and source only where today's recipe gives the recorded value."""
    known = None if answer is None else answer.values.get(name)
    same = known is not None and known[0] == value
    layer, source = (known[1], known[2]) if known is not None and same else (None, None)
    return board.Setting(name=name, value=value, layer=layer, source=source)


def _same_cell(records: Sequence[Record], answer: Today | None) -> bool | None:
    if answer is None:
        return None
    return all(answer.keys.get(record.cell.seed) == record.key for record in records)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
