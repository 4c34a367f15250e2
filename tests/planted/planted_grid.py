"""Cells without a model behind them."""

from __future__ import annotations

from typing import Any

from peft_atlas.bench.records import (
    BackboneIdentity,
    Cell,
    Environment,
    MethodIdentity,
    ProtocolIdentity,
    TaskIdentity,
)


def cell(task: str, seed: int = 0, **changes: Any) -> Cell:
    """A cell of a method `planted` on a task of this name."""
    facts = {
        "protocol": ProtocolIdentity(id="planted", version=1, hash="0" * 16),
        "method": MethodIdentity(id="planted", name="planted", version=1, config={"lr": 0.1}),
        "task": TaskIdentity(id=task, version=1),
        "backbone": BackboneIdentity(id="none", weights="f" * 16),
        "seed": seed,
    }
    return Cell(**{**facts, **changes})


def environment() -> Environment:
    return Environment(
        commit=None,
        dirty=None,
        versions={"python": "3"},
        platform="Linux",
        cpu="some",
        cores=2,
        threads=1,
        jobs=2,
        device="cpu",
    )
