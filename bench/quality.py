"""Changes of quality between two sides: differences paired on items, by `statistics`, per cell and per suite.

A change counts when it is significant (Holm at 5% over all cells that moved, and over all suites) **and** large enough
to matter (`ABSOLUTE`, `RELATIVE`). Where most methods on a task move the same way, that is one finding about the
pipeline, and a method is named only for what it moved beyond the others' median. Seeds that ran on different pairs of
machines are never averaged.

Without stored items the seeds' scores are compared in pairs; a single seed without items cannot be tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from .findings import Finding, Incomplete, Kind, Verdict, most
from .sides import Side
from .statistics import Moments, holm, moments_of, pooled

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05
ABSOLUTE = {"accuracy": 0.01, "macro_f1": 0.01}  # the least change that matters; of other metrics a share of the value
RELATIVE = 0.01
GROUP = ["protocol", "task", "method_name", "machines"]


@dataclass(frozen=True)
class Change:
    """b - a of one method on one task or suite, on the metric's scale."""

    where: str
    method: str
    metric: str
    before: float
    mean: float
    half_width: float  # of the 95% interval; nan where there is too little to tell
    p: float
    better: bool

    @property
    def matters(self) -> float:
        """The least difference that counts."""
        return ABSOLUTE.get(self.metric, RELATIVE * abs(self.before))

    def text(self) -> str:
        """`accuracy -3.1 ± 1.2 points (p = 0.001)`; other metrics on their own scale."""
        factor, digits, unit = (100, 1, " points") if self.metric in ABSOLUTE else (1, 4, "")
        half = "" if np.isnan(self.half_width) else f" ± {factor * self.half_width:.{digits}f}"
        p = "" if np.isnan(self.p) else f" (p = {self.p:.2g})"
        return f"{self.metric} {factor * self.mean:+.{digits}f}{half}{unit}{p}"


def quality(ok: pd.DataFrame, both: pd.DataFrame, a: Side, b: Side) -> tuple[list[Finding], list[Incomplete]]:
    """Findings over cells and suites from `ok`, the pairs that can be compared, and the suites that lack cells.

    `both`: all pairs, which say what the suites are about.
    """
    known = ok["value_a"].notna() & ok["value_b"].notna() & ok["metric_a"].eq(ok["metric_b"])
    scored = ok[known].assign(machines=ok["machine_a"].astype(str) + " | " + ok["machine_b"].astype(str))
    if scored.empty:
        groups, moments = scored.assign(n=0), None
    else:
        groups, moments = _groups(scored, a, b)
    findings: list[Finding] = []
    if moments is not None:
        methods = groups.groupby("task")["method_name"].nunique().to_dict()
        findings += _judged(_changes(groups, moments), methods, "quality")
    suites: list[Change] = []
    members: dict[str, int] = {}
    incomplete: list[Incomplete] = []
    for protocol in both["protocol"].unique():
        for name, tasks in _suites(str(protocol)).items():
            inside = groups[groups["protocol"].eq(protocol) & groups["task"].isin(tasks)]
            asked = both[both["protocol"].eq(protocol) & both["task"].isin(tasks)]["method_name"].unique()
            complete = _complete(inside, tasks)
            left = set(asked) - {method for method, _ in complete.index}
            incomplete += [_lacking(name, method, inside, tasks) for method in sorted(left)]
            if moments is not None and len(complete):
                suites += _suite_changes(name, groups, complete, moments)
                members[name] = complete.index.get_level_values("method_name").nunique()
    return [*findings, *_judged(suites, members, "suite")], incomplete


# moments of each method on each task ----------------------------------------------------------------------------------


