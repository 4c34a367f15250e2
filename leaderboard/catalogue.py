"""What the cards say of everything that occurs in the records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ..bench.registry import ROOT, registry
from ..bench.tables import PERCENT
from . import board

Metrics = Mapping[str, tuple[str, bool]]  # task -> its metric in the records, whether higher is better


def methods(ids: Iterable[str]) -> dict[str, board.Method]:
    """Cards of methods; those that are not known here have an id and nothing else."""
    return {method: _method(method) for method in sorted(set(ids))}


def tasks(metrics: Metrics) -> dict[str, board.Task]:
    """Cards of tasks; the metric is the records' own."""
    return {task: _task(task, *metrics[task]) for task in sorted(metrics)}


def protocols(versions: Iterable[tuple[str, int]]) -> dict[str, board.Protocol]:
    """By "id@version"; of versions that are not this checkout's, the number alone."""
    return {f"{protocol}@{version}": _protocol(protocol, version) for protocol, version in sorted(set(versions))}


def backbones(ids: Iterable[str]) -> dict[str, board.Backbone]:
    """Cards of backbones; those that are not known here have an id and nothing else."""
    return {backbone: _backbone(backbone) for backbone in sorted(set(ids) - {""})}


def _method(method: str) -> board.Method:
    known = registry("methods")
    if method not in known:
        return board.Method(
            id=method,
            title=method,
            version=None,
            category="unknown",
            families=(),
            compute="unknown",
            summary="",
            paper=None,
            checks=(),
            recipe=None,
        )
    card, file = known.card(method), known.entry(method).file
    return board.Method(
        id=card.id,
        title=card.name,
        version=card.version,
        category=card.category,
        families=card.families,
        compute=card.compute,
        summary=card.summary,
        paper={key: value for key, value in dataclasses.asdict(card.paper).items() if value is not None},
        checks=tuple({str(key): str(value) for key, value in check.items()} for check in card.checks),
        recipe=file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else None,
    )


def _task(task: str, metric: str, higher: bool) -> board.Task:
    known = registry("tasks")
    shared: dict[str, Any] = {
        "id": task,
        "metric": metric,
        "higher_is_better": higher,
        "unit": "%" if metric in PERCENT else "",
    }
    if task not in known:
        empty: dict[str, Any] = {"family": "unknown", "group": None, "licence": "", "citation": "", "description": ""}
        return board.Task(**shared, **empty, title=task, version=None, sizes={})
    card = known.card(task)
    names = ("version", "family", "group", "licence", "citation", "description")
    facts = {name: getattr(card, name) for name in names}
    return board.Task(**shared, **facts, title=card.name, sizes=dict(card.sizes))


def _protocol(protocol: str, version: int) -> board.Protocol:
    known = registry("protocols")
    if protocol not in known or known.card(protocol).version != version:
        return board.Protocol(id=protocol, version=version, title="", description="", backbones={}, settings={})
    card = known.card(protocol)
    return board.Protocol(
        id=protocol,
        version=version,
        title=card.title,
        description=card.description,
        backbones={family: settings.backbone for family, settings in card.families.items()},
        settings=card.model_dump(mode="json", include={"families", "optimizer", "dtype", "threads", "tuning"}),
    )


def _backbone(backbone: str) -> board.Backbone:
    known = registry("backbones")
    if backbone not in known:
        return board.Backbone(id=backbone, title=backbone, parameters=None, licence="")
    card = known.card(backbone)
    return board.Backbone(id=card.id, title=card.name, parameters=card.parameters, licence=card.licence)
