"""Plan files: cells as lines of JSON, so that any scheduler can share them out.

`bench plan ... --jsonl > plan.jsonl` writes one. `bench run --plan plan.jsonl --only KEY` is one cell of it, and
`--shard 3/8` the third of eight parts. Each may be repeated, there or elsewhere: what is done is not done again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from .errors import UsageError, did_you_mean
from .plan import settings_hash
from .protocol import load_protocol
from .records import Cell
from .registry import registry


def to_lines(cells: Iterable[Cell]) -> str:
    """One line a cell, with its key."""
    return "".join(
        json.dumps({"key": cell.key, "cell": cell.model_dump(mode="json")}, ensure_ascii=False, allow_nan=False) + "\n"
        for cell in cells
    )


def read_plan(path: Path) -> list[Cell]:
    """The cells of a plan file, without doubles.

    Raises UsageError with the line for one that cannot be read, and where this installation would run another cell
    than the plan means: another version of its method, task or protocol, or other weights.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the plan {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    cells: dict[str, Cell] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                cell = _cell(line)
                check(cell)
            except (ValueError, UsageError) as error:
                raise UsageError(f"{path}:{number}: {error}") from None
            cells.setdefault(cell.key, cell)
    if not cells:
        raise UsageError(f"the plan {path} has no cell")
    if len(protocols := sorted({cell.protocol.id for cell in cells.values()})) > 1:
        raise UsageError(f"the plan {path} has cells of several protocols, {', '.join(protocols)}: one file is for one")
    return list(cells.values())


def _cell(line: str) -> Cell:
    """Raises ValueError."""
    try:
        content = json.loads(line)
        cell = Cell.model_validate(content["cell"])
    except (ValidationError, ValueError, KeyError, TypeError):
        raise ValueError("this is no line of `bench plan --jsonl`") from None
    if content.get("key") != cell.key:
        raise ValueError(f"its key {content.get('key')} is not the key of its cell, {cell.key}")
    return cell


def check(cell: Cell) -> None:
    """Raise UsageError where this installation would run another cell than the one that was planned."""
    protocol, task = load_protocol(cell.protocol.id), registry("tasks").card(cell.task.id)
    protocol.family(task)
    here = {
        "method": (cell.method.version, registry("methods").card(cell.method.id).version),
        "task": (cell.task.version, task.version),
        "weights": (cell.backbone.weights, registry("backbones").card(cell.backbone.id).weights),
        "protocol": (cell.protocol.hash, settings_hash(protocol, task, cell.selection)),
    }
    for what, (planned, found) in here.items():
        if planned != found:
            raise UsageError(f"{cell} was planned with another {what}: {planned}, here it is {found}")


def shard_of(cells: Sequence[Cell], shard: str) -> list[Cell]:
    """The cells of part "i/n", i from 1 to n: every n-th one. UsageError for other words."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard.strip())
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise UsageError(f"a shard is given like 3/8, the third of eight parts, not {shard!r}")
    return list(cells[part - 1 :: parts])


def only(cells: Sequence[Cell], keys: str) -> list[Cell]:
    """The cells with these comma-separated keys. UsageError for a key that no cell has."""
    by_key = {cell.key: cell for cell in cells}
    wanted = [key.strip() for key in keys.split(",")]
    if unknown := [key for key in wanted if key not in by_key]:
        raise UsageError(f"no cell has the key {unknown[0]!r}.{did_you_mean(unknown[0], by_key)}")
    return [by_key[key] for key in dict.fromkeys(wanted)]
