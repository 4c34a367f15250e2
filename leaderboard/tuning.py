"""What `bench tune` tried, from the records of its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..bench.registry import registry
from ..bench.tables import PERCENT
from . import board

if TYPE_CHECKING:
    import pandas as pd

    from ..bench.recipes import MethodCard

CONTEST = ["protocol", "protocol_version", "machine", "method", "method_version", "backbone", "task", "steps"]


def tunings(rows: pd.DataFrame) -> tuple[board.Tuning, ...]:
    """One for each method, backbone and task that has trials, in the order of their names; of a method's versions and
    trial lengths the last."""
    last = rows.sort_values(["finished"], kind="stable").fillna({"steps": -1})
    newest = last.groupby(["protocol", "machine", "method", "backbone", "task"])[["method_version", "steps"]]
    current = last[(last[["method_version", "steps"]] == newest.transform("last")).all(axis=1)]
    found = []
    for key, trials in current.groupby(CONTEST, sort=True):
        place = dict(zip(CONTEST, key, strict=True))
        if len(trials) > 1:
            found.append(_tuning(place, trials))
    return tuple(found)


def _tuning(place: Mapping[str, Any], rows: pd.DataFrame) -> board.Tuning:
    configs = [json.loads(config) for config in rows["config"]]
    names = [name for name in configs[0] if len({json.dumps(config.get(name)) for config in configs}) > 1]
    chosen = _chosen(str(place["method"]), str(place["backbone"]))
    trials = []
    for row, config in zip(rows.to_dict("records"), configs, strict=True):
        values = {name: config.get(name) for name in names}
        score = row["value"] if row["status"] == "ok" else None
        trials.append(
            board.Trial(
                values=values,
                score=100 * score if score is not None and row["metric"] in PERCENT else score,
                status=row["status"],
                record=row["path"],
                chosen=bool(names) and all(chosen.get(name) == value for name, value in values.items()),
            )
        )
    trials.sort(key=lambda trial: tuple((str(type(v)), v) for v in trial.values.values()))
    return board.Tuning(
        name=str(place["method"]),
        method=str(place["method"]),
        protocol=str(place["protocol"]),
        protocol_version=int(place["protocol_version"]),
        machine=str(place["machine"]),
        backbone=str(place["backbone"]),
        task=str(place["task"]),
        trials=tuple(trials),
    )


def _chosen(method: str, backbone: str) -> dict[str, Any]:
    """The values of the recipe's layer for a backbone, which is where `bench tune --write` puts the winners."""
    methods = registry("methods")
    if method not in methods:
        return {}
    card: MethodCard = methods.card(method)
    layer = card.hyperparameters.get("backbone", {}).get(backbone, {})
    return {name: leaf["value"] for name, leaf in layer.items()}
