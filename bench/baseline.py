"""A baseline: what a run left, in one file that can be committed: exact facts, losses, scores and per-item values.

JSON with a line for each cell: the columns of `facts.COLUMNS` (empty ones left out) and `per_item`; and a line for each
method on a backbone: `compare_costs.cost_facts`, counts only. Item names and labels are kept once for each task. Logits
are not kept, only the digest of the stored predictions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import AtlasError, UsageError
from .facts import COLUMNS
from .records import Upgrades, versioned
from .sides import Arrays, Labels, Side

SCHEMA_VERSION = 2
UPGRADES: Upgrades = {1: lambda content: {**content, "costs": []}}  # as in `records`; 1 knew no costs
LEFT_OUT = {"finished", "selection", "attempt", "phase", "error"}  # say nothing of a cell that is ok


def write_baseline(side: Side, protocol: str, file: Path) -> int:
    """Write the cells of one protocol; how many there are. AtlasError, and nothing written, where one is not ok."""
    rows = side.cells[side.cells["protocol"].eq(protocol)].to_dict("records")
    bad = [f"{row['method_name']} x {row['task']}: {row['status']}" for row in rows if row["status"] != "ok"]
    bad += [
        f"costs of {row['method_name']} on {row['backbone']}: {row['status']}"
        for row in side.costs
        if row["status"] != "ok"
    ]
    if bad:
        raise AtlasError(f"{file} is not written, since a cell is not ok: {bad[0]}")
    items: dict[str, list[str]] = {}
    lines = []
    for row in rows:
        arrays = side.arrays(row["path"])
        known = (name for name in COLUMNS if name not in LEFT_OUT and row[name] is not None and row[name] == row[name])
        content = {name: _plain(row[name]) for name in known}
        if arrays is not None:
            names = arrays["items"].tolist()
            if items.setdefault(row["task"], names) != names:
                raise AtlasError(f"{file} is not written: {row['task']} was evaluated on different items")
            content["per_item"] = [_plain(value) for value in arrays["per_item"].tolist()]
        lines.append(_line(content))
    top = {"schema_version": SCHEMA_VERSION, "protocol": protocol, "items": items, "labels": side.labels}
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in top.items())
    file.parent.mkdir(parents=True, exist_ok=True)
    listed = {"cells": lines, "costs": [_line(row) for row in side.costs]}
    body = ",\n".join(f'"{name}": [\n' + ",\n".join(part) + "\n]" for name, part in listed.items())
    file.write_text("{\n" + head + ",\n" + body + "\n}\n", encoding="utf-8")
    return len(lines)


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_baseline(file: Path) -> dict[str, Any]:
    """The file's content, upgraded. UsageError where it is missing, no baseline, or of a newer release."""
    try:
        content = versioned(file.read_text(encoding="utf-8"), SCHEMA_VERSION, UPGRADES)
    except OSError as error:
        raise UsageError(f"baseline {file}: {error.strerror}; `bench check --update` writes one") from None
    except ValueError as error:
        raise UsageError(f"baseline {file}: {error}") from None
    if lacking := [name for name in ("protocol", "items", "labels", "cells", "costs") if name not in content]:
        raise UsageError(f"baseline {file}: it has no {lacking[0]!r}")
    return content


def baseline_side(content: Mapping[str, Any], name: str) -> Side:
    """A baseline as one side of a comparison."""
    import numpy as np
    import pandas as pd

    rows: Sequence[dict[str, Any]] = content["cells"]
    by_path = {row["path"]: row for row in rows}

    def arrays(path: str) -> Arrays | None:
        row = by_path[path]
        if "per_item" not in row:
            return None
        return {
            "items": np.array(content["items"][row["task"]], dtype=np.str_),
            "per_item": np.array(row["per_item"], dtype=np.float64),
        }

    cells = pd.DataFrame([{name: row.get(name) for name in COLUMNS} for row in rows], columns=COLUMNS)
    return Side(name, cells, arrays, content["labels"], content["costs"])


def task_labels(tasks: Iterable[str]) -> Labels:
    """Labels of both splits of the tasks that have some and need neither assets nor sources."""
    from .registry import registry

    known = registry("tasks")
    found: dict[str, dict[str, list[int]]] = {}
    cards = [card for card in map(known.card, tasks) if not (card.assets or card.sources)]
    for task in (known.load(card.id)(card) for card in cards):
        for split in ("train", "test"):
            labels = task.build(split).labels
            if labels is not None:
                found.setdefault(task.card.id, {})[split] = labels.tolist()
    return found


def _plain(value: Any) -> Any:
    """Whole floats as integers, numpy's numbers as Python's."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
