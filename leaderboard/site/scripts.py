"""What the scripts of the site read: a script for each suite, `data/<suite>.js`, which holds one JSON object.

It has what plots and comparisons show and no more, since every byte counts: texts are as people read them, numbers have
six digits, a contender's entries name their settings and costs by place, and pairs are in the order of
the standings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import wording
from ..board import COSTS, Board, Contender, Entry, Pair, Ranking, Suite, Tuning
from ..escaping import one_line
from ..pictures import tunings_of
from ..plots.ranks import by_mean_rank, together
from ..plots.style import GROUPS, group_of
from .links import method_page, suite_data

FACTS = (  # in the order of `_facts`
    "backbone",
    "trainable parameters",
    "shipped file",
    "memory of a step (ledger)",
    "peak of the process",
    "training step",
    "latency, batch 1",
    "records by",
)


def files(board: Board) -> dict[str, bytes]:
    """Path in the site -> content."""
    return {suite_data(suite): _script(suite.id, _suite(board, suite)) for suite in board.suites}


def _script(name: str, content: Mapping[str, Any]) -> bytes:
    """ASCII: no character that a browser could take for the end of a line or of the script."""
    text = json.dumps(_readable(content), separators=(",", ":"), allow_nan=False)
    return f"atlas.suites[{json.dumps(name)}]={text};\n".replace("<", "\\u003c").encode("ascii")


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else _rounded(value, 6)
    if isinstance(value, Mapping):
        return {one_line(str(key)): _readable(inner) for key, inner in value.items()}
    return [_readable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _suite(board: Board, suite: Suite) -> dict[str, Any]:
    return {
        "id": suite.id,
        "name": suite.name,
        "where": wording.machine_line(suite),
        "facts": FACTS,
        "tasks": [_task(board, task) for task in suite.tasks],
        "contenders": [_contender(board, member) for member in suite.contenders],
        "rankings": [_ranking(board, ranking) for ranking in suite.rankings],
        "tuning": [_tuning(one) for one in tunings_of(board, suite)],
    }


def _task(board: Board, task: str) -> dict[str, Any]:
    about = board.tasks[task]
    return {"id": task, "metric": about.metric.replace("_", " "), "unit": about.unit, "higher": about.higher_is_better}


def _contender(board: Board, member: Contender) -> dict[str, Any]:
    method, group = board.methods[member.method], group_of(board, member.method)
    kinds = list(map(json.loads, dict.fromkeys(json.dumps(_kind(board, entry)) for entry in member.entries)))
    return {
        "name": member.name,
        "title": method.title,
        "group": group,
        "look": GROUPS.index(group) if group in GROUPS else len(GROUPS) - 1,
        "page": method_page(method.id),
        "facts": {"method": method.title, "category": method.category, "compute class": member.compute,
                  "budget": member.budget or "own settings", "mechanism": method.summary},
        "kinds": kinds,
        "entries": [{**_entry(board, e), "kind": kinds.index(_kind(board, e))} for e in member.entries],
    }  # fmt: skip


def _kind(board: Board, entry: Entry) -> dict[str, Any]:
    """What most entries of a contender have alike."""
    settings = {setting.name: str(setting.value) for setting in entry.settings}
    return {"facts": _facts(board, entry), "settings": settings}


def _facts(board: Board, entry: Entry) -> list[str]:
    cost = None if entry.cost is None else board.costs[entry.cost]
    step = None if cost is None else cost.timing("train step", cost.batch)
    latency = None if cost is None else cost.timing("inference", 1, False)
    return [
        entry.backbone,
        wording.count(entry.trainable),
        wording.size(entry.shipped_bytes),
        wording.size(None if cost is None else cost.ledger_peak),
        wording.size(None if cost is None else cost.train_peak_rss),
        wording.milliseconds(step),
        wording.milliseconds(latency),
        wording.mark(entry.scores),
    ]


def _entry(board: Board, entry: Entry) -> dict[str, Any]:
    curves = {tuple(score.curve) for score in entry.scores if score.curve}
    return {
        "text": wording.entry(entry, board.tasks_metric(entry.task)),
        "mean": None if entry.interval is None else entry.interval.mean,
        "half": None if entry.interval is None else entry.interval.half_width,
        "drift": wording.number(entry.drift, 3),
        "seeds": [score.value for score in entry.scores if score.value is not None],
        "loss": _mean_curve(list(curves)),
        "steps": max((score.steps for score in entry.scores), default=0),
    }


def _mean_curve(curves: Sequence[tuple[float, ...]]) -> list[float | None]:
    """Over seeds, of the curves that are as long as the longest."""
    longest = max((len(curve) for curve in curves), default=0)
    same = [curve for curve in sorted(curves) if len(curve) == longest]
    finite = bool(same) and bool(np.isfinite(same).all())
    return [_rounded(loss, 3) for loss in np.mean(same, axis=0).tolist()] if finite else []


def _ranking(board: Board, ranking: Ranking) -> dict[str, Any]:
    order = by_mean_rank(ranking)
    return {
        "title": wording.ranking_title(ranking),
        "compute": ranking.compute,
        "budget": ranking.budget,
        "tasks": len(ranking.tasks),
        "higher": board.tasks[ranking.tasks[0]].higher_is_better or not any(s.means for s in ranking.standings),
        "unit": board.tasks[ranking.tasks[0]].unit,
        "standings": [
            {
                "name": standing.name,
                "rank": wording.rank(standing, ranking),
                "mean": wording.interval(standing.means.get("mean"), board.tasks[ranking.tasks[0]].metric),
                "place": standing.mean_rank,
                "wins": wording.number(standing.win_rate),
            }
            for standing in ranking.standings
        ],
        "order": [standing.name for standing in order],
        "bars": together([standing.name for standing in order], ranking.pairs),
        "pairs": _pairs(ranking),
        "tradeoffs": [
            {
                "cost": trade.cost,
                "title": ", ".join(filter(None, COSTS[trade.cost])),
                "machine": trade.machine,
                "points": [[p.name, p.cost, p.quality, p.half_width, p.on_front] for p in trade.points],
            }
            for trade in ranking.tradeoffs
        ],
    }


def _pairs(ranking: Ranking) -> list[list[Any]]:
    """For each standing, against each of those after it: mean of the later minus the earlier, half-width, p; or 0."""
    names = [standing.name for standing in ranking.standings]
    known = {(pair.a, pair.b): (pair.mean, pair) for pair in ranking.pairs}
    known |= {(pair.b, pair.a): (-pair.mean, pair) for pair in ranking.pairs}
    return [[_pair(known.get((a, b))) for b in names[place + 1 :]] for place, a in enumerate(names)]


def _pair(found: tuple[float, Pair] | None) -> Any:
    if found is None:
        return 0
    mean, pair = found
    return [_rounded(mean, 4), _rounded(pair.half_width, 3), _rounded(pair.p_holm, 3)]


def _tuning(found: Tuning) -> dict[str, Any]:
    """`axis`: the hyper-parameter that is a number and varies most; the others are in the trials' texts."""
    varied = {name: {trial.values.get(name) for trial in found.trials if _number(trial.values.get(name))}
              for trial in found.trials for name in trial.values}  # fmt: skip
    axis = max(sorted(varied), key=lambda name: len(varied[name]), default=None)
    return {
        "name": found.name,
        "task": found.task,
        "axis": axis,
        "trials": [
            [
                trial.values.get(axis) if axis and _number(trial.values.get(axis)) else None,
                trial.score,
                trial.chosen,
                ", ".join(f"{name}={value}" for name, value in trial.values.items()),
                trial.status,
            ]
            for trial in found.trials
        ],
    }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
