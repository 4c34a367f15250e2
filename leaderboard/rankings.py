"""Rankings of a suite: each compute class and each budget apart, with quality against cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..bench.ranking import Ranking as Ranked
from ..bench.ranking import rank_suite
from ..bench.statistics import DifferentItems
from ..bench.tables import PERCENT
from ..bench.tradeoff import method_costs, pareto
from . import board
from .entries import Evidence

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
COMPUTE = ("equal-steps", "own-budget", "training-free", "unknown")  # in the order of pages
MIB = 2**20


def rankings(
    rows: pd.DataFrame,
    tasks: Sequence[str],
    contenders: Sequence[board.Contender],
    costs: Sequence[board.Cost],
    evidence: Evidence,
) -> tuple[board.Ranking, ...]:
    """The rankings of one suite in one arena: names without a budget first, then budgets from small to large."""
    groups: dict[tuple[int, str, str], list[board.Contender]] = {}
    for contender in contenders:
        place = COMPUTE.index(contender.compute if contender.compute in COMPUTE else "unknown")
        groups.setdefault((place, contender.budget or "", contender.compute), []).append(contender)
    found = []
    for (_, budget, compute), members in sorted(groups.items(), key=lambda item: item[0]):
        ranking = _ranking(rows, tasks, members, costs, evidence)
        if ranking is not None:
            found.append(ranking.model_copy(update={"compute": compute, "budget": budget or None}))
    return tuple(found)


def _ranking(
    rows: pd.DataFrame,
    tasks: Sequence[str],
    members: Sequence[board.Contender],
    costs: Sequence[board.Cost],
    evidence: Evidence,
) -> board.Ranking | None:
    names = [member.name for member in members]
    frame = _in_units(rows[rows["method_name"].isin(names) & rows["task"].isin(list(tasks))])
    scored = set(frame[frame["status"] == "ok"]["task"])
    ranked = [task for task in tasks if task in scored]
    if not ranked:
        return None
    try:
        found = rank_suite(frame, evidence.items, ranked)
    except DifferentItems as error:  # as from a forged record
        log.warning("no ranking on %s: %s", ", ".join(ranked), error)
        return None
    standings = tuple(_standing(str(name), row) for name, row in found.methods.iterrows())
    return board.Ranking(
        compute="",
        budget=None,
        tasks=tuple(ranked),
        lacking=tuple(task for task in tasks if task not in scored),
        standings=standings,
        pairs=tuple(_pairs(found)),
        tradeoffs=tuple(_tradeoffs(found, frame, ranked, members, costs, standings)),
        notes=found.notes,
        detectable=None if found.detectable is None else board.Detectable(**asdict(found.detectable)),
    )


def _in_units(frame: pd.DataFrame) -> pd.DataFrame:
    """Values as tables print them: percent for shares."""
    percent = frame["metric"].isin(PERCENT)
    return frame.assign(value=frame["value"].where(~percent, 100 * frame["value"]))


def _standing(name: str, row: Mapping[str, Any]) -> board.Standing:
    titles = [title for title in row.keys() if f"{title} half_width" in row]  # noqa: SIM118
    return board.Standing(
        name=name,
        rank=None if _unknown(row["rank"]) else int(row["rank"]),
        means={title: _interval(row[title], row[f"{title} half_width"]) for title in titles},
        mean_rank=_number(row["mean_rank"]),
        win_rate=_number(row["win_rate"]),
        quality=_number(row["quality"]),
        seeds=row["seeds"],
        imputed=tuple(row["imputed"]),
        failed=row["failed"],
    )


def _pairs(found: Ranked) -> Iterator[board.Pair]:
    for row in found.pairs.itertuples():
        yield board.Pair(
            a=row.a, b=row.b, mean=row.mean, half_width=_number(row.half_width), p_holm=_number(row.p_holm)
        )


def _tradeoffs(
    found: Ranked,
    frame: pd.DataFrame,
    tasks: Sequence[str],
    members: Sequence[board.Contender],
    costs: Sequence[board.Cost],
    standings: Sequence[board.Standing],
) -> Iterator[board.Tradeoff]:
    """One for each cost that a ranked method has; of times, those of the machine that has most."""
    means = {standing.name: standing.means.get("mean") for standing in standings}
    complete = {standing.name for standing in standings if not standing.imputed}
    machine = _usual_machine(members, costs)
    for cost in board.COSTS:
        where = machine if cost == "seconds_step" else None
        values = _cost_column(cost, members, costs, where)
        places = zip(frame["method_name"], frame["task"], strict=True)
        column = frame.assign(cost=[values.get(place, math.nan) for place in places])
        table = pareto(found, method_costs(column, tasks, "cost"))
        table = table[[name in complete for name in table.index]]
        if len(table):
            points = tuple(_point(str(name), row, means[str(name)]) for name, row in table.iterrows())
            shown = {point.name for point in points}
            lacking = tuple(s.name for s in standings if s.rank is not None and s.name not in shown)
            yield board.Tradeoff(cost=cost, machine=where, points=points, lacking=lacking)


def _usual_machine(members: Sequence[board.Contender], costs: Sequence[board.Cost]) -> str | None:
    """The class of machine that measured most of the members' profiles."""
    machines = [costs[e.cost].machine for member in members for e in member.entries if e.cost is not None]
    return max(sorted(set(machines)), key=machines.count, default=None)


def _cost_column(
    cost: str, members: Sequence[board.Contender], costs: Sequence[board.Cost], machine: str | None
) -> dict[tuple[str, str], float]:
    """(method's name, task) -> the cost; those not known are left out."""
    found: dict[tuple[str, str], float] = {}
    for member in members:
        for entry in member.entries:
            profile = None if entry.cost is None else costs[entry.cost]
            value = entry.trainable if cost == "trainable" else _of_profile(cost, profile, machine)
            if value is not None:
                found[member.name, entry.task] = float(value)
    return found


def _of_profile(cost: str, profile: board.Cost | None, machine: str | None) -> float | None:
    if profile is None:
        return None
    if cost == "ledger_peak":
        return None if profile.ledger_peak is None else profile.ledger_peak / MIB
    step = profile.timing("train step", profile.batch)
    return None if step is None or profile.machine != machine else 1000 * step.median


def _point(name: str, row: Mapping[str, Any], mean: board.Interval | None) -> board.TradeoffPoint:
    return board.TradeoffPoint(
        name=name,
        cost=float(row["cost"]),
        quality=float(row["quality"]) if mean is None else mean.mean,
        half_width=None if mean is None else mean.half_width,
        on_front=bool(row["on_front"]),
        clearly_off=bool(row["clearly_off"]),
    )


def _interval(mean: float, half_width: float) -> board.Interval | None:
    return None if _unknown(mean) else board.Interval(mean=float(mean), half_width=_number(half_width))


def _number(value: Any) -> float | None:
    return None if _unknown(value) else float(value)


def _unknown(value: Any) -> bool:
    import pandas as pd

    return value is None or bool(pd.isna(value))
