"""A results folder for tests of the leaderboard, filled cell by cell without training anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from peft_atlas.bench.environment import environment
from peft_atlas.bench.names import Name
from peft_atlas.bench.plan import design
from peft_atlas.bench.records import Cell, ErrorReport, ParameterCounts, Primary, Record
from peft_atlas.bench.store import Store
from peft_atlas.leaderboard import command
from peft_atlas.leaderboard.board import Board, Entry, Suite
from peft_atlas.leaderboard.data import build

ITEMS = 60
TEXTS = ["md", "csv", "latex", "json", "metafile"]


class Results:
    """Cells of the protocol smoke."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.cells: dict[tuple[str, str, int], Cell] = {}
        self.generator = np.random.default_rng(0)
        self.difficulty = {task: self.generator.normal(0, 0.2, ITEMS) for task in ("smoke-vision", "smoke-text")}

    def cell(self, method: str, task: str, seed: int) -> Cell:
        found = design("smoke", [Name(method)], [task], [seed]).cells
        return found[0]

    def add(self, method: str, task: str, mean: float, seed: int = 0, **other: Any) -> Record:
        """A record whose items scatter around `mean`; `other` are fields of the record, or `name`, `cpu`, `version`."""
        cell = self.cells.setdefault((method, task, seed), self.cell(method, task, seed))
        if "name" in other:
            cell = cell.model_copy(update={"method": cell.method.model_copy(update={"name": other.pop("name")})})
        if "version" in other:
            protocol = cell.protocol.model_copy(update={"version": other.pop("version")})
            cell = cell.model_copy(update={"protocol": protocol})
        if "config" in other:
            config = {**cell.method.config, **other.pop("config")}
            cell = cell.model_copy(update={"method": cell.method.model_copy(update={"config": config})})
        where = environment(1, 1).model_copy(update={"cpu": other.pop("cpu", "one cpu")})
        values = mean + self.difficulty[task] + self.generator.normal(0, 0.02, ITEMS)
        ok = other.get("status", "ok") == "ok"
        record = Record(
            key=cell.key,
            attempt=self.store.next_attempt(cell),
            cell=cell,
            environment=where,
            parameters=ParameterCounts(backbone=100, adapter=10, head=2, total_trainable=12, shipped_bytes=40),
            primary=Primary(name="accuracy", value=float(values.mean()), higher_is_better=True) if ok else None,
            **{"status": "ok", "phase": "done", "started": "2026-01-01", "finished": "2026-01-02", **other},
        )
        items = np.array([f"item-{number}" for number in range(ITEMS)])
        self.store.add(record, {"items": items, "per_item": values} if ok else None)
        return record

    def board(self) -> Board:
        return build(self.store.root)


def filled_results(root: Path) -> Results:
    """Three methods, two tasks, two seeds; one failed cell, one that cannot be."""
    found = Results(root)
    for method, mean in (("lora", 0.8), ("bitfit", 0.7), ("linear", 0.5)):
        for seed in (0, 1):
            for task in ("smoke-vision", "smoke-text"):
                if (method, task, seed) != ("bitfit", "smoke-text", 1):
                    found.add(method, task, mean, seed)
    report = ErrorReport(type="MemoryError", message="can't allocate | 3 GB\nmore", traceback="")
    found.add("bitfit", "smoke-text", 0.0, 1, status="oom", phase="fit", error=report)
    found.add("vpt", "smoke-vision", 0.6, 0)
    return found


def suite(board: Board, name: str = "smoke") -> Suite:
    (found,) = [suite for suite in board.suites if suite.name == name]
    return found


def entry(board: Board, name: str, task: str) -> Entry:
    (found,) = [e for c in suite(board).contenders if c.name == name for e in c.entries if e.task == task]
    return found


def files(results: Results, formats: list[str] = TEXTS) -> dict[str, str]:
    out = results.store.root / "leaderboard"
    return {
        path: data.decode() for path, data in command.made(results.board(), out, results.store.root, formats).items()
    }
