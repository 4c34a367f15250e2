"""What of a record is compared between two runs, as one flat row: a million records compare column by column.

`EXACT` are facts that no machine's rounding can move: they are equal or something changed. Those of cost profiles are
in `compare_costs`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .records import Environment, Record

TRACE = 10  # steps of the loss that are kept in a row; later ones are known by the digest of the whole curve
PLACE = ["protocol", "task", "method_name", "seed"]  # what a person calls "the same cell", whatever its settings are
SETTINGS = {  # what must agree before two cells can be compared at all
    "protocol_version": "protocol version",
    "protocol_hash": "protocol settings",
    "task_version": "task version",
    "backbone": "backbone",
    "weights": "weights of the backbone",
    "steps": "steps",
}
DECLARED = {"method_version": "version of the method", "config": "hyper-parameters"}
EXACT = {
    "backbone_parameters": "backbone parameters",
    "adapter_parameters": "adapter parameters",
    "head_parameters": "head parameters",
    "shipped_bytes": "shipped bytes",
}
COLUMNS = [
    *(*PLACE, *SETTINGS, *DECLARED, *EXACT, "train_data", "test_data", "trained", "losses", "loss_digest"),
    *("status", "phase", "error", "metric", "value", "higher_is_better", "metrics", "predictions", "machine"),
    *("selection", "key", "attempt", "finished", "path"),
]


def facts(record: Record) -> dict[str, Any]:
    """The columns of `COLUMNS` that `frame.row` lacks; `trained`, `metrics` and `losses` are JSON."""
    cell, trained = record.cell, record.parameters.trained if record.parameters else None
    losses = [point.loss for point in record.curve]
    return {
        "protocol_hash": cell.protocol.hash,
        "method_version": cell.method.version,
        "weights": cell.backbone.weights,
        "train_data": record.data.train if record.data else None,
        "test_data": record.data.test if record.data else None,
        "trained": compact({name: [t.tensors, t.parameters] for name, t in trained.items()}) if trained else None,
        "metrics": compact(record.metrics) if record.metrics else None,
        "losses": compact(losses[:TRACE]) if losses else None,
        "loss_digest": digest([compact(losses)]) if losses else None,
        "predictions": record.predictions.sha256 if record.predictions else None,
        "machine": machine(record.environment),
    }


def machine(environment: Environment) -> str:
    """What the rounding of fp32 arithmetic depends on: runs with the same words are compared bit for bit."""
    torch = environment.versions.get("torch", "none")
    return f"{environment.cpu}, {environment.device}, threads {environment.threads}, torch {torch}"


def compact(value: Mapping[str, Any] | Sequence[float]) -> str:
    """Canonical JSON: equal values give equal text, floats included."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(parts: Iterable[str]) -> str:
    """16 hex digits of a SHA-256."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