def _groups(scored: pd.DataFrame, a: Side, b: Side) -> tuple[pd.DataFrame, Moments]:
    """A row for each group, and the moments of b - a with one axis of groups."""
    difference = scored["value_b"] - scored["value_a"]
    stored = scored["predictions_a"].notna() & scored["predictions_b"].notna()
    moved = difference.ne(0) | (stored & scored["predictions_a"].ne(scored["predictions_b"]).fillna(True))
    rows = scored.assign(difference=difference, moved=moved, stored=stored)
    grouped = rows.groupby(GROUP, sort=True)
    groups = grouped.agg(
        n=("difference", "size"),
        mean=("difference", "mean"),
        spread=("difference", "var"),
        before=("value_a", "mean"),
        metric=("metric_b", "first"),
        up=("higher_is_better_b", "first"),
        moved=("moved", "any"),
        stored=("stored", "all"),
    ).reset_index()
    moments = _of_scores(groups)
    numbers = grouped.ngroup()
    paired = groups["moved"] & groups["stored"]
    members = rows[paired.to_numpy()[numbers]].groupby(numbers, sort=True)
    for number, members_of_one in members:
        differences = _per_item(members_of_one, a, b)
        if differences is not None:
            _put(moments, int(number), moments_of(differences))
    return groups, moments


def _of_scores(groups: pd.DataFrame) -> Moments:
    """Seeds as the sample, which is what is left without items; nothing varies in groups that did not move."""
    n, moved = groups["n"].to_numpy(), groups["moved"].to_numpy()
    spread = np.where(moved, groups["spread"].to_numpy(dtype=np.float64) / n, 0.0)
    mean = np.where(moved, groups["mean"].to_numpy(dtype=np.float64), 0.0)
    count = np.stack([np.ones_like(n), np.zeros_like(n)], axis=-1)
    return Moments(mean, spread, np.maximum(n - 1, 1), np.zeros(len(n)), np.zeros((len(n), 2)), count)


def _per_item(rows: pd.DataFrame, a: Side, b: Side) -> list[np.ndarray] | None:
    """b - a of each item, an array a seed, on the metric's scale; None where items are not the same."""
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    items = None
    for row in rows.itertuples():
        for side, path, values in ((a, row.path_a, sides[0]), (b, row.path_b, sides[1])):
            arrays = side.arrays(str(path))
            if arrays is None or (items is not None and not np.array_equal(arrays["items"], items)):
                return None
            items = arrays["items"]
            values.append(np.asarray(arrays["per_item"], dtype=np.float64))
    raw, score = float(np.mean(sides[0])), float(rows["value_a"].mean())
    scale = score / raw if raw else 1.0
    return [scale * (after - before) for before, after in zip(*sides, strict=True)]


def _put(moments: Moments, place: int, one: Moments) -> None:
    for name in ("mean", "items", "item_freedom", "shared", "seed_variance", "seed_count"):
        getattr(moments, name)[place] = getattr(one, name)


def _take(moments: Moments, places: np.ndarray) -> Moments:
    """Moments of `places` (..., tasks)."""
    names = ("mean", "items", "item_freedom", "shared", "seed_variance", "seed_count")
    return Moments(*(getattr(moments, name)[places] for name in names))


# changes --------------------------------------------------------------------------------------------------------------


def _changes(groups: pd.DataFrame, moments: Moments) -> list[Change]:
    """The groups that moved."""
    places = np.flatnonzero(groups["moved"].to_numpy())
    found = pooled(_take(moments, places[:, None])) if len(places) else None
    if found is None:
        return []
    numbers = zip(places, found.mean, found.half_width(), found.p(), strict=True)
    where, method, metric = (groups[name].tolist() for name in ("task", "method_name", "metric"))
    before, up = groups["before"].tolist(), groups["up"].tolist()
    return [
        Change(where[i], method[i], metric[i], before[i], float(mean), float(half), float(p), bool(up[i]) == (mean > 0))
        for i, mean, half, p in numbers
    ]


def _suites(protocol: str) -> dict[str, tuple[str, ...]]:
    """Tasks of the protocol's suites by their full name, where the protocol is known here; none of a single task."""
    from .registry import registry

    protocols = registry("protocols")
    if protocol not in protocols:
        return {}
    return {suite.name: suite.tasks for suite in protocols.card(protocol).suites.values() if len(suite.tasks) > 1}


