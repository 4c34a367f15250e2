"""Cells as tasks of a Ray cluster. Machines need no folder in common: a worker hands its record back.

The process that was asked holds the cells' locks and is the only writer. Ray runs a cell whose worker was lost again,
`retries` times; a record is written once, when one comes back, or when none will.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from pydantic import Field
from ray.exceptions import RayError, RayTaskError

from ..child import utc
from ..display import Display
from ..environment import cores, environment
from ..errors import AtlasError, UsageError
from ..plan_file import check
from ..records import Cell, ErrorReport, Record, Times, from_json
from ..runner import CELL_TARGET, Limits, Runner, claim
from ..store import Store
from . import Executor, Work, handed_over

if TYPE_CHECKING:
    from filelock import BaseFileLock

AHEAD = 256  # tasks that wait in the cluster at most; each holds a lock
LOOK = 1.0  # seconds between two looks for cells that another run held


class Ray(Executor):
    """`address` of the cluster ("auto", "ray://host:10001"); without it, RAY_ADDRESS or a new one on this machine."""

    address: str | None = None
    cpus: float | None = Field(None, gt=0, description="of a cell; the protocol's threads when not given")
    gpus: float = Field(0, ge=0, description="of a cell")
    memory_gb: float | None = Field(None, gt=0, description="that Ray sets aside for a cell")
    retries: int = Field(3, ge=0, description="how often a cell whose worker was lost is run again")

    def run(self, work: Work) -> list[Record]:
        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(address=self.address, log_to_driver=False)
            except (ConnectionError, ValueError) as error:
                raise UsageError(f"executor ray: {error}") from None
        try:
            return _Run(self, work).run()
        finally:
            if ours:
                ray.shutdown()


class _Run:
    """One run: cells wait in `queue`, are `running` under their locks, and leave `records`."""

    def __init__(self, config: Ray, work: Work) -> None:
        self.work, self.config = work, config
        self.queue = deque(work.cells)
        self.running: dict[Any, tuple[Cell, BaseFileLock, float, str]] = {}
        self.records: list[Record] = []
        options: dict[str, Any] = {"num_cpus": config.cpus or work.threads, "num_gpus": config.gpus}
        if config.memory_gb is not None:
            options["memory"] = int(config.memory_gb * 1e9)
        _tell_what_lacks(options, work.display)
        self.task: Any = ray.remote(max_retries=config.retries, **options)(run_one)

    def run(self) -> list[Record]:
        try:
            while self.queue or self.running:
                self._submit()
                ready, _ = ray.wait(list(self.running), timeout=LOOK) if self.running else ([], [])
                for reference in ready:
                    self._take(reference)
        finally:
            for reference, (_, lock, *_) in self.running.items():
                ray.cancel(reference, force=True)
                lock.release()
        return self.records

    def _submit(self) -> None:
        """Hand out cells. Those that another run holds go to the end of the queue."""
        work, elsewhere = self.work, 0
        while self.queue and len(self.running) < AHEAD and elsewhere < len(self.queue):
            cell = self.queue.popleft()
            lock = claim(work.store, cell, again=work.again)
            if lock is None:
                self.queue.append(cell)
                elsewhere += 1
            elif isinstance(lock, Record):
                self._finish(cell, lock)
            else:
                arguments = (cell.model_dump_json(), work.limits, work.threads, work.target, handed_over())
                self.running[self.task.remote(*arguments)] = (cell, lock, time.monotonic(), utc())
        if elsewhere and not self.running:
            work.display.waiting(elsewhere)
            time.sleep(LOOK)

    def _take(self, reference: Any) -> None:
        """Write the record that came back, or one that says that none will."""
        cell, lock, since, started = self.running[reference]
        store, predictions, sheet = self.work.store, None, None
        try:
            text, predictions, sheet = ray.get(reference)
            record = from_json(text)
        except RayTaskError as error:  # what runs cells makes a record of every end of one: this is no cell's fault
            raise AtlasError(f"a worker of the cluster cannot run {cell}: {error.cause}") from None
        except RayError as error:
            record = _lost(cell, error, self.config.retries, time.monotonic() - since, started, self.work)
        store.sweep(cell)
        path = store.append(record.model_copy(update={"attempt": store.next_attempt(cell)}), predictions, sheet)
        del self.running[reference]
        lock.release()
        self._finish(cell, from_json(path.read_text(encoding="utf-8")))

    def _finish(self, cell: Cell, record: Record) -> None:
        self.records.append(record)
        self.work.display.finished(cell, record)


def _tell_what_lacks(options: dict[str, Any], display: Display) -> None:
    """Warn where no machine of the cluster has what a cell asks for: Ray waits for one without a word."""
    wanted = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options.get("memory", 0)}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(machine.get(name, 0) >= value for name, value in wanted.items()) for machine in machines):
        words = ", ".join(f"{value:g} {name}" for name, value in wanted.items() if value)
        display.warn(f"no machine of the cluster has {words} for a cell: the run waits until one joins")


def _lost(cell: Cell, error: RayError, retries: int, seconds: float, started: str, work: Work) -> Record:
    words = " ".join(str(error).split())[:500]
    return Record(
        key=cell.key,
        attempt=1,
        status="error",
        phase="start",
        error=ErrorReport(type="Worker", message=f"lost its worker {retries + 1} times: {words}", traceback=""),
        cell=cell,
        times=Times(total=seconds),
        environment=environment(work.threads, work.limits.jobs),
        started=started,
        finished=utc(),
    )


def run_one(
    cell: str, limits: Limits, threads: int, target: str, variables: dict[str, str]
) -> tuple[str, bytes | None, bytes | None]:
    """Run one cell on a worker; its record, predictions and sheet where it has them. UsageError where it cannot."""
    os.environ.update(variables)
    planned = Cell.model_validate_json(cell)
    if target == CELL_TARGET:
        check(planned)
    with tempfile.TemporaryDirectory(prefix="peft-atlas-") as folder:
        store = Store(folder)
        alone = Limits(jobs=1, timeout=limits.timeout, stall=limits.stall, max_memory=limits.max_memory)
        Runner(store, alone, environment(threads, max(1, cores() // threads)), target=target).run([planned])
        ((path, record),) = store.read()
        predictions = None if record.predictions is None else path.with_name(record.predictions.file).read_bytes()
        sheet = store.sheet(record)
        return Path(path).read_text(encoding="utf-8"), predictions, sheet
