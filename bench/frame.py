"""Records as tidy rows for pandas."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from .records import Record

COLUMNS = [
    *("protocol", "protocol_version", "group", "task", "task_version", "method", "method_name", "config", "backbone"),
    *("seed", "selection", "steps", "status", "phase", "error", "metric", "value", "higher_is_better"),
    *("nll", "ece", "drift", "drift_measure"),
    *("backbone_parameters", "adapter_parameters", "head_parameters", "trainable_parameters", "shipped_bytes"),
    *("seconds_load", "seconds_data", "seconds_attach", "seconds_fit", "seconds_evaluate", "seconds_total"),
    *("seconds_step", "peak_rss_bytes", "matches_card", "commit", "finished", "key", "attempt", "path"),
]


def row(record: Record, path: PurePath) -> dict[str, Any]:
    """One tidy row of a record; `config` is JSON, `seconds_step` the median."""
    cell, counts, times = record.cell, record.parameters, record.times
    return {
        "protocol": cell.protocol.id,
        "protocol_version": cell.protocol.version,
        "group": group_of(cell.task.id),
        "task": cell.task.id,
        "task_version": cell.task.version,
        "method": cell.method.id,
        "method_name": cell.method.name,
        "config": json.dumps(cell.method.config, sort_keys=True),
        "backbone": cell.backbone.id,
        "seed": cell.seed,
        "selection": cell.selection,
        "steps": cell.steps,
        "status": record.status,
        "phase": record.phase,
        "error": record.error.message if record.error else None,
        "metric": record.primary.name if record.primary else None,
        "value": record.primary.value if record.primary else None,
        "higher_is_better": record.primary.higher_is_better if record.primary else None,
        "nll": record.metrics.get("nll"),
        "ece": record.metrics.get("ece"),
        "drift": record.drift.value if record.drift else None,
        "drift_measure": record.drift.measure if record.drift else None,
        "backbone_parameters": counts.backbone if counts else None,
        "adapter_parameters": counts.adapter if counts else None,
        "head_parameters": counts.head if counts else None,
        "trainable_parameters": counts.total_trainable if counts else None,
        "shipped_bytes": counts.shipped_bytes if counts else None,
        **{f"seconds_{name}": getattr(times, name) for name in ("load", "data", "attach", "fit", "evaluate", "total")},
        "seconds_step": times.step.median if times.step else None,
        "peak_rss_bytes": record.memory.peak_rss_above_baseline_bytes if record.memory else None,
        "matches_card": record.data.matches_card if record.data else None,
        "commit": record.environment.commit,
        "finished": record.finished,
        "key": record.key,
        "attempt": record.attempt,
        "path": path.as_posix(),
    }


def group_of(task_id: str) -> str | None:
    """A task's group (natural, specialized, structured), where the task is known here."""
    from .registry import registry

    tasks = registry("tasks")
    return tasks.card(task_id).group if task_id in tasks else None
