"""The standing of methods on a suite, from tidy rows (`frame.COLUMNS`) and the stored values of test items.

What is compared is the plain mean over the suite's tasks, which are fixed; seeds and test items are random.

- `rank`: 1 + the number of methods that are significantly better: the paired test of `statistics.suite_difference` for
  every pair, adjusted by Holm over all pairs, at 5%. Methods that nobody beats share rank 1.
- `mean`, `mean of groups` and each `mean <group>`: with 95% intervals; only for methods whose cells are all ok.
- `mean_rank`: the average over tasks of the rank by score, ties averaged. It describes; nothing is tested.
- `win_rate`: the share of comparisons with one other method on one task that are won, ties half.
- Cells that failed or are missing are named in `failed`. For ranks, win rate and `quality` their values are imputed and
  the tasks named in `imputed`. The rule "worst" takes the lowest-scoring method that is ok on the task, seed by seed; a
  method's name as the rule takes that method, and the worst where it is not ok itself.
- `quality` is what is compared: the plain mean, imputed where needed, higher is better. A suite with several metrics
  has no mean; there a task counts in units of the standard deviation of its items (within methods, averaged).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .pairwise import Detectable, pair_moments, pair_places, smallest_detectable
from .statistics import Pooled, holm, joined, moments_of, pooled

if TYPE_CHECKING:
    import pandas as pd

    from .store import Store

SIGNIFICANCE = 0.05
WORST = "worst"
Items = Callable[[str], "np.ndarray | None"]  # a row's `path` -> its per-item values; None where they are not stored
Place = tuple[str, str]  # method, task


@dataclass(frozen=True)
class Ranking:
    """`methods`: one row a method, best first, in the metric's own unit. `pairs`: one row a pair, `mean` is b - a in
    units of `quality`.

    Methods without any ok cell have no rank, and no pairs.
    """

    tasks: tuple[str, ...]
    methods: pd.DataFrame  # index: method
    pairs: pd.DataFrame  # columns a, b, mean, half_width, p, p_holm
    notes: tuple[str, ...]
    detectable: Detectable | None  # in units of `quality`; of pairs without imputed cells


@dataclass(frozen=True)
class _Suite:
    """A suite's rows, by place and seed."""

    methods: list[str]
    tasks: list[str]
    values: Mapping[Place, Mapping[int, np.ndarray]]  # ok seeds; per-item values, their mean is the score
    failed: Mapping[Place, Mapping[int, str]]  # seeds that are not ok, with their status
    metrics: Mapping[str, str]
    signs: Mapping[str, float]  # 1 where higher is better, else -1
    groups: Mapping[str, str | None]

    @property
    def one_metric(self) -> bool:
        return len(set(self.metrics.values())) == 1

    def incomplete(self, place: Place) -> bool:
        """Whether a cell failed for some seed, or is missing."""
        return bool(self.failed.get(place)) or not self.values.get(place)


def stored_items(store: Store) -> Items:
    """Values of a results folder, by the paths of its frame."""
    find = store.stored_arrays()

    def items(path: str) -> np.ndarray | None:
        arrays = find(path)
        return None if arrays is None else arrays.get("per_item")

    return items


def rank_suite(frame: pd.DataFrame, items: Items, tasks: Sequence[str], imputation: str = WORST) -> Ranking:
    """Rank the methods (`method_name`) of a frame on `tasks`.

    The frame holds one protocol's cells, no tuning trials. Raises ValueError for a cell that occurs twice, a task on
    which no method has a result, cells of one task with different numbers of items, or an unknown rule.
    """
    suite = _suite(frame, items, tasks)
    if imputation not in (WORST, *suite.methods):
        raise ValueError(f"imputation: '{imputation}' is neither '{WORST}' nor one of the methods")
    ranked = [name for name in suite.methods if any(suite.values.get((name, task)) for task in suite.tasks)]
    cells, imputed = _imputed(suite, ranked, imputation)
    compared = [_in_units(suite, task, row) for task, row in zip(suite.tasks, cells, strict=True)]
    differences = pooled(joined([pair_moments(row) for row in compared]))
    pairs = _pairs(ranked, differences)
    columns: dict[str, Any] = {"rank": _ranks(ranked, pairs)}
    columns.update(_means(suite, ranked, cells, imputed))
    columns.update(_by_task(suite, compared))
    columns["quality"] = np.mean([[cell.mean() for cell in row] for row in compared], axis=0)
    table = _table(suite, ranked, columns, imputed)
    whole = np.array([all((name, task) not in imputed for task in suite.tasks) for name in ranked])
    first, second = pair_places(len(ranked))
    visible = smallest_detectable(differences, whole[first] & whole[second], SIGNIFICANCE)
    return Ranking(tuple(suite.tasks), table, pairs, _notes(suite, imputed, imputation), visible)


