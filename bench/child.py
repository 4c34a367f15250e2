"""Inside the process of one cell: limits, the cell's code, and its record.

The connection to the parent carries small dicts: progress, then {"finished": path} or {"fatal": message}. When the
parent is gone the connection closes, and the child ends at once, whatever it is doing.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .attempt import Attempt
from .errors import AtlasError
from .faults import report_of, status_of
from .processes import adopt, ignore_what_all_hear, load
from .records import Cell, Environment, ErrorReport, MemoryUse, Record, Status, Times
from .store import Store

ASK_WHERE = signal.SIGUSR1 if hasattr(signal, "SIGUSR1") else None  # makes a child print where it is


@dataclass(frozen=True)
class Job:
    """What a child needs to know."""

    cell: Cell
    target: str  # "module:function" that runs the cell: (Attempt) -> None
    results: Path
    attempt: int
    printed: Path  # file that takes what the child prints
    asked_at: float  # `time.monotonic` of the parent
    max_memory: int | None  # bytes of data the process may hold
    environment: Environment
    variables: dict[str, str]  # environment variables of the parent


def main(connection: Connection, job: Job) -> None:
    """Run a cell and write its record, whatever happens."""
    ignore_what_all_hear()
    adopt(job.variables)
    _print_to(job.printed)
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    start_delay = max(0.0, time.monotonic() - job.asked_at)
    started, clock, baseline = utc(), time.perf_counter(), _peak_rss()
    attempt = Attempt(job.cell, connection.send)
    error: ErrorReport | None = None
    status: Status = "ok"
    try:
        _limit_memory(job.max_memory)
        load(job.target)(attempt)
        attempt.phase_name = "done"
    except Exception as exception:
        status, error = status_of(exception), report_of(exception)
        exception.__traceback__ = None  # its frames hold the cell's tensors
    memory = MemoryUse(
        peak_rss_above_baseline_bytes=max(0, _peak_rss() - baseline),
        baseline_rss_bytes=baseline,
        limit_bytes=job.max_memory,
    )
    times = Times(
        start=start_delay, total=time.perf_counter() - clock, step=attempt.step_times(), **_known(attempt.seconds)
    )
    record = Record(
        key=job.cell.key,
        attempt=job.attempt,
        status=status,
        phase=attempt.phase_name,
        error=error,
        cell=job.cell,
        metrics=attempt.metrics,
        primary=attempt.primary,
        drift=attempt.drift,
        curve=attempt.curve_points(),
        parameters=attempt.parameters,
        times=times,
        memory=memory,
        data=attempt.data,
        computation=attempt.computation,
        environment=job.environment,
        started=started,
        finished=utc(),
    )
    try:
        path = Store(job.results).append(record, attempt.arrays, attempt.sheet)
    except AtlasError as failure:
        connection.send({"fatal": str(failure)})
    else:
        connection.send({"finished": str(path)})


def utc() -> str:
    """Now, ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _known(seconds: dict[str, float]) -> dict[str, Any]:
    return {name: value for name, value in seconds.items() if name in Times.model_fields}


def _end_with_parent(connection: Connection) -> None:
    """The parent never writes: the connection becomes readable when the parent is gone."""
    connection.poll(None)
    os._exit(1)


def _print_to(file: Path) -> None:
    """Keep what libraries print away from the display; a crash leaves its last words there."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable(file=2, all_threads=False)
    if ASK_WHERE is not None:
        faulthandler.register(ASK_WHERE, file=2, all_threads=False)


def _limit_memory(limit: int | None) -> None:
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def _peak_rss() -> int:
    """Largest resident set of this process so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