def _complete(inside: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Positions of the groups, a row for each (method, machines) that has all tasks, a column for each task."""
    table = inside.assign(place=inside.index).pivot(index=["method_name", "machines"], columns="task", values="place")
    return table.reindex(columns=list(tasks)).dropna().astype(int)


def _lacking(suite: str, method: str, inside: pd.DataFrame, tasks: Sequence[str]) -> Incomplete:
    mine = inside[inside["method_name"].eq(method)]
    there = set(mine["task"])
    lacks = tuple(task for task in tasks if task not in there)
    return Incomplete(suite, method, lacks, split=not lacks)


def _suite_changes(where: str, groups: pd.DataFrame, complete: pd.DataFrame, moments: Moments) -> list[Change]:
    """Plain means over a suite whose tasks share one metric."""
    places = complete.to_numpy()
    first = groups.loc[places[:, 0]]
    moved = groups["moved"].to_numpy()[places].any(axis=1)
    if groups.loc[places.ravel(), "metric"].nunique() != 1 or not moved.any():
        return []
    found = pooled(_take(moments, places))
    before = groups["before"].to_numpy()[places].mean(axis=1)
    columns = (complete.index, first["metric"], before, found.mean, found.half_width(), found.p(), first["up"], moved)
    return [
        Change(where, method, metric, float(start), float(mean), float(half), float(p), bool(up) == (mean > 0))
        for (method, _), metric, start, mean, half, p, up, changed in zip(*columns, strict=True)
        if changed
    ]


# verdicts -------------------------------------------------------------------------------------------------------------


def _judged(changes: Sequence[Change], methods: Mapping[str, int], kind: Kind) -> Iterator[Finding]:
    """`methods`: how many were compared on each task or suite, those that did not move included."""
    tested = [change for change in changes if not np.isnan(change.p)]
    adjusted = dict(zip(map(id, tested), holm([change.p for change in tested]), strict=True)) if tested else {}
    by_place: dict[str, list[Change]] = {}
    for change in changes:
        by_place.setdefault(change.where, []).append(change)
        if id(change) not in adjusted and abs(change.mean) >= change.matters:
            text = f"{change.text()}: cannot be tested, one seed and no stored items"
            yield Finding("untested", "note", text, (change.where,), (change.method,))
    for where, moved in by_place.items():
        real = [c for c in moved if adjusted.get(id(c), 1.0) < SIGNIFICANT and abs(c.mean) >= c.matters]
        together = [c for c in real if c.better == (2 * sum(one.better for one in real) > len(real))]
        if most(len({change.method for change in together}), methods[where]):
            still = [0.0] * (methods[where] - len({change.method for change in moved}))
            yield from _common(where, real, median([*still, *(change.mean for change in moved)]), methods[where], kind)
        else:
            yield from (_finding(change, kind, change.better, "") for change in real)


def _common(where: str, real: Sequence[Change], shift: float, methods: int, kind: Kind) -> Iterator[Finding]:
    """The shift that most methods share, and what single methods moved beyond it."""
    shown = replace(real[0], mean=shift, half_width=np.nan, p=np.nan)
    yield Finding(kind, "drift", f"common shift of most of {methods} methods, median {shown.text()}", (where,))
    for change in real:
        beyond = change.mean - shift
        if abs(beyond) >= max(change.matters, change.half_width):
            better = change.better == (beyond * change.mean > 0)
            yield _finding(change, kind, better, f"{replace(shown, mean=beyond).text()} beyond the common shift")


def _finding(change: Change, kind: Kind, better: bool, note: str) -> Finding:
    verdict: Verdict = "improvement" if better else "regression"
    text = f"{change.text()}, {note}" if note else change.text()
    return Finding(kind, verdict, text, (change.where,), (change.method,))
