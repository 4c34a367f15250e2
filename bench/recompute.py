"""Scores and counts of records made anew from what they stored and from today's code, to see whether they are true.

Needs the tasks' and methods' code: `ask` runs in a child process.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import AtlasError
from .records import MethodIdentity, Record
from .registry import registry
from .store import Store

if TYPE_CHECKING:
    from ..tasks.contract import Split, Task

TOLERANCE = 1e-6  # relative; metrics come from stored float32 values, so that only the order of a sum may differ
Doubts = dict[str, list[str]]  # path of a record -> what is wrong with it
Told = dict[str, str]  # what could not be recomputed (a task, a method on a backbone) -> why


def ask(root: Path, records: Sequence[tuple[str, Record]]) -> tuple[Doubts, Told]:
    """Recompute the scores of ok records from their predictions, and the counts of what trains from the method."""
    from . import processes

    found: tuple[Doubts, Told] = processes.call(f"{__name__}:answers", root, list(records))
    return found


def answers(root: Path, records: Sequence[tuple[str, Record]]) -> tuple[Doubts, Told]:
    """What `ask` returns, in this process."""
    doubts: Doubts = {}
    told: Told = {}
    by_task: dict[str, list[tuple[str, Record]]] = {}
    for path, record in records:
        if record.status == "ok" and record.predictions is not None and not record.cell.selection:
            by_task.setdefault(record.cell.task.id, []).append((path, record))
    for task_id, members in by_task.items():
        try:
            task: Task = registry("tasks").load(task_id)(registry("tasks").card(task_id))
            split = task.build("test")
        except AtlasError as error:  # an unknown task, or data that cannot be had here
            told[f"scores on {task_id}"] = str(error)
            continue
        for path, record in members:
            doubts.setdefault(path, []).extend(_scores(Store(root), record, task, split))
    _counts(records, doubts, told)
    return {path: lines for path, lines in doubts.items() if lines}, told


def _scores(store: Store, record: Record, task: Task, split: Split) -> Iterator[str]:
    from ..tasks.contract import Predictions

    try:
        arrays = store.predictions(record) or {}
        stored = {name: values for name, values in arrays.items() if name not in ("items", "per_item")}
        predictions = Predictions(tuple(map(str, arrays["items"])), stored)
        known = arrays["per_item"]
        scores, per_item = task.score(predictions, split), task.per_item(predictions, split)
    except (ValueError, KeyError, TypeError, IndexError, OSError, zipfile.BadZipFile) as error:
        yield f"its predictions do not fit the task: {error}"
        return
    for name, value in scores.items():
        if not math.isclose(record.metrics.get(name, math.nan), value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{name} is {record.metrics.get(name)}, and {value:.6g} from its predictions"
    if record.primary is not None and record.metrics.get(record.primary.name) != record.primary.value:
        yield f"its score {record.primary.value} is not its metric {record.primary.name}"
    if per_item.shape != known.shape or not np.allclose(per_item, known, atol=TOLERANCE):
        yield "its values of the test items are not those of its predictions"


def _counts(records: Sequence[tuple[str, Record]], doubts: Doubts, told: Told) -> None:
    """Trainable parameters against the method attached to the backbone's architecture, once for each configuration."""
    known: dict[str, int | None] = {}
    for path, record in records:
        if record.parameters is None:
            continue
        cell = record.cell
        place = f"{cell.method.model_dump_json(exclude={'name'})} {cell.backbone.id}"
        if place not in known:
            try:
                known[place] = _counted(cell.method, cell.backbone.id)
            except (AtlasError, ValueError, RuntimeError) as error:
                known[place] = None
                told[f"counts of {cell.method.id} on {cell.backbone.id}"] = str(error)
        counted = known[place]
        if counted is not None and counted != record.parameters.adapter:
            text = f"it trains {record.parameters.adapter:,} parameters; the method has {counted:,} there"
            doubts.setdefault(path, []).append(text)


def _counted(method: MethodIdentity, backbone: str) -> int:
    """On the meta device: no weights are needed."""
    from .cell import method_of
    from .params import anatomy_on_meta

    attached = method_of(method)
    attached.attach(anatomy_on_meta(backbone)[0])
    return sum(parameter.numel() for parameter in dict(attached.adapter_parameters()).values())
