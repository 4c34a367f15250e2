"""Cost profiles on the board, and which of them belongs to which cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bench import profiling
from ..bench.costs import CostProfile
from ..bench.environment import machine_class
from ..bench.errors import UsageError
from ..bench.plan import settings_hash
from ..bench.records import BackboneIdentity, Cell, MethodIdentity, ProtocolIdentity, TaskIdentity
from ..bench.registry import registry
from . import board
from .selection import Arena

if TYPE_CHECKING:
    from ..bench.protocol import Protocol


def profiles(results: Path) -> tuple[list[board.Cost], list[str]]:
    """The profiles that count, one for each subject and class of machine, and the key of each subject."""
    found = sorted(
        profiling.newest(results),
        key=lambda profile: (profile.subject.method.name, profile.subject.backbone.id, profile.finished),
    )
    return [_cost(profile) for profile in found], [profile.key for profile in found]


def costs_of(arena: Arena, costs: Sequence[board.Cost], keys: Sequence[str]) -> dict[tuple[str, str], int]:
    """Place in `costs` of each (method's name, task) of an arena: of the machine of the arena where there is one.

    Empty where the protocol is not known here or has changed since: its inputs are part of what was measured.
    """
    protocols = registry("protocols")
    if arena.protocol not in protocols or protocols.card(arena.protocol).version != arena.version or not keys:
        return {}
    by_key: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        by_key.setdefault(key, []).append(place)
    found = {}
    for row in arena.rows.drop_duplicates(["method_name", "task"]).to_dict("records"):
        places = by_key.get(_key(protocols.card(arena.protocol), row) or "", [])
        if places:
            here = [place for place in places if costs[place].cpu in arena.machine]
            found[row["method_name"], row["task"]] = (here or places)[0]
    return found


def _key(protocol: Protocol, row: Mapping[str, Any]) -> str | None:
    """The key of the profile that serves a row's cell; None where the task is not known here, or the protocol has
    other settings by now."""
    identity = {"id": row["method"], "name": row["method_name"], "version": row["method_version"]}
    cell = Cell(
        protocol=ProtocolIdentity(id=protocol.id, version=protocol.version, hash=row["protocol_hash"]),
        method=MethodIdentity(**identity, config=json.loads(row["config"])),
        task=TaskIdentity(id=row["task"], version=row["task_version"]),
        backbone=BackboneIdentity(id=row["backbone"], weights=row["weights"]),
        seed=row["seed"],
    )
    try:
        same = settings_hash(protocol, registry("tasks").card(cell.task.id), False) == cell.protocol.hash
        return profiling.subjects(protocol, [cell])[0].key if same else None
    except UsageError:
        return None


def _cost(profile: CostProfile) -> board.Cost:
    subject, figures = profile.subject, profiling.row(profile)
    ledger = profile.training[0].model_dump(exclude={"form", "peak"}) if profile.training else None
    return board.Cost(
        name=subject.method.name,
        method=subject.method.id,
        backbone=subject.backbone.id,
        family=subject.family,
        batch=subject.batch,
        inputs=subject.inputs,
        machine=machine_class(profile.environment),
        device=profile.environment.device,
        cpu=profile.environment.cpu,
        status=profile.status,
        reason=profile.error.message.splitlines()[0] if profile.error and profile.error.message else None,
        ledger=ledger,
        ledger_peak=figures["ledger_peak"],
        train_peak_rss=figures["train_peak_rss"],
        inference_peak_rss=figures["inference_peak_rss"],
        train_operations=figures["train_operations"],
        inference_operations=figures["inference_operations"],
        timings=tuple(
            board.Timing(**timing.model_dump(include=set(board.Timing.model_fields))) for timing in profile.timings
        ),
        adapter_file_bytes=figures["adapter_file_bytes"],
        busy=profile.busy,
        record=subject.folder.as_posix(),
    )
