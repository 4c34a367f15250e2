"""Which records count, and which may be compared.

Records are compared within one version of one protocol on one class of machine, never across. Within it, the cells of a
task share the settings (protocol hash, task version, backbone and weights, steps) that most of them have; a method
takes part with the configuration that was recorded last. Everything else is set aside, with a line that says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench import index
from ..bench.frame import COLUMNS, group_of

if TYPE_CHECKING:
    import pandas as pd

ARENA = ["protocol", "protocol_version", "machine"]
SETTINGS = ["task_version", "protocol_hash", "backbone", "weights", "steps"]
CONFIGURATION = ["method", "method_version", "config"]
FACTS = ["protocol_hash", "method_version", "weights", "machine", "predictions"]


@dataclass(frozen=True)
class Arena:
    """What may be compared: rows of one version of one protocol on one class of machine, one a cell."""

    protocol: str
    version: int
    machine: str
    rows: pd.DataFrame  # columns of `bench.frame` and `FACTS`
    set_aside: dict[str, tuple[str, ...]]  # task -> lines


def read(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The current attempts of a results folder: those of cells, and those of tuning trials."""
    columns = [name for name in COLUMNS if name != "group"]
    rows = index.current(results, [*columns, *FACTS])
    groups = {task: group_of(task) for task in rows["task"].unique()}
    rows = rows.assign(group=rows["task"].map(groups), machine=rows["machine"].astype(object).fillna("unknown"))
    trial = rows["selection"].eq(True)
    return rows[~trial].reset_index(drop=True), rows[trial].reset_index(drop=True)


def arenas(rows: pd.DataFrame) -> list[Arena]:
    """The comparable parts of a results folder, in the order of their names."""
    found = []
    for (protocol, version, machine), part in rows.groupby(ARENA, sort=True):
        kept, lines = [], {}
        for task, cells in part.groupby("task", sort=True):
            same, odd = _most(cells)
            newest, older = _newest(same)
            kept.append(newest)
            lines[str(task)] = (*_other_settings(str(task), odd), *_superseded(str(task), older))
        whole = _joined(kept)
        found.append(Arena(str(protocol), int(version), str(machine), whole, lines))
    return found


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts).sort_values(["task", "method_name", "seed"], kind="stable").reset_index(drop=True)


def _most(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells under the settings that most have, the newest of equals; and the others."""
    numbers = cells.groupby(SETTINGS, dropna=False).ngroup()
    sizes = numbers.value_counts()
    newest = cells.groupby(numbers)["finished"].max()
    winner = max(sizes.index, key=lambda number: (sizes[number], newest[number]))
    return cells[numbers == winner], cells[numbers != winner]


def _newest(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells of the configuration that each method was recorded with last; and the others."""
    numbers = cells.groupby(CONFIGURATION, dropna=False).ngroup()
    last = cells.assign(number=numbers).sort_values("finished", kind="stable").groupby("method_name")["number"].last()
    counts = numbers == cells["method_name"].map(last)
    return cells[counts], cells[~counts]


def _other_settings(task: str, cells: pd.DataFrame) -> Iterator[str]:
    for name, rows in cells.groupby("method_name", sort=True):
        yield f"{name} on {task}: {_count(rows)} under other settings than most (task version, protocol hash, weights)"


def _superseded(task: str, cells: pd.DataFrame) -> Iterator[str]:
    for name, rows in cells.groupby("method_name", sort=True):
        yield f"{name} on {task}: {_count(rows)} of an earlier configuration or version of the method"


def _count(rows: pd.DataFrame) -> str:
    return "1 record" if len(rows) == 1 else f"{len(rows)} records"
