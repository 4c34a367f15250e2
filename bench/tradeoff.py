"""Quality against cost: the Pareto front of a ranking, and the PPT score of published tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .ranking import SIGNIFICANCE, Ranking

if TYPE_CHECKING:
    import pandas as pd


def method_costs(frame: pd.DataFrame, tasks: Sequence[str], column: str) -> pd.Series:
    """A cost of each method: the mean over tasks of the mean over ok seeds; nan where a task has none."""
    rows = frame[frame["task"].isin(list(tasks)) & (frame["status"] == "ok")]
    by_task = rows.pivot_table(index="method_name", columns="task", values=column, aggfunc="mean")
    return by_task.reindex(columns=list(tasks)).mean(axis=1, skipna=False).rename(column)


def pareto(ranking: Ranking, cost: pd.Series) -> pd.DataFrame:
    """The ranked methods of known cost, cheapest first: `cost`, `quality`, `on_front`, `clearly_off`.

    A method is on the front when no other is at least as good and at least as cheap, and better in one of the two.
    It is clearly off when a method that is no dearer is significantly better: the others may be on the front, as far as
    seeds and items tell.
    """
    import pandas as pd

    quality = ranking.methods["quality"].dropna()
    names = [name for name in quality.index if name in cost.index and not math.isnan(cost[name])]
    q, c = quality[names].to_numpy(dtype=float), cost[names].to_numpy(dtype=float)
    no_worse = (q[None, :] >= q[:, None]) & (c[None, :] <= c[:, None])
    better = (q[None, :] > q[:, None]) | (c[None, :] < c[:, None])
    table = pd.DataFrame({"cost": c, "quality": q, "on_front": ~(no_worse & better).any(axis=1)}, index=names)
    table["clearly_off"] = ((c[None, :] <= c[:, None]) & _significantly_better(ranking, names)).any(axis=1)
    return table.sort_values(["cost", "quality"], ascending=[True, False], kind="stable")


def ppt(score: float, parameters: float) -> float:
    """Performance-parameter trade-off of V-PETL Bench (Xin et al. 2024): score * exp(-log10(1 + parameters / 1e7)).

    The score is a share (0..1); the parameters are those trained, without the head. It is here to compare with
    published tables.
    """
    return score * math.exp(-math.log10(1 + parameters / 1e7))


def _significantly_better(ranking: Ranking, names: Sequence[str]) -> np.ndarray:
    """[i, j]: whether j is significantly better than i."""
    place = {name: number for number, name in enumerate(names)}
    found = np.zeros((len(names), len(names)), dtype=bool)
    clear = ranking.pairs[ranking.pairs["p_holm"] < SIGNIFICANCE]
    for a, b, mean in zip(clear["a"], clear["b"], clear["mean"], strict=True):
        winner, loser = (b, a) if mean > 0 else (a, b)
        if winner in place and loser in place:
            found[place[loser], place[winner]] = True
    return found
