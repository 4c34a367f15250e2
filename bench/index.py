"""The derived index of a results folder: every record as a row of parquet, so that 100,000 load in a second.

`<results>/.index/<protocol>@<task>.parquet` holds one row an attempt: the columns of `frame.row` and `facts.facts`,
and stamps of the file it came from. A part is never edited: when its records changed it is written anew under another
name and renamed. A part that is missing, corrupt or made by other code is made again from the records; where the folder
cannot be written, the index lives in memory. Deleting `.index` costs time and nothing else.

A part is up to date while each cell's folder has the modification time it had, and each record its time and size.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from .records import from_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)
FOLDER = ".index"
RACY = 2_000_000_000  # ns; a folder that changed this recently may change again within one tick of the file system
FAULT = "_fault"  # why a record cannot be read; its other columns are empty
CHOICE = ["key", "status", "attempt", "task", "matches_card", "train_data", "test_data"]
_MADE_BY = b"peft_atlas.made_by"


class _Entry(NamedTuple):
    """One record file, as the disk has it; the fields are columns of the index, with an underscore before the name."""

    folder: str  # <method>/<key>
    folder_time: int  # ns; 0: look again next time
    name: str
    time: int  # ns; 0: read again next time
    size: int


@dataclass(frozen=True)
class _Look:
    """A part's files in the order of their paths, the index's row of each (None: to be read), and whether all agree."""

    entries: list[_Entry]
    rows: list[int | None]
    same: bool


def current(root: Path, columns: Sequence[str]) -> pd.DataFrame:
    """One row for each cell below `root`, its current attempt, in the order of the paths.

    `columns` are those of `frame.row` (without `group`) and `facts.facts`. Unreadable records are named in a warning.
    The same choice as `Store.current`, for all cells at once.
    """
    import pandas as pd

    table = attempts(root, [*columns, *CHOICE])
    if table is None:
        return pd.DataFrame(columns=list(columns))
    rows = _chosen(table.select(CHOICE).to_pandas())
    return table.select(list(columns)).take(rows).to_pandas()


def attempts(root: Path, columns: Sequence[str]) -> pa.Table | None:
    """One row for every readable attempt, in the order of the paths; None where there is none."""
    import pyarrow as pa
    from pyarrow import compute

    found = [table for part in _parts(root) if (table := _up_to_date(root, part, columns)) is not None]
    tables = []
    for table in found:
        if table[FAULT].null_count < table.num_rows:
            _warn(root, table)
            table = table.filter(compute.is_null(table[FAULT]))
        tables.append(table)
    whole = pa.concat_tables(tables, promote_options="permissive") if tables else None
    if whole is None or not whole.num_rows:
        return None
    for name in columns:
        if name not in whole.column_names:
            whole = whole.append_column(name, pa.nulls(whole.num_rows))
    return whole


def _warn(root: Path, table: pa.Table) -> None:
    for path, fault in zip(table["path"].to_pylist(), table[FAULT].to_pylist(), strict=True):
        if fault is not None:
            log.warning("record %s %s", root / path, fault)


def _chosen(frame: pd.DataFrame) -> np.ndarray:
    """Positions of the attempts that count: the newest ok one of each key, else the newest; outdated ones never."""
    import numpy as np

    keys = frame.assign(position=np.arange(len(frame)), ok=frame["status"] == "ok")[~_outdated(frame)]
    best = keys.sort_values(["ok", "attempt"], ascending=False, kind="stable").drop_duplicates("key")
    return np.sort(best["position"].to_numpy())


def _outdated(frame: pd.DataFrame) -> pd.Series:
    """`store.outdated`, row by row."""
    from .registry import registry

    tasks = registry("tasks")
    cards = {task: tasks.card(task).fingerprints for task in frame["task"].unique() if task in tasks}
    differs = frame["task"].isin(list(cards)) & frame["matches_card"].eq(True).fillna(False)
    other = differs & False
    for split in ("train", "test"):
        stated = frame["task"].map({task: card.get(split) for task, card in cards.items()})
        seen = frame[f"{split}_data"]
        other |= seen.notna() & (stated.isna() | seen.ne(stated).fillna(True))
    return (differs & other).astype(bool)


# keeping a part up to date --------------------------------------------------------------------------------------------


def _parts(root: Path) -> Iterator[tuple[str, str]]:
    """(protocol, task) of every folder that may hold records."""
    for protocol in _folders(root):
        for task in _folders(root / protocol):
            yield protocol, task


def _folders(parent: Path | str) -> list[str]:
    """Names of the folders in `parent`, hidden ones aside, sorted."""
    try:
        with os.scandir(parent) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _up_to_date(root: Path, part: tuple[str, str], columns: Sequence[str]) -> pa.Table | None:
    """The part as the disk is now: `columns` (those it has), path and fault. None without records."""
    file = root / FOLDER / f"{'@'.join(part)}.parquet"
    wanted = list(dict.fromkeys([*columns, "path", FAULT]))
    stamps = _load(file, [f"_{name}" for name in _Entry._fields])
    if stamps is not None and _look(root.joinpath(*part), stamps).same:
        table = _load(file, wanted)
        if table is not None and table.num_rows == stamps.num_rows:
            return table
    whole = _renewed(root, part, _load(file, None))
    if whole is None:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        return None
    _write(file, whole)
    return whole.select([name for name in wanted if name in whole.column_names])


def _renewed(root: Path, part: tuple[str, str], old: pa.Table | None) -> pa.Table | None:
    """The whole part: rows of files that are what they were, and the other files read."""
    import pyarrow as pa

    look = _look(root.joinpath(*part), old)
    if not look.entries:
        return None
    kept = [row for row in look.rows if row is not None]
    read = [_row(root, part, entry) for entry, row in zip(look.entries, look.rows, strict=True) if row is None]
    names = dict.fromkeys(name for row in read for name in row)
    fresh = pa.table({name: [row.get(name) for row in read] for name in names})
    joined = (
        fresh if old is None or not kept else pa.concat_tables([old.take(kept), fresh], promote_options="permissive")
    )
    old_rows, new_rows = iter(range(len(kept))), iter(range(len(kept), len(look.entries)))
    joined = joined.take([next(new_rows if row is None else old_rows) for row in look.rows])
    times = pa.array([entry.folder_time for entry in look.entries], pa.int64())
    return joined.set_column(joined.column_names.index("_folder_time"), "_folder_time", times)


def _look(folder: Path, known: pa.Table | None) -> _Look:
    """Compare a part's folder with the rows of the index."""
    rows: dict[str, dict[str, tuple[int, _Entry]]] = {}
    if known is not None:
        columns = [known[f"_{name}"].to_pylist() for name in _Entry._fields]
        for number, entry in enumerate(map(_Entry, *columns)):
            rows.setdefault(entry.folder, {})[entry.name] = (number, entry)
    entries: list[_Entry] = []
    found: list[int | None] = []
    same = True
    now = time.time_ns()
    for cell, changed in _cells(folder):
        files = rows.get(cell, {})
        before = next(iter(files.values()))[1].folder_time if files else 0
        if changed != before:
            names = _record_names(f"{folder}/{cell}")
            changed = 0 if now - changed < RACY else changed
            same = same and (changed == before or not names)
        else:
            names = list(files)
        for name in names:
            entry = _stat(folder, cell, changed, name)
            row = files.get(name)
            match = row is not None and entry[2:] == row[1][2:]
            entries.append(entry)
            found.append(row[0] if match and row is not None else None)
            same = same and match
    return _Look(entries, found, same and known is not None and len(entries) == known.num_rows)