def _suite(frame: pd.DataFrame, items: Items, tasks: Sequence[str]) -> _Suite:
    rows = frame[frame["task"].isin(list(tasks))]
    values: dict[Place, dict[int, np.ndarray]] = {}
    failed: dict[Place, dict[int, str]] = {}
    columns = (rows[name] for name in ("method_name", "task", "seed", "status", "value", "path"))
    for method, task, seed, status, value, path in zip(*columns, strict=True):
        place = (str(method), str(task))
        if seed in values.get(place, {}) or seed in failed.get(place, {}):
            raise ValueError(f"{method} x {task} seed {seed} occurs twice: a ranking takes the cells of one protocol")
        if status == "ok":
            values.setdefault(place, {})[int(seed)] = _scaled(items(path), float(value))
        else:
            failed.setdefault(place, {})[int(seed)] = str(status)
    known = rows[rows["status"] == "ok"].drop_duplicates("task").set_index("task")
    signs = {task: 1.0 if higher else -1.0 for task, higher in known["higher_is_better"].items()}
    methods = [str(name) for name in rows["method_name"].unique()]
    groups = known["group"].to_dict()
    return _Suite(methods, list(tasks), values, failed, known["metric"].to_dict(), signs, groups)


def _scaled(items: np.ndarray | None, score: float) -> np.ndarray:
    """Brought to the metric's scale: their mean is the score. The score alone where there are no items."""
    if items is None or not len(items):
        return np.array([score])
    mean = float(items.mean())
    return items * (score / mean) if mean else np.asarray(items, dtype=np.float64)


def _imputed(suite: _Suite, ranked: Sequence[str], rule: str) -> tuple[list[list[np.ndarray]], set[Place]]:
    """Values (seeds, items) of every ranked method, [task][method], and the places where some are imputed."""
    cells: list[list[np.ndarray]] = []
    imputed: set[Place] = set()
    for task in suite.tasks:
        lacking = [name for name in ranked if suite.incomplete((name, task))]
        source = _source(suite, task, ranked, rule)
        row = []
        for name in ranked:
            own = dict(suite.values.get((name, task), {}))
            if name in lacking:
                imputed.add((name, task))
                wanted = suite.failed[name, task] if own else source
                own |= {seed: source.get(seed, source[min(source)]) for seed in wanted}
            row.append(_stacked(own))
        cells.append(row)
    return cells, imputed


def _source(suite: _Suite, task: str, ranked: Sequence[str], rule: str) -> Mapping[int, np.ndarray]:
    """The seeds whose values stand for what lacks on a task."""
    found = {name: suite.values[name, task] for name in ranked if suite.values.get((name, task))}
    able = {name: seeds for name, seeds in found.items() if not suite.incomplete((name, task))} or found
    if not able:
        raise ValueError(f"{task}: no method has a result, so none can be ranked")
    if rule in able:
        return able[rule]
    scores = {name: suite.signs[task] * float(_stacked(seeds).mean()) for name, seeds in able.items()}
    return able[min(scores, key=lambda name: scores[name])]


def _stacked(seeds: Mapping[int, np.ndarray]) -> np.ndarray:
    """Values (seeds, items) in the order of the seeds; the scores alone where one of them has no items."""
    values = [seeds[seed] for seed in sorted(seeds)]
    if len({len(value) for value in values}) > 1:
        values = [np.array([value.mean()]) for value in values]
    return np.stack(values)


