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
from pathlib import Path
from typing import Any

from . import recompute
from .errors import UsageError
from .record_checks import checks
from .records import Record, from_json
from .text_table import Cell, text_table

MAX_FOLDER = 200_000_000  # bytes of all predictions


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
        faults += [Fault(path, text) for text in checks(folder, path, record)]
    faults += _copies(records)
    faults += _size(folder)
    bad = {fault.path for fault in faults}
    doubts, told = recompute.ask(folder, [(path, record) for path, record in records if path not in bad])
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
    """One cell of each method and protocol for a verifier to run.

    It is the ok cell whose key, hashed with the content of all records, is least: known only when all have been made.
    """
    whole = hashlib.sha256("".join(record.model_dump_json() for _, record in records).encode()).hexdigest()
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
