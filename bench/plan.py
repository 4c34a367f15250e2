"""From names to cells: what would run, what has a record, what cannot be.

`design` needs the methods' code (and so torch): the command line calls it in a child, see `api`. `make_plan` compares
its cells with the results folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .errors import UnsupportedError, UsageError
from .names import Name
from .records import FAILED, BackboneIdentity, Cell, MethodIdentity, ProtocolIdentity, Record, TaskIdentity
from .store import Store

if TYPE_CHECKING:
    from ..tasks.contract import Card as TaskCard
    from .protocol import Protocol

Existing = Literal["missing", "failed", "all", "never"]
EXISTING: tuple[Existing, ...] = ("missing", "failed", "all", "never")


@dataclass(frozen=True)
class Design:
    """The grid that was asked for: cells that can be, and those that cannot, with the reason."""

    cells: list[Cell]
    unsupported: list[tuple[Cell, str]]


@dataclass(frozen=True)
class Plan:
    """What a run would do. Every cell asked for is in exactly one of the lists."""

    protocol: Protocol
    methods: list[str]  # canonical names, in the order asked for
    tasks: list[str]
    run: list[Cell]
    cached: list[tuple[Cell, Record]]  # have a record and will not run
    skipped: list[Cell] = field(default_factory=list)  # have no record and will not run (`existing="never"`)
    unsupported: list[tuple[Cell, str]] = field(default_factory=list)

    @property
    def cells(self) -> list[Cell]:
        """All cells that can be."""
        return [*self.run, *(cell for cell, _ in self.cached), *self.skipped]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "protocol": {"id": self.protocol.id, "version": self.protocol.version},
            "methods": self.methods,
            "tasks": self.tasks,
            "run": [_brief(cell) for cell in self.run],
            "cached": [{**_brief(cell), "status": record.status} for cell, record in self.cached],
            "skipped": [_brief(cell) for cell in self.skipped],
            "unsupported": [{**_brief(cell), "reason": reason} for cell, reason in self.unsupported],
        }


def _brief(cell: Cell) -> dict[str, Any]:
    return {"method": cell.method.name, "task": cell.task.id, "seed": cell.seed, "key": cell.key}


def make_plan(
    protocol: Protocol, methods: Sequence[Name], tasks: Sequence[str], design: Design, store: Store, existing: Existing
) -> Plan:
    """Sort a design's cells by what the results folder holds.

    `existing`: "missing" runs cells without a record (a cancelled one counts as none), "failed" (the default of the
    command) those that failed too, "all" every cell again, "never" none.
    """
    if existing not in EXISTING:
        raise UsageError(f"existing must be one of {', '.join(EXISTING)}, not {existing!r}")
    run: list[Cell] = []
    skipped: list[Cell] = []
    cached: list[tuple[Cell, Record]] = []
    for cell in design.cells:
        record = store.current(cell)
        missing = record is None or record.status == "cancelled"
        if existing == "all" or (existing != "never" and (missing or (existing == "failed" and _failed(record)))):
            run.append(cell)
        elif record is None or missing:
            skipped.append(cell)
        else:
            cached.append((cell, record))
    names = list(dict.fromkeys(str(name) for name in methods))
    return Plan(protocol, names, list(tasks), run, cached, skipped, design.unsupported)


def _failed(record: Record | None) -> bool:
    return record is not None and record.status in FAILED


def design(protocol_id: str, methods: Sequence[Name], tasks: Sequence[str], seeds: Sequence[int]) -> Design:
    """Resolve methods x tasks x seeds to cells. Names that resolve to the same cell give one.

    Raises UsageError for a wrong argument or recipe.
    """
    from .protocol import load_protocol
    from .registry import registry
    from .support import unsupported_reason

    protocol = load_protocol(protocol_id)
    cells: dict[str, Cell] = {}
    unsupported: list[tuple[Cell, str]] = []
    for task_id in tasks:
        task = registry("tasks").card(task_id)
        backbone = registry("backbones").card(protocol.family(task).backbone)
        for name in methods:
            method_class, config, reason = _configured(name, task.family, backbone.id, task_id)
            first = make_cell(protocol, name, config, task_id, seeds[0])
            reason = reason or unsupported_reason(method_class, config, backbone, task)
            for seed in seeds:
                cell = first.model_copy(update={"seed": seed})
                if reason is not None:
                    unsupported.append((cell, reason))
                else:
                    cells.setdefault(cell.key, cell)
    return Design(list(cells.values()), unsupported)


def _configured(name: Name, family: str, backbone: str, task: str) -> tuple[Any, Any, str | None]:
    """A method's class and its config in one cell; where it cannot meet its budget, the config without, and why."""
    from .recipes import configure, resolve, without_budget
    from .registry import registry

    reason = None
    try:
        resolved = resolve(name.id, name.arguments, family, backbone, task)
    except UnsupportedError as error:
        reason = str(error)
        resolved = resolve(name.id, without_budget(name.arguments), family, backbone, task)
    return registry("methods").load(name.id), configure(name.id, resolved), reason


def make_cell(
    protocol: Protocol,
    name: Name,
    config: Any,
    task_id: str,
    seed: int,
    *,
    selection: bool = False,
    steps: int | None = None,
) -> Cell:
    """The cell of a configured method on a task."""
    from .registry import registry

    task = registry("tasks").card(task_id)
    backbone = registry("backbones").card(protocol.family(task).backbone)
    return Cell(
        protocol=ProtocolIdentity(
            id=protocol.id, version=protocol.version, hash=settings_hash(protocol, task, selection)
        ),
        method=MethodIdentity(
            id=name.id,
            name=str(name),
            version=registry("methods").card(name.id).version,
            config=config.identity(),
        ),
        task=TaskIdentity(id=task.id, version=task.version),
        backbone=BackboneIdentity(id=backbone.id, weights=backbone.weights),
        seed=seed,
        selection=selection,
        steps=steps,
    )


def settings_hash(protocol: Protocol, task: TaskCard, selection: bool) -> str:
    """Hash of the settings that shape a cell: an edit elsewhere in the protocol leaves its records valid."""
    content: dict[str, Any] = {
        "family": protocol.family(task).model_dump(mode="json"),
        "optimizer": protocol.optimizer.model_dump(mode="json"),
        "dtype": protocol.dtype,
        "threads": protocol.threads,
    }
    if selection:
        content["selection"] = protocol.tuning.selection
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Seeds without doubles. UsageError for an empty list or anything but whole numbers from 0 to 2**32 - 1."""
    wrong = [seed for seed in seeds if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32]
    if wrong:
        raise UsageError(f"seeds are whole numbers from 0 to 4294967295, not {wrong[0]!r}")
    if not seeds:
        raise UsageError("no seed given")
    return list(dict.fromkeys(seeds))
