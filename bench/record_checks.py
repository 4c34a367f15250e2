"""What can be said of one contributed record from its text, its files and the cards of this release."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from .plan import settings_hash
from .records import Record
from .registry import registry

MAX_PREDICTIONS = 2_000_000  # bytes of one file; 500 items of 20 classes take 40 thousand
MAX_UNPACKED = 100_000_000  # bytes of its arrays
SHARES = {"accuracy", "macro_f1", "ece", "h", "base", "new"}  # metrics in 0..1
COSINES = {"dino", "clip_i", "clip_t", "pres", "matthews", "pearson", "spearman"}  # and correlations, in -1..1


def checks(folder: Path, path: str, record: Record) -> Iterator[str]:
    """A line for each fault of the record at `path` in `folder`."""
    yield from _place(path, record)
    yield from _predictions(folder / path, record)
    yield from _identity(record)
    yield from _plausible(record)


def _place(path: str, record: Record) -> Iterator[str]:
    wanted = (record.cell.folder / f"{record.attempt}.json").as_posix()
    if path != wanted:
        yield f"its cell belongs at {wanted}"


def _predictions(file: Path, record: Record) -> Iterator[str]:
    if record.predictions is None:
        if record.status == "ok":
            yield "it has a score and no predictions"
        return
    stored = file.parent / record.predictions.file
    if not stored.is_file():
        yield "its predictions are missing"
    elif stored.stat().st_size > MAX_PREDICTIONS:
        yield f"its predictions take {stored.stat().st_size:,} bytes; {MAX_PREDICTIONS:,} are allowed"
    elif hashlib.sha256(stored.read_bytes()).hexdigest() != record.predictions.sha256:
        yield "its predictions are not the ones that it names (sha256)"
    elif not zipfile.is_zipfile(stored):
        yield "its predictions are no npz file"
    else:
        with zipfile.ZipFile(stored) as arrays:
            unpacked = sum(array.file_size for array in arrays.infolist())
        if unpacked > MAX_UNPACKED:
            yield f"its predictions unpack to {unpacked:,} bytes; {MAX_UNPACKED:,} are allowed"


def _identity(record: Record) -> Iterator[str]:
    """Task, data, backbone, method and protocol are the ones of this release."""
    cell = record.cell
    known = {"tasks": cell.task.id, "backbones": cell.backbone.id, "methods": cell.method.id}
    strange = [f"{kind[:-1]} {name!r}" for kind, name in known.items() if name not in registry(kind)]  # type: ignore[call-overload]
    if cell.protocol.id not in registry("protocols"):
        strange.append(f"protocol {cell.protocol.id!r}")
    if strange:
        yield f"not known here: {', '.join(strange)}"
        return
    task, protocol = registry("tasks").card(cell.task.id), registry("protocols").card(cell.protocol.id)
    for what, seen, stated in (
        ("task", cell.task.version, task.version),
        ("method", cell.method.version, registry("methods").card(cell.method.id).version),
        ("protocol", cell.protocol.version, protocol.version),
    ):
        if seen != stated:
            yield f"{what} version {seen}; here it is {stated}"
    if cell.backbone.weights != registry("backbones").card(cell.backbone.id).weights:
        yield f"other weights of {cell.backbone.id}"
    if task.family not in protocol.families:
        yield f"protocol {protocol.id} has no settings for {task.family} tasks"
    elif settings_hash(protocol, task, cell.selection) != cell.protocol.hash:
        yield f"protocol {protocol.id} has other settings here"
    if record.data is not None and record.data.matches_card is False:
        yield "other data than the task's card states"


def _plausible(record: Record) -> Iterator[str]:
    """What cannot be true at all."""
    for name, value in record.metrics.items():
        if name in SHARES and not 0 <= value <= 1:
            yield f"{name} is {value}, outside 0..1"
        elif name in COSINES and not -1 <= value <= 1:
            yield f"{name} is {value}, outside -1..1"
        elif name not in COSINES and value < 0:
            yield f"{name} is {value}, below 0"
    started, finished = _time(record.started), _time(record.finished)
    if started is None or finished is None:
        yield "its times are no dates"
    elif finished < started:
        yield "it ended before it began"
    times = record.times
    if times.total is not None and times.fit is not None and times.fit > times.total:
        yield "training took longer than the whole cell"
    steps = [point.step for point in record.curve]
    if steps != list(range(len(steps))) and steps != sorted(set(steps)):
        yield "its loss curve is not in order"
    if record.parameters is not None and record.parameters.total_trainable != (
        record.parameters.adapter + record.parameters.head
    ):
        yield "its counts do not add up"
    if record.status == "ok" and record.primary is None:
        yield "it is ok and has no score"


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
