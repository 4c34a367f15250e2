"""The results folder: immutable records, one file per attempt, safe against kill -9 and other runs.

`<protocol>/<task>/<method>/<key>/<attempt>.json`, the attempt's predictions beside it as `<attempt>.npz` and, where
they are pictures, a sheet of them as `<attempt>.png`; see `publish` for how a reader sees whole files or none.

Several machines may share the folder. A cell's lock (flock) keeps them from running it twice; NFS since version 4, GPFS
and Lustre with `-o flock` hold it across machines. Where locks hold on one machine only, a cell may run twice, and
nothing worse: each attempt takes a number that was free, and no file is ever replaced.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import AtlasError
from .publish import TEMPORARY, publish, sweep
from .records import Cell, PredictionsFile, Record, from_json, to_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from filelock import BaseFileLock

    Predictions = Mapping[str, np.ndarray] | bytes  # arrays, or the content of a predictions file

log = logging.getLogger(__name__)


class StoreError(AtlasError):
    """The results folder cannot be written (disk full, no permission)."""


class TakenError(StoreError):
    """The number of an attempt is taken."""


def outdated(record: Record) -> bool:
    """Whether the task's data have changed since, as while a task is drafted: the record was true to another card.

    A record whose data never were the card's (another machine's rounding, say) is not outdated: running the cell again
    there would give the same.
    """
    from .registry import registry

    tasks = registry("tasks")
    if record.data is None or not record.data.matches_card or record.cell.task.id not in tasks:
        return False
    stated = tasks.card(record.cell.task.id).fingerprints
    seen = {"train": record.data.train, "test": record.data.test}
    return any(value not in (None, stated.get(split)) for split, value in seen.items())


class Store:
    """A results folder. It needs not exist; reading an absent one finds nothing."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    # reading ---------------------------------------------------------------------------------------------------

    def read(self) -> Iterator[tuple[Path, Record]]:
        """Every readable record with its file, in the order of the paths. Others are named in a warning."""
        for path in sorted(self.root.glob("*/*/*/*/[0-9]*.json"), key=lambda path: (path.parent, len(path.name), path)):
            record = read_record(path)
            if record is not None:
                yield path, record

    def records(self) -> Iterator[Record]:
        """Every readable record."""
        return (record for _, record in self.read())

    def attempts(self, cell: Cell) -> list[Record]:
        """The readable attempts at one cell, oldest first."""
        numbers = sorted(self._numbers(cell))
        found = (read_record(self.path(cell, number)) for number in numbers if self.path(cell, number).exists())
        return [record for record in found if record is not None]

    def current(self, cell: Cell) -> Record | None:
        """The attempt that counts: the newest ok one, else the newest; outdated ones count as none."""
        return choose([record for record in self.attempts(cell) if not outdated(record)])

    def predictions(self, record: Record) -> dict[str, np.ndarray] | None:
        """Arrays of a record's predictions; None (with a warning) where the file is missing or not the record's."""
        if record.predictions is None:
            return None
        return self.arrays(self.root / record.cell.folder / record.predictions.file, record.predictions.sha256)

    def arrays(self, path: Path, sha256: str) -> dict[str, np.ndarray] | None:
        """Arrays of a predictions file; None (with a warning) where it is missing or has another hash."""
        import numpy as np

        try:
            content = path.read_bytes()
        except OSError as error:
            log.warning("predictions %s cannot be read: %s", path, error.strerror)
            return None
        if hashlib.sha256(content).hexdigest() != sha256:
            log.warning("predictions %s are not the ones of the record; skipped", path)
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def frame(self) -> pd.DataFrame:
        """One row per cell (its current attempt), with the columns of `frame.COLUMNS`; read through the index."""
        from . import index
        from .frame import COLUMNS, group_of

        rows = index.current(self.root, [name for name in COLUMNS if name != "group"])
        groups = {task: group_of(task) for task in rows["task"].unique()}
        return rows.assign(group=rows["task"].map(groups))[COLUMNS]

    def stored_arrays(self, rows: pd.DataFrame | None = None) -> Callable[[str], Mapping[str, np.ndarray] | None]:
        """What finds the predictions of an attempt by its `path` in the frame; None where it stored none.

        Their hashes come from the index, so that no record is parsed: `rows` of it with `path` and `predictions`, or
        all that is there.
        """
        from . import index

        known = index.current(self.root, ["path", "predictions"]) if rows is None else rows
        digests = dict(known.loc[known["predictions"].notna(), ["path", "predictions"]].itertuples(index=False))

        def find(path: str) -> Mapping[str, np.ndarray] | None:
            return self.arrays((self.root / path).with_suffix(".npz"), digests[path]) if path in digests else None

        return find

    def sheet(self, record: Record) -> bytes | None:
        """The sheet of pictures beside a record, or None where it has none."""
        return sheet_beside(self.path(record.cell, record.attempt))

    # writing ---------------------------------------------------------------------------------------------------

    def path(self, cell: Cell, attempt: int) -> Path:
        """The file of one attempt's record."""
        return self.root / cell.folder / f"{attempt}.json"

    def next_attempt(self, cell: Cell) -> int:
        """A number above all attempts, unreadable ones included. Hold the cell's lock."""
        return 1 + max(self._numbers(cell), default=0)

    def add(self, record: Record, predictions: Predictions | None = None, sheet: bytes | None = None) -> Path:
        """Write an attempt under its number: predictions, then the sheet, then the record.

        Raises TakenError where one of the three is there already, StoreError when it cannot be written, and leaves
        nothing behind then.
        """
        path = self.path(record.cell, record.attempt)
        content = predictions if predictions is None or isinstance(predictions, bytes) else _npz(predictions)
        if content is not None:
            file = PredictionsFile(file=f"{record.attempt}.npz", sha256=hashlib.sha256(content).hexdigest())
            record = record.model_copy(update={"predictions": file})
        files = {".npz": content, ".png": sheet, ".json": to_json(record).encode()}
        written: list[Path] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for suffix, data in files.items():
                if data is not None:
                    publish(path.with_suffix(suffix), data)
                    written.append(path.with_suffix(suffix))
        except BaseException as error:
            for left in written:
                left.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                raise TakenError(f"{path} exists; records are never overwritten") from None
            if isinstance(error, OSError):
                raise StoreError(f"cannot write results to {self.root}: {error.strerror or error}") from error
            raise
        return path

    def append(self, record: Record, predictions: Predictions | None = None, sheet: bytes | None = None) -> Path:
        """`add` under the record's number or, where another machine took it meanwhile, the next free one."""
        while True:
            try:
                return self.add(record, predictions, sheet)
            except TakenError:  # the folder's listing may be older than what it holds: count on from here
                number = max(record.attempt + 1, self.next_attempt(record.cell))
                record = record.model_copy(update={"attempt": number})

    def check_writable(self) -> None:
        """Raise StoreError unless a file can be written here."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f"{TEMPORARY}{os.getpid()}"
            try:
                probe.write_bytes(b"?" * 4096)
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write results to {self.root}: {error.strerror or error}") from error

    def lock(self, cell: Cell) -> BaseFileLock | None:
        """The cell's lock, taken; None when another run holds it."""
        from filelock import FileLock, Timeout

        folder = self.root / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / ".gitignore").exists():
                (folder / ".gitignore").write_text("*\n", encoding="utf-8")
            lock = FileLock(folder / f"{cell.key}.lock", timeout=0, thread_local=False)
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            raise StoreError(f"cannot write results to {self.root}: {error.strerror or error}") from error
        return lock

    def sweep(self, cell: Cell) -> None:
        """Delete what a killed writer left in a cell's folder. Hold the cell's lock."""
        sweep(self.root / cell.folder)

    def _numbers(self, cell: Cell) -> set[int]:
        """Numbers of attempts; what was written of one without its record has its number too."""
        files = (self.root / cell.folder).glob("*.*")
        return {int(path.stem) for path in files if path.suffix in (".json", ".npz", ".png") and path.stem.isdecimal()}


def choose(attempts: Iterable[Record]) -> Record | None:
    """The attempt that counts: the newest ok one, else the newest."""
    return max(attempts, key=lambda record: (record.status == "ok", record.attempt), default=None)


def sheet_beside(path: Path) -> bytes | None:
    """The sheet beside the file of a record, or None where there is none."""
    sheet = path.with_suffix(".png")
    return sheet.read_bytes() if sheet.is_file() else None


def read_record(path: Path) -> Record | None:
    """The record in a file; None, with a warning that names it, where there is none that can be read."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        log.warning("record %s cannot be read: %s", path, error.strerror)
    except ValueError as error:  # JSON, UTF-8 and schema errors
        log.warning("record %s is skipped: %s", path, " ".join(str(error).split())[:200])
    return None


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    import numpy as np

    if pickled := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise TypeError(f"the predictions {pickled[0]!r} are no numbers or text; they would need pickle")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
