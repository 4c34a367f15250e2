"""`bench validate RECORDS`: whether a contributed results folder can be taken, and what a verifier runs again.

Checked are the form of every record, its place in the folder, hashes and sizes of predictions, identity of task, data,
backbone, method and protocol, scores recomputed from the predictions, counts recomputed from the method, and what
cannot be true at all. A record without a fault is *self-reported*; `verified` says more: somebody else ran its cell.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from . import recompute
from .errors import UsageError
from .plan import settings_hash
from .records import Record, from_json
from .registry import registry
from .text_table import Cell, text_table

MAX_PREDICTIONS = 2_000_000  # bytes of one file; 500 items of 20 classes take 40 thousand
MAX_FOLDER = 200_000_000  # bytes of all predictions
SHARES = {"accuracy", "macro_f1", "ece"}  # metrics in 0..1


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file; `path` is relative to the folder."""

    path: str
    text: str


@dataclass(frozen=True)
class Validation:
    """A folder's report. `not_checked` names what could not be recomputed here, with the reason."""

    folder: str
    records: int
    self_reported: tuple[str, ...]  # paths of records without a fault
    faults: tuple[Fault, ...]
    not_checked: tuple[str, ...]
    rerun: tuple[str, ...]  # commands of a verifier

    @property
    def exit_code(self) -> int:
        return 1 if self.faults or not self.records else 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def validate_records(folder: Path) -> Validation:
    """Check every record of a folder. Raises UsageError where there is no such folder. Writes nothing."""
    if not folder.is_dir():
        raise UsageError(f"the results folder {folder} does not exist")
    faults: list[Fault] = []
    records: list[tuple[str, Record]] = []
    files = sorted(folder.glob("*/*/*/*/[0-9]*.json"))
    for file in files:
        path = file.relative_to(folder).as_posix()
        try:
            record = from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            faults.append(Fault(path, f"is no record: {' '.join(str(error).split())[:200]}"))
            continue
        records.append((path, record))
        texts = [*_place(path, record), *_predictions(file, record), *_identity(record), *_plausible(record)]
        faults += [Fault(path, text) for text in texts]
    faults += _copies(records)
    faults += _size(folder)
    doubts, told = recompute.ask(folder, records)
    faults += [Fault(path, text) for path, texts in doubts.items() for text in texts]
    bad = {fault.path for fault in faults}
    good = [(path, record) for path, record in records if path not in bad]
    return Validation(
        str(folder),
        len(files),
        tuple(path for path, _ in good),
        tuple(faults),
        tuple(f"{what}: {why}" for what, why in told.items()),
        tuple(rerun(good)),
    )


def rerun(records: Sequence[tuple[str, Record]]) -> Iterator[str]:
    """One cell of each method and protocol for a verifier to run: which one, the contributor cannot choose.

    It is the ok cell whose hash with all the others' is least, so that it depends on every record.
    """
    whole = hashlib.sha256("".join(sorted(record.key for _, record in records)).encode()).hexdigest()
    groups: dict[tuple[str, str], list[Record]] = {}
    for _, record in records:
        if record.status == "ok" and not record.cell.selection:
            groups.setdefault((record.cell.protocol.id, record.cell.method.name), []).append(record)
    for (protocol, method), members in sorted(groups.items()):
        cell = min(members, key=lambda record: hashlib.sha256(f"{whole}{record.key}".encode()).hexdigest()).cell
        words = ["bench", "run", "--methods", method, "--tasks", cell.task.id, "--seeds", str(cell.seed)]
        yield shlex.join([*words, "--protocol", protocol, "--results", "verified"])


def command(folder: Path, as_json: bool) -> int:
    """The verb. The exit code is 1 where a record has a fault, or none is there."""
    found = validate_records(folder)
    print(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) if as_json else as_text(found))
    return found.exit_code


def as_text(found: Validation) -> str:
    """The report for people."""
    lines = [f"{found.records} records in {found.folder}: {len(found.self_reported)} self-reported without a fault"]
    if found.faults:
        lines += ["", text_table(["records", "fault", "such as"], _by_fault(found.faults))]
    if found.not_checked:
        lines += ["", "not recomputed here:", *(f"  {line}" for line in found.not_checked)]
    if found.rerun:
        lines += ["", "to verify, run these cells elsewhere and `bench compare` the folders:"]
        lines += [f"  {line}" for line in found.rerun]
    return "\n".join(lines)


def _by_fault(faults: Sequence[Fault]) -> list[list[Cell]]:
    """One row a fault, with the number of records that have it and the first of them."""
    paths: dict[str, list[str]] = {}
    for fault in faults:
        paths.setdefault(fault.text, []).append(fault.path)
    return [[len(found), text, found[0]] for text, found in paths.items()]


# one record ---------------------------------------------------------------------------------------------------------


def _place(path: str, record: Record) -> Iterator[str]:
    wanted = (record.cell.folder / f"{record.attempt}.json").as_posix()
    if path != wanted:
        yield f"its cell belongs at {wanted}"


def _predictions(file: Path, record: Record) -> Iterator[str]:
    if record.predictions is None:
        if record.status == "ok":
            yield "it has a score and no predictions"
        return
    if Path(record.predictions.file).name != record.predictions.file:
        yield "its predictions lie in another folder"
        return
    stored = file.parent / record.predictions.file
    if not stored.is_file():
        yield "its predictions are missing"
    elif stored.stat().st_size > MAX_PREDICTIONS:
        yield f"its predictions take {stored.stat().st_size:,} bytes; {MAX_PREDICTIONS:,} are allowed"
    elif hashlib.sha256(stored.read_bytes()).hexdigest() != record.predictions.sha256:
        yield "its predictions are not the ones that it names (sha256)"


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
        elif value < 0:
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
    if record.cell.backbone.id in registry("backbones") and record.parameters is not None:
        stated = registry("backbones").card(record.cell.backbone.id).parameters
        if record.parameters.backbone != stated:
            yield f"its backbone has {record.parameters.backbone:,} parameters; the card states {stated:,}"


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


# the whole folder ---------------------------------------------------------------------------------------------------


def _copies(records: Sequence[tuple[str, Record]]) -> Iterator[Fault]:
    """The same predictions in cells of two methods: one of them was not run."""
    seen: dict[str, Record] = {}
    for path, record in records:
        if record.predictions is None:
            continue
        other = seen.setdefault(record.predictions.sha256, record)
        if other.cell.method.id != record.cell.method.id:
            yield Fault(path, f"has the predictions of {other.cell}")


def _size(folder: Path) -> Iterator[Fault]:
    total = sum(file.stat().st_size for file in folder.glob("*/*/*/*/*.npz"))
    if total > MAX_FOLDER:
        yield Fault(".", f"all predictions take {total:,} bytes; {MAX_FOLDER:,} are allowed")
