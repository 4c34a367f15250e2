"""`bench merge`: the records of several machines as one results folder, a union in which nothing is lost or changed.

A record is known by its content, apart from its attempt's number and from where it was merged before: the same record
in two folders is one record. Others get the next free numbers of their cell, in the order in which they ended, and say
in `origin` where they were; within one folder that was empty, the order of the sources does not matter. Profiles, which
have no attempts, are joined alike.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath

from . import profiling
from .costs import CostProfile
from .errors import UsageError
from .records import Cell, Origin, Record, from_json, to_json
from .store import Store, sheet_beside


@dataclass(frozen=True)
class Rival:
    """Ok records of one cell that do not say the same."""

    cell: str
    key: str
    records: list[dict[str, object]]  # attempt, origin, primary metric


@dataclass
class Merged:
    """What was found and done. `left_out` names what could not be taken, with the reason."""

    added: int = 0
    same: int = 0  # records that the results folder, or an earlier source, had
    repeated: int = 0  # cells with several ok records that agree
    rivals: list[Rival] = field(default_factory=list)
    added_profiles: int = 0
    same_profiles: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A record in a source."""

    record: Record
    path: Path

    @property
    def order(self) -> tuple[str, str]:
        return self.record.finished, digest(self.record)


def command(folders: Sequence[Path], results: Path, as_json: bool) -> int:
    """The verb. The exit code is 1 where something was left out."""
    merged = merge(folders, results)
    if as_json:
        print(json.dumps(asdict(merged), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(as_text(merged))
        for line in merged.left_out:
            print(f"left out: {line}", file=sys.stderr)
    return 1 if merged.left_out else 0


def merge(folders: Sequence[Path], results: Path) -> Merged:
    """Add to `results` what the folders have and it lacks; the sources stay as they are.

    Raises UsageError where a source is no folder or is `results` itself, StoreError when results cannot be written.
    Interrupted, it is finished by being called again.
    """
    store, merged = Store(results), Merged()
    names = origins(folders)
    for folder in names:
        if not folder.is_dir():
            raise UsageError(f"the results folder {folder} does not exist")
        if folder == store.root.resolve():
            raise UsageError(f"{folder} cannot be merged into itself")
    store.check_writable()
    files = ((folder, file) for folder in names for file in folder.glob("*/*/*/*/[0-9]*.json"))
    for place in sorted({file.parent.relative_to(folder) for folder, file in files}):
        found = [one for folder, name in names.items() for one in _read(folder / place, name, merged)]
        if found:
            _merge_cell(store, found, merged)
    for folder in names:
        _merge_profiles(results, profiling.read(folder), merged)
    return merged


def origins(folders: Iterable[Path]) -> dict[Path, str]:
    """Each folder with a short name: its last parts, as many as tell it from the others. Records are published."""
    whole = {folder.expanduser().resolve(): folder.expanduser().resolve().parts for folder in folders}
    for length in range(1, max(map(len, whole.values()), default=0) + 1):
        names = {folder: PurePath(*parts[-length:]).as_posix() for folder, parts in whole.items()}
        if len(set(names.values())) == len(names):
            return names
    return {folder: folder.as_posix() for folder in whole}


def digest(record: Record) -> str:
    """Hash of what a record says, wherever it lies: the same whatever number it has and however often it was merged."""
    predictions = record.predictions and record.predictions.model_copy(update={"file": ""})
    bare = record.model_copy(update={"attempt": 1, "origin": None, "predictions": predictions})
    return hashlib.sha256(to_json(bare).encode()).hexdigest()


def _read(folder: Path, name: str, merged: Merged) -> Iterator[_Found]:
    """The records of a cell's folder in the source `name`. Unreadable ones are left out by name."""
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            record = from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            place = "/".join(path.parts[-5:])
            merged.left_out.append(f"{name}: {place}: {' '.join(str(error).split())[:200]}")
            continue
        origin = record.origin or Origin(results=name, attempt=record.attempt)
        yield _Found(record.model_copy(update={"origin": origin}), path)


def _merge_cell(store: Store, found: Sequence[_Found], merged: Merged) -> None:
    cell = found[0].record.cell
    lock = store.lock(cell)
    if lock is None:
        merged.left_out.append(f"{cell}: a run is working on it; merge again when it has ended")
        return
    try:
        store.sweep(cell)
        known = {digest(record) for record in store.attempts(cell)}
        for one in sorted(found, key=lambda one: one.order):
            if digest(one.record) in known:
                merged.same += 1
            elif _add(store, one, merged):
                known.add(digest(one.record))
        _judge(store.attempts(cell), cell, merged)
    finally:
        lock.release()


def _add(store: Store, found: _Found, merged: Merged) -> bool:
    """Add a record with its predictions and its sheet; a record whose predictions are gone or damaged is left out."""
    record, predictions = found.record, None
    if record.predictions is not None:
        try:
            predictions = found.path.with_name(record.predictions.file).read_bytes()
        except OSError:
            predictions = b""
        if hashlib.sha256(predictions).hexdigest() != record.predictions.sha256:
            origin = record.origin.results if record.origin else ""
            merged.left_out.append(f"{origin}: {record.cell}, attempt {record.attempt}: its predictions are not there")
            return False
    number = max(record.attempt, store.next_attempt(record.cell))
    store.append(record.model_copy(update={"attempt": number}), predictions, sheet_beside(found.path))
    merged.added += 1
    return True


def _judge(attempts: Sequence[Record], cell: Cell, merged: Merged) -> None:
    """Note whether the ok records of a cell agree in their metrics and in what they predicted."""
    ok = [record for record in attempts if record.status == "ok"]
    said = {_said(record) for record in ok}
    if len(said) > 1:
        records: list[dict[str, object]] = [
            {
                "attempt": record.attempt,
                "origin": None if record.origin is None else record.origin.model_dump(),
                "metric": record.primary and record.primary.name,
                "value": record.primary and record.primary.value,
            }
            for record in ok
        ]
        merged.rivals.append(Rival(str(cell), cell.key, records))
    elif len(ok) > 1:
        merged.repeated += 1


def _said(record: Record) -> str:
    """What must be the same where a cell was repeated exactly."""
    return json.dumps([record.metrics, record.predictions and record.predictions.sha256], sort_keys=True)


def _merge_profiles(results: Path, profiles: Iterable[CostProfile], merged: Merged) -> None:
    for profile in profiles:
        if profile in profiling.read(results, str(profile.subject.folder)):
            merged.same_profiles += 1
        else:
            profiling.write(results, profile)
            merged.added_profiles += 1


def as_text(merged: Merged) -> str:
    """What a person reads."""
    lines = [
        f"records: {merged.added} added, {merged.same} were there",
        f"profiles: {merged.added_profiles} added, {merged.same_profiles} were there",
    ]
    if merged.repeated:
        lines.append(f"{merged.repeated} cells were run more than once, with the same outcome")
    for rival in merged.rivals:
        values = ", ".join(
            f"{one['metric']} {one['value']} (attempt {one['attempt']}{_from(one)})" for one in rival.records
        )
        lines.append(f"differ: {rival.cell} [{rival.key}]: {values}")
    return "\n".join(lines)


def _from(one: dict[str, object]) -> str:
    origin = one["origin"]
    return f", from {origin['results']}" if isinstance(origin, dict) else ""
