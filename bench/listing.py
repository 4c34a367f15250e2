"""What `bench ls` prints: the cards of one kind as rows, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from ..kernels import catalog
from .registry import registry
from .text_table import Cell, text_table

Noun = Literal["methods", "tasks", "backbones", "protocols", "kernels"]


def listing(noun: Noun, as_json: bool) -> str:
    """The text that `bench ls NOUN [--json]` prints."""
    if as_json:
        return json.dumps(_objects(noun), indent=1, ensure_ascii=False)
    headers, rows = _TABLES[noun]()
    return text_table(headers, rows) if rows else f"no {noun}"


def _methods() -> tuple[list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = [
        [m.id, m.name, m.category, " ".join(m.families), m.version, m.compute, len(m.checks)]
        for m in sorted(registry("methods").cards(library=True), key=lambda card: (card.category, card.id))
    ]
    return ["id", "name", "category", "families", "version", "compute", "checks"], rows


def _tasks() -> tuple[list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = [
        [t.id, t.name, t.family, t.group, t.metric, t.outputs or None, *_sizes(t.sizes), t.version]
        for t in sorted(registry("tasks").cards(), key=lambda card: (card.family, card.group or "", card.id))
    ]
    return ["id", "name", "family", "group", "metric", "classes", "train", "test", "version"], rows


def _sizes(sizes: Mapping[str, int]) -> list[Cell]:
    return [sizes.get("train"), sizes.get("test")]


def _backbones() -> tuple[list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = [
        [b.id, b.name, b.family, b.parameters, b.licence, b.version] for b in registry("backbones").cards()
    ]
    return ["id", "name", "family", "parameters", "licence", "version"], rows


def _protocols() -> tuple[list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = [
        [p.id, p.version, " ".join(s.name for s in p.suites.values()), " ".join(p.families), p.title]
        for p in registry("protocols").cards()
    ]
    return ["id", "version", "suites", "families", "title"], rows


def _kernels() -> tuple[list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = [[name, catalog.summary(name)] for name in catalog.names()]
    return ["id", "summary"], rows


_TABLES = {
    "methods": _methods,
    "tasks": _tasks,
    "backbones": _backbones,
    "protocols": _protocols,
    "kernels": _kernels,
}


def _objects(noun: Noun) -> list[dict[str, Any]]:
    if noun == "kernels":
        headers, rows = _kernels()
        return [dict(zip(headers, row, strict=True)) for row in rows]
    if noun == "protocols":
        return [protocol.model_dump(mode="json") for protocol in registry("protocols").cards()]
    cards: list[Any] = registry(noun).cards(library=True)
    return [dataclasses.asdict(card) for card in cards]
