"""Tables that others published: a CSV as printed, and a YAML beside it that says where it is from.

They stand beside our results and are ranked with nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bench.cards import read_yaml
from .. import board

NOT_A_TASK = ("method", "mean", "params.", "ppt")


def tables() -> tuple[board.Published, ...]:
    """Every published table, in the order of their ids."""
    return tuple(_table(file, read_yaml(file)) for file in sorted(Path(__file__).parent.glob("*.yaml")))


def _table(file: Path, about: Mapping[str, Any]) -> board.Published:
    with file.with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    tasks = tuple(name for name in rows[0] if name not in NOT_A_TASK)
    methods = about["methods"]
    facts = {key: about[key] for key in about if key != "methods"}
    return board.Published(
        **facts, tasks=tasks, rows=tuple(_row(row, tasks, methods.get(row["method"])) for row in rows)
    )


def _row(row: Mapping[str, str], tasks: tuple[str, ...], method: str | None) -> board.PublishedRow:
    return board.PublishedRow(
        label=row["method"],
        method=method,
        values={task: float(row[task]) for task in tasks},
        mean=float(row["mean"]),
        parameters=row["params."],
        ppt=None if row["ppt"] == "-" else float(row["ppt"]),
    )