def _in_units(suite: _Suite, task: str, row: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Higher is better, and one unit for all tasks."""
    unit = 1.0
    if not suite.one_metric:
        spread = [float(cell.var(axis=1).mean()) for cell in row if cell.shape[1] > 1]
        unit = float(np.sqrt(np.mean(spread))) if spread else 1.0
    return [suite.signs[task] / (unit or 1.0) * cell for cell in row]


def _pairs(ranked: Sequence[str], found: Pooled) -> pd.DataFrame:
    import pandas as pd

    first, second = pair_places(len(ranked))
    names = np.array(ranked, dtype=object)
    p = found.p()
    known = ~np.isnan(p)
    adjusted = np.full(len(p), np.nan)
    adjusted[known] = holm(p[known])
    return pd.DataFrame(
        {
            "a": names[first],
            "b": names[second],
            "mean": found.mean,
            "half_width": found.half_width(),
            "p": p,
            "p_holm": adjusted,
        }
    )


def _ranks(ranked: Sequence[str], pairs: pd.DataFrame) -> list[int]:
    """1 + the number of methods that are significantly better."""
    clear = pairs[pairs["p_holm"] < SIGNIFICANCE]
    losers = np.where(clear["mean"] > 0, clear["a"], clear["b"])
    beaten = dict.fromkeys(ranked, 0)
    for name in losers:
        beaten[name] += 1
    return [1 + beaten[name] for name in ranked]


def _means(
    suite: _Suite, ranked: Sequence[str], cells: Sequence[Sequence[np.ndarray]], imputed: set[Place]
) -> dict[str, np.ndarray]:
    """Columns of means and half-widths, for suites with one metric; nan where a cell of the mean is imputed."""
    if not suite.one_metric:
        return {}
    by_task = [joined([moments_of(list(cell)) for cell in row]) for row in cells]
    groups: dict[str, list[int]] = {}
    for place, task in enumerate(suite.tasks):
        groups.setdefault(suite.groups.get(task) or "", []).append(place)
    every = list(range(len(suite.tasks)))
    means: dict[str, tuple[list[int], list[float] | None]] = {"mean": (every, None)}
    if len(groups) > 1 and "" not in groups:
        sizes = {place: len(group) for group in groups.values() for place in group}
        means["mean of groups"] = (every, [1 / len(groups) / sizes[place] for place in every])
        means |= {f"mean {name}": (group, None) for name, group in groups.items()}
    columns: dict[str, np.ndarray] = {}
    for title, (places, weights) in means.items():
        found = pooled(joined([by_task[place] for place in places]), weights)
        lacking = [any((name, suite.tasks[place]) in imputed for place in places) for name in ranked]
        columns[title] = np.where(lacking, np.nan, found.mean)
        columns[f"{title} half_width"] = np.where(lacking, np.nan, found.half_width())
    return columns


def _by_task(suite: _Suite, compared: Sequence[Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean rank and win rate: of the same comparisons, the rank counts those lost and the rate those won."""
    from scipy.stats import rankdata

    scores = np.array([[cell.mean() for cell in row] for row in compared])
    mean_rank = rankdata(-scores, axis=1).mean(axis=0)
    others = scores.shape[1] - 1
    win_rate = (others + 1 - mean_rank) / others if others else np.full(1, np.nan)
    return {"mean_rank": mean_rank, "win_rate": win_rate}


def _table(suite: _Suite, ranked: Sequence[str], columns: Mapping[str, Any], imputed: set[Place]) -> pd.DataFrame:
    """Best first; methods without an ok cell at the end."""
    import pandas as pd

    table = pd.DataFrame(columns, index=pd.Index(list(ranked), name="method"))
    table = table.sort_values(["rank", "quality"], ascending=[True, False], kind="stable")
    table = table.reindex([*table.index, *(name for name in suite.methods if name not in set(ranked))])
    table["rank"] = table["rank"].astype("Int64")
    table["seeds"] = [_seeds(suite, name) for name in table.index]
    table["imputed"] = [tuple(task for task in suite.tasks if (name, task) in imputed) for name in table.index]
    table["failed"] = ["; ".join(_failures(suite, name)) for name in table.index]
    return table


def _seeds(suite: _Suite, name: str) -> str:
    """The number of ok seeds: `3`, or `1..3` where tasks differ."""
    numbers = sorted({len(suite.values.get((name, task), {})) for task in suite.tasks})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}"


def _failures(suite: _Suite, name: str) -> list[str]:
    lines = []
    for task in suite.tasks:
        bad = suite.failed.get((name, task), {})
        lines += [f"{task}: {status} (seed {seed})" for seed, status in sorted(bad.items())]
        if not bad and not suite.values.get((name, task)):
            lines.append(f"{task}: missing")
    return lines


def _notes(suite: _Suite, imputed: set[Place], rule: str) -> tuple[str, ...]:
    notes = ["methods share a rank unless a paired test, adjusted by Holm over all pairs, tells them apart at 5%"]
    if not suite.one_metric:
        notes.append("several metrics: no mean; tasks are compared in standard deviations of their items")
    if imputed:
        notes.append(f"ranks impute cells that failed or are missing by the rule '{rule}'; no mean is given there")
    if all(len(seeds) == 1 for seeds in suite.values.values()):
        notes.append("one seed: intervals and tests cover the sampling of test items only")
    return tuple(notes)
