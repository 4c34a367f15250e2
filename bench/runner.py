"""Run cells, each in a process of its own, several at once; every end of a process becomes a record.

The parent only watches: it starts children, passes their progress on, ends those that hang or take too long, writes
the records that a dead child could not write, and stops the children on Ctrl-C.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import processes
from .child import ASK_WHERE, Job, utc
from .child import main as child_main
from .faults import ended_by, trimmed
from .records import FAILED, Cell, Environment, ErrorReport, Record, Status, Times
from .store import Store, StoreError

if TYPE_CHECKING:
    from filelock import BaseFileLock

TICK = 0.2  # seconds between two looks at the clock
PAUSED = 5.0  # a longer gap between two looks means that this process was stopped (Ctrl-Z), and its children with it
CELL_TARGET = "peft_atlas.bench.cell:run_cell"


@dataclass(frozen=True)
class Limits:
    """What children may take."""

    jobs: int = 1
    timeout: float = 3600.0  # seconds of one cell
    stall: float = 300.0  # seconds without a sign of life
    max_memory: int | None = None  # bytes of data of one process


class Listener:
    """Hears what happens; the display is one."""

    def started(self, cell: Cell) -> None:
        """A cell's process was asked for."""

    def progress(self, cell: Cell, report: dict[str, Any]) -> None:
        """A cell told its phase, step and loss."""

    def finished(self, cell: Cell, record: Record) -> None:
        """A cell has a record (its own, or one that another run wrote meanwhile)."""

    def waiting(self, cells: int) -> None:
        """Nothing is left but cells that another run is working on."""


@dataclass
class _Child:
    cell: Cell
    process: Any
    connection: Connection
    lock: Any
    job: Job
    since: float  # monotonic seconds
    heard: float
    attempt: int  # the number of its record; another than the job's where another machine took that one
    started: str = field(default_factory=utc)
    phase: str = "start"
    closed: bool = False


