"""Measured times of kernels: tidy rows, CSV files of them, and the dispatcher's thresholds derived from them."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError

TOLERANCE = 1.03  # a kernel may be this much slower than what it replaces
CPU = "cpu"


@dataclass(frozen=True)
class Row:
    """One provider of one kernel at one shape. Times in microseconds; what is unknown is None.

    `shape` is a name, `size` its numbers, `work` what the dispatcher's thresholds count. `bytes` and `flops` are the
    least that the mode needs, `roofline` the time they take on this GPU at best, divided by the median. `peak_mb` is
    allocated memory beyond the inputs, in MiB. `time` is UTC.
    """

    kernel: str
    provider: str  # eager, algebra, compile, hf-peft, triton
    mode: str  # forward, backward, both
    launch: str  # stream, graph
    shape: str
    size: str
    work: int
    dtype: str
    p50: float
    p20: float
    p80: float
    peak_mb: float | None
    bytes: int
    flops: int
    roofline: float | None
    gpu: str  # "cpu" where there is none
    torch: str
    triton: str | None
    driver: str | None
    commit: str | None
    time: str


FIELDS = [field.name for field in dataclasses.fields(Row)]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in rows)


def read(paths: Iterable[Path]) -> list[Row]:
    """The rows of CSV files. UsageError names a file that is no such CSV."""
    return [row for path in paths for row in _read(path)]


def _read(path: Path) -> Iterator[Row]:
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames != FIELDS:
                raise UsageError(f"{path} holds no rows of `bench kernels bench`: its columns are others")
            for line, values in enumerate(reader, 2):
                try:
                    yield _row(values)
                except (TypeError, ValueError) as error:
                    raise UsageError(f"{path}, line {line}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _row(values: dict[str, str]) -> Row:
    found: dict[str, object] = {name: value or None for name, value in values.items()}
    for name in ("work", "bytes", "flops"):
        found[name] = int(values[name])
    for name in ("p50", "p20", "p80"):
        found[name] = float(values[name])
    for name in ("peak_mb", "roofline"):
        found[name] = float(values[name]) if values[name] else None
    return Row(**found)  # type: ignore[arg-type]


def pairs(rows: Sequence[Row], fallback: str) -> Iterator[tuple[Row, Row]]:
    """(kernel's row, the fallback's row) of equal mode, launch, shape, dtype and GPU."""
    others = {_place(row): row for row in rows if row.provider == fallback}
    for row in rows:
        if row.provider == "triton" and _place(row) in others:
            yield row, others[_place(row)]


def _place(row: Row) -> tuple[str, ...]:
    return row.kernel, row.mode, row.launch, row.size, row.dtype, row.gpu


def thresholds(rows: Sequence[Row]) -> list[dict[str, str | int]]:
    """Entries of `kernels/thresholds.json`: the least work from which on no measured shape had a kernel too slow.

    Launched from a stream, as a model launches; a kernel that is too slow at the largest shape has no entry.
    """
    found: dict[tuple[str, ...], list[tuple[int, bool]]] = {}
    for fallback in ("algebra", "compile"):
        for kernel, other in pairs(rows, fallback):
            if kernel.launch == "stream" and kernel.gpu != CPU and kernel.mode != "backward":
                place = (kernel.gpu, kernel.kernel, kernel.dtype, kernel.mode, fallback)
                found.setdefault(place, []).append((kernel.work, kernel.p50 <= TOLERANCE * other.p50))
    entries: list[dict[str, str | int]] = []
    for key, measured in sorted(found.items()):
        work = _least(measured)
        if work is not None:
            entries.append(
                {**dict(zip(("gpu", "kernel", "dtype", "mode", "fallback"), key, strict=True)), "work": work}
            )
    return entries


def _least(measured: Sequence[tuple[int, bool]]) -> int | None:
    """The least measured work that lies above all work at which the kernel was too slow."""
    slow = max((work for work, fast in measured if not fast), default=-1)
    return min((work for work, fast in measured if fast and work > slow), default=None)


def thresholds_text(rows: Sequence[Row]) -> str:
    """The content of `kernels/thresholds.json`."""
    return json.dumps(thresholds(rows), indent=1) + "\n"
