"""From a results folder to the board.

board = build(Path("results"))
text = to_json(board)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench.registry import registry
from . import catalogue, published, today
from .board import Board, Cost, Suite
from .contributions import marks
from .costs import costs_of, profiles
from .entries import Evidence, Marks, contenders
from .escaping import slug
from .rankings import rankings
from .releases import releases
from .selection import Arena, arenas, read
from .tuning import tunings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _SuiteName:
    """A suite as its protocol names it; `id` is not unique among arenas."""

    name: str
    tasks: tuple[str, ...]


def build(results: Path, evidence: Evidence | None = None) -> Board:
    """The board of a results folder. A folder that is empty or absent gives a board without suites.

    Records that cannot be read, or vanish meanwhile, are named in a warning and left out, see `bench.index`.
    `evidence` of the folder keeps those that were read.
    """
    from .. import __version__

    rows, trials = read(results)
    evidence = Evidence(results) if evidence is None else evidence
    rows = evidence.readable(rows)
    costs, keys = profiles(results)
    vouched, parts = marks(results), arenas(rows)
    suites = [suite for arena in parts for suite in _suites(arena, evidence, vouched, costs, keys)]
    known = [entry for suite in suites for contender in suite.contenders for entry in contender.entries]
    ok = rows[rows["status"] == "ok"].drop_duplicates("task")
    metrics = dict(zip(ok["task"], zip(ok["metric"], ok["higher_is_better"].astype(bool), strict=True), strict=True))
    metrics |= {task: _metric(task) for suite in suites for task in suite.tasks if task not in metrics}
    return Board(
        version=__version__,
        digest=_digest(rows),
        records=len(rows),
        suites=tuple(_named(suites)),
        methods=catalogue.methods([*rows["method"].unique(), *(cost.method for cost in costs)]),
        tasks=catalogue.tasks(metrics),
        protocols=catalogue.protocols((arena.protocol, arena.version) for arena in parts),
        backbones=catalogue.backbones([*(entry.backbone for entry in known), *(cost.backbone for cost in costs)]),
        costs=tuple(costs),
        tuning=tunings(trials),
        published=published.tables(),
        releases=releases(results),
    )


def to_json(board: Board, indent: int | None = 1) -> str:
    """Strict JSON; the same records give the same text."""
    content = board.model_dump(mode="json")
    separators = None if indent else (",", ":")
    return json.dumps(content, indent=indent, separators=separators, allow_nan=False, ensure_ascii=False) + "\n"


def _suites(
    arena: Arena, evidence: Evidence, vouched: Marks, costs: Sequence[Cost], keys: Sequence[str]
) -> Iterator[Suite]:
    names, seeds = sorted(arena.rows["method_name"].unique()), sorted({int(seed) for seed in arena.rows["seed"]})
    wanted = list(_suite_names(arena))
    every = sorted({task for suite in wanted for task in suite.tasks})
    answers = today.ask(arena.protocol, arena.version, names, every, seeds)
    places = costs_of(arena, costs, keys)
    for suite in wanted:
        members = contenders(arena.rows, suite.tasks, evidence, answers, vouched, places)
        yield Suite(
            id=slug(suite.name),
            name=suite.name,
            protocol=arena.protocol,
            protocol_version=arena.version,
            machine=arena.machine,
            tasks=suite.tasks,
            contenders=members,
            rankings=rankings(arena.rows, suite.tasks, members, costs, evidence),
            set_aside=tuple(line for task in suite.tasks for line in arena.set_aside.get(task, ())),
        )


def _suite_names(arena: Arena) -> Iterator[_SuiteName]:
    """The protocol's suites that have a record here, then each task that none of them holds.

    Of a protocol that is not known here, or is another version now, all tasks are one suite.
    """
    present = [str(task) for task in arena.rows["task"].unique()]
    protocols = registry("protocols")
    if arena.protocol not in protocols or protocols.card(arena.protocol).version != arena.version:
        yield _SuiteName(f"{arena.protocol} v{arena.version}", tuple(present))
        return
    suites = protocols.card(arena.protocol).suites.values()
    yield from (_SuiteName(suite.name, suite.tasks) for suite in suites if set(suite.tasks) & set(present))
    held = {task for suite in suites for task in suite.tasks}
    yield from (_SuiteName(task, (task,)) for task in present if task not in held)


def _named(suites: Sequence[Suite]) -> list[Suite]:
    """With unique ids: of arenas that share a suite's name, the one with most scores keeps the plain one."""
    by_id: dict[str, list[Suite]] = {}
    for suite in suites:
        by_id.setdefault(suite.id, []).append(suite)
    first = {name: max(found, key=_scores) for name, found in by_id.items()}
    return [suite if suite is first[suite.id] else suite.model_copy(update={"id": _longer(suite)}) for suite in suites]


def _longer(suite: Suite) -> str:
    arena = f"{suite.protocol}@{suite.protocol_version}, {suite.machine}"
    return f"{suite.id}-{hashlib.sha256(arena.encode()).hexdigest()[:8]}"


def _scores(suite: Suite) -> int:
    return sum(len(entry.scores) for contender in suite.contenders for entry in contender.entries)


def _metric(task: str) -> tuple[str, bool]:
    """Of a task without any score."""
    tasks = registry("tasks")
    return (tasks.card(task).metric, tasks.card(task).higher_is_better) if task in tasks else ("unknown", True)


def _digest(rows: pd.DataFrame) -> str:
    facts = rows[["path", "key", "status", "value", "predictions", "finished"]].sort_values("path")
    return hashlib.sha256(facts.to_json(orient="values").encode()).hexdigest()[:16]