class Runner:
    """One run over a results folder."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        environment: Environment,
        listener: Listener | None = None,
        target: str = CELL_TARGET,
        again: bool = False,
    ) -> None:
        """`again`: run a cell even where an ok record exists (`--existing all`)."""
        self.store, self.limits, self.environment = store, limits, environment
        self.listener = listener or Listener()
        self.target, self.again = target, again
        self.records: list[Record] = []
        self._running: list[_Child] = []
        self._looked = time.monotonic()

    def run(self, cells: Sequence[Cell]) -> list[Record]:
        """Run all cells; their records, in order of completion.

        Raises KeyboardInterrupt (running cells are recorded as cancelled first) and StoreError when records cannot be
        written. `records` holds what was finished by then.
        """
        queue = deque(cells)
        with tempfile.TemporaryDirectory(prefix="peft-atlas-") as printed:
            try:
                while queue or self._running:
                    self._start(queue, Path(printed))
                    self._listen()
                    self._watch()
            except KeyboardInterrupt:
                self._stop_all("cancelled", ErrorReport(type="Cancelled", message="stopped by the user", traceback=""))
                raise
            finally:
                self._abandon_all()
        return self.records

    # starting --------------------------------------------------------------------------------------------------

    def _start(self, queue: deque[Cell], printed: Path) -> None:
        """Fill the free places. Cells that another run holds go to the end of the queue."""
        elsewhere = 0
        while queue and len(self._running) < self.limits.jobs and elsewhere < len(queue):
            cell = queue.popleft()
            lock = claim(self.store, cell, again=self.again)
            if lock is None:
                queue.append(cell)
                elsewhere += 1
                continue
            if isinstance(lock, Record):
                self._finish(cell, lock)
                continue
            try:
                self.store.sweep(cell)
                self._running.append(self._child(cell, lock, printed))
            except BaseException:
                lock.release()
                raise
            self.listener.started(cell)
        if elsewhere and not self._running:
            self.listener.waiting(elsewhere)
            time.sleep(TICK)

    def _child(self, cell: Cell, lock: Any, printed: Path) -> _Child:
        now = time.monotonic()
        job = Job(
            cell=cell,
            target=self.target,
            results=self.store.root,
            attempt=self.store.next_attempt(cell),
            printed=printed / f"{cell.key}.txt",
            asked_at=now,
            max_memory=self.limits.max_memory,
            environment=self.environment,
            variables=dict(os.environ),
        )
        process, connection = processes.start(child_main, job)
        now = time.monotonic()  # the first start waits for the server's imports
        return _Child(cell, process, connection, lock, job, since=now, heard=now, attempt=job.attempt)

    # watching --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Pass on what children say, and take leave of those that ended."""
        by_connection = {child.connection: child for child in self._running if not child.closed}
        by_sentinel = {child.process.sentinel: child for child in self._running}
        ready = wait([*by_connection, *by_sentinel], timeout=TICK)
        for connection, child in by_connection.items():
            if connection in ready:
                self._hear(child)
        for sentinel, child in by_sentinel.items():
            if sentinel in ready and child in self._running:
                self._hear(child)
                self._ended(child)

    def _hear(self, child: _Child) -> None:
        try:
            while child.connection.poll():
                message = child.connection.recv()
                child.heard = time.monotonic()
                if "fatal" in message:
                    raise StoreError(message["fatal"])
                if "finished" in message:
                    child.attempt = int(Path(message["finished"]).stem)
                else:
                    child.phase = message.get("phase", child.phase)
                    self.listener.progress(child.cell, message)
        except (EOFError, ConnectionError):
            child.closed = True  # the process is ending; its sentinel says when

    def _ended(self, child: _Child) -> None:
        """The process is gone: take the record it wrote, or write one that says how it ended."""
        child.process.join()
        record = self._written(child)
        if record is None:
            self._write(child, "error", ended_by(child.process.exitcode, _printed(child)))
        else:
            self._leave(child, record)

    def _watch(self) -> None:
        """End children that hang or take too long."""
        now = time.monotonic()
        if now - self._looked > PAUSED:
            for child in self._running:
                child.since += now - self._looked
                child.heard += now - self._looked
        self._looked = now
        for child in list(self._running):
            if now - child.since > self.limits.timeout:
                self._kill(child, "timeout", f"took longer than {self.limits.timeout:g} s")
            elif now - child.heard > self.limits.stall:
                self._kill(child, "timeout", f"gave no sign of life for {self.limits.stall:g} s")

    # ending ----------------------------------------------------------------------------------------------------

    def _kill(self, child: _Child, status: Status, message: str) -> None:
        where = ""
        if ASK_WHERE is not None and child.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(child.process.pid, ASK_WHERE)
                time.sleep(TICK)
            where = _printed(child)
        child.process.kill()
        child.process.join()
        record = self._written(child)  # it may have finished in the last moment
        if record is None:
            self._write(child, status, ErrorReport(type="Watchdog", message=message, traceback=trimmed(where)))
        else:
            self._leave(child, record)

    def _stop_all(self, status: Status, error: ErrorReport) -> None:
        """End all children at once, then record them."""
        for child in self._running:
            child.process.kill()
        for child in list(self._running):
            child.process.join()
            record = self._written(child)
            if record is None:
                self._write(child, status, error)
            else:
                self._leave(child, record)

    def _abandon_all(self) -> None:
        """End children without a record: results can no longer be written."""
        for child in self._running:
            child.process.kill()
        for child in self._running:
            child.process.join()
            self.store.sweep(child.cell)
            child.lock.release()
        self._running.clear()

    def _written(self, child: _Child) -> Record | None:
        return next((r for r in self.store.attempts(child.cell) if r.attempt == child.attempt), None)

    def _write(self, child: _Child, status: Status, error: ErrorReport) -> None:
        record = Record(
            key=child.cell.key,
            attempt=child.attempt,
            status=status,
            phase=child.phase,
            error=error,
            cell=child.cell,
            times=Times(total=time.monotonic() - child.since),
            environment=self.environment,
            started=child.started,
            finished=utc(),
        )
        self.store.sweep(child.cell)
        path = self.store.append(record)
        self._leave(child, record.model_copy(update={"attempt": int(path.stem)}))

    def _leave(self, child: _Child, record: Record) -> None:
        self._running.remove(child)
        child.connection.close()
        child.lock.release()
        self._finish(child.cell, record)

    def _finish(self, cell: Cell, record: Record) -> None:
        self.records.append(record)
        self.listener.finished(cell, record)


def claim(store: Store, cell: Cell, *, again: bool) -> BaseFileLock | Record | None:
    """The cell's lock, taken; or the ok record that another run left since the plan; None while another run has it."""
    lock = store.lock(cell)
    existing = None if lock is None or again else store.current(cell)
    if lock is None or existing is None or existing.status != "ok":
        return lock
    lock.release()
    return existing


def failed(records: Sequence[Record]) -> list[Record]:
    """Records of cells that went wrong."""
    return [record for record in records if record.status in FAILED]


def _printed(child: _Child) -> str:
    """The last words of a process."""
    try:
        return child.job.printed.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