def _cells(folder: Path) -> Iterator[tuple[str, int]]:
    """`<method>/<key>` of every cell's folder, with its modification time in ns."""
    for method in _folders(folder):
        try:
            with os.scandir(folder / method) as entries:
                cells = sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.is_dir())
        except OSError:
            continue
        for key, changed in cells:
            yield f"{method}/{key}", changed


def _record_names(folder: str) -> list[str]:
    """Files that are records by their name, in the order of attempts."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted((n for n in names if n.endswith(".json") and n[0].isdigit()), key=lambda name: (len(name), name))


def _stat(folder: Path, cell: str, changed: int, name: str) -> _Entry:
    try:
        status = os.stat(f"{folder}/{cell}/{name}")
    except OSError:
        return _Entry(cell, changed, name, 0, 0)
    return _Entry(cell, changed, name, status.st_mtime_ns, status.st_size)


def _row(root: Path, part: tuple[str, str], entry: _Entry) -> dict[str, Any]:
    """What the index holds of one file."""
    from .facts import facts
    from .frame import row

    path = PurePosixPath(*part, entry.folder, entry.name)
    try:
        record = from_json((root / path).read_text(encoding="utf-8"))
        content = {**row(record, path), **facts(record)}
        del content["group"]  # belongs to the task's card, which may change
        fault = None
    except OSError as error:
        entry, content, fault = entry._replace(time=0), {}, f"cannot be read: {error.strerror}"
    except ValueError as error:  # JSON, UTF-8 and schema errors
        content, fault = {}, f"is skipped: {' '.join(str(error).split())[:200]}"
    stamps = {f"_{name}": value for name, value in entry._asdict().items()}
    return {**content, **stamps, "path": path.as_posix(), FAULT: fault}


# parquet --------------------------------------------------------------------------------------------------------------


def _load(file: Path, columns: Sequence[str] | None) -> pa.Table | None:
    """Columns of a part (those it has); None where it is missing, corrupt or made by other code."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as content:
            if (content.schema_arrow.metadata or {}).get(_MADE_BY) != _code():
                return None
            present = content.schema_arrow.names
            wanted = present if columns is None else [name for name in columns if name in present]
            return content.read(columns=wanted)
    except (OSError, pa.ArrowException):
        return None


def _write(file: Path, table: pa.Table) -> None:
    """Publish a part whole, or not at all."""
    from pyarrow import parquet

    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        if not (file.parent / ".gitignore").exists():
            (file.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        try:
            parquet.write_table(table.replace_schema_metadata({_MADE_BY: _code()}), draft, compression="zstd")
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)


@lru_cache
def _code() -> bytes:
    """Digest of the code that makes rows: other code, another index."""
    here = Path(__file__).parent
    sources = [(here / name).read_bytes() for name in ("records.py", "frame.py", "facts.py", "index.py")]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16].encode()
