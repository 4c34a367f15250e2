"""Compare two sides cell by cell: exact facts exactly, quality by statistics, causes before their consequences.

A cell whose data differ is not asked how it trained, and one that trained differently is not asked how it was
evaluated: what differs first is what is named. Where most methods of a task have the same kind of finding, that is one
finding about the pipeline. Loss traces and scores are compared bit for bit between runs of one machine class
(`facts.machine`), and within `ROUNDING` between others.

Times of cells are not compared, since cells run beside others; cost profiles are compared apart, see `compare_costs`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .compare_costs import compare_costs
from .facts import DECLARED, EXACT, PLACE, SETTINGS, TRACE
from .findings import FAILING, Comparison, Finding, Kind, Verdict, grouped, most
from .sides import Arrays, Side

if TYPE_CHECKING:
    import pandas as pd

# Largest relative difference that another rounding may make, in the first `TRACE` losses and in smooth metrics. Between
# instruction sets (SSE and AVX-512) it was 1.9e-7 in 52 cells of the smoke protocol.
ROUNDING = 1e-5
SMOOTH = ("nll", "bits_per_byte")  # metrics that do not jump when an item near the border changes sides
ITEM_MEANS = ("accuracy", "bits_per_byte")  # metrics that are the mean of what is stored for each item


def compare(a: Side, b: Side, *, complete: bool = False) -> Comparison:
    """What changed from `a` to `b`. `complete`: every cell of `a` must be in `b`, else it is a regression."""
    from .quality import quality

    pairs = a.cells.merge(b.cells, on=PLACE, how="outer", suffixes=("_a", "_b"), indicator=True)
    both = pairs[pairs["_merge"] == "both"].reset_index(drop=True)
    only_a, only_b = (_names(pairs[pairs["_merge"] == which]) for which in ("left_only", "right_only"))
    comparable, findings = _comparable(both)
    declared, found = _declared(comparable)
    findings += found
    other_data = _differs(comparable, "train_data") | _differs(comparable, "test_data")
    findings += [*_data(comparable[other_data], a, b), *duplicates(a, b), *compare_costs(a.costs, b.costs)]
    ok = comparable["status_a"].eq("ok") & comparable["status_b"].eq("ok") & ~other_data
    judged = comparable[ok & ~declared]
    exact, found = _rounding(judged)
    findings += found
    steps = _first_difference(judged, exact)
    alike = judged[steps.isna()]
    single = [
        *(*_lost(pairs[pairs["_merge"] == "left_only"], complete), *_statuses(comparable)),
        *(*_exact_facts(comparable[~declared]), *_trained(comparable[~declared]), *_training(judged, steps)),
        *(*_evaluation(alike, exact[alike.index], a, b), *_own_scores(alike, b)),
    ]
    findings += _common(single, a.cells.groupby("task")["method_name"].nunique().to_dict())
    scored, incomplete = quality(comparable[ok], both, a, b)
    return Comparison(
        a.name,
        b.name,
        grouped([*findings, *scored]),
        list(both[["protocol", "task", "method_name"]].drop_duplicates().itertuples(index=False, name=None)),
        len(both),
        int(exact.sum()),
        int((~exact).sum()),
        only_a,
        only_b,
        incomplete,
    )


def _common(findings: Iterable[Finding], methods: Mapping[str, int]) -> Iterator[Finding]:
    """One finding about the pipeline where most of a task's methods have one of the same kind; else as they are."""
    places: dict[tuple[Kind, str], list[Finding]] = {}
    for finding in findings:
        for task in finding.tasks:
            places.setdefault((finding.kind, task), []).append(finding)
    for (kind, task), found in places.items():
        worse = [finding for finding in found if finding.verdict in FAILING]
        names = {name for finding in worse for name in finding.methods}
        if most(len(names), methods.get(task, 0)):
            text = f"{kind} of {len(names)} of {methods[task]} methods, such as {worse[0].methods[0]}: {worse[0].text}"
            yield Finding(kind, "drift", text, (task,))
            found = [finding for finding in found if finding.verdict not in FAILING]
        yield from (replace(finding, tasks=(task,)) for finding in found)


def duplicates(a: Side, b: Side) -> Iterator[Finding]:
    """Methods of `b` with bit-identical predictions, as when one result was evaluated twice.

    Not those that `a` has too (an A/A test); between methods that `a` lacks it is only a note.
    """
    known, methods = set(_twins(a.cells)), set(a.cells["method_name"])
    for task, names in _twins(b.cells):
        if (task, names) not in known:
            verdict: Verdict = "regression" if methods & names else "note"
            yield Finding(
                "duplicate", verdict, "the same predictions under different methods", (task,), tuple(sorted(names))
            )


def _twins(cells: pd.DataFrame) -> Iterator[tuple[str, frozenset[str]]]:
    """(task, methods) that share predictions; one cell under two names is no such case."""
    known = cells[cells["predictions"].notna()].drop_duplicates(["key"])
    where = ["protocol", "task", "seed", "predictions"]
    for place, group in known[known.duplicated(where, keep=False)].groupby(where):
        yield str(place[1]), frozenset(group["method_name"])


# what is there -------------------------------------------------------------------------------------------------------


def _names(cells: pd.DataFrame) -> list[str]:
    return [f"{row.method_name} x {row.task} x seed {row.seed}" for row in cells.itertuples()]


def _lost(cells: pd.DataFrame, complete: bool) -> Iterator[Finding]:
    for row in cells.itertuples() if complete else ():
        yield Finding("missing", "regression", "no record any more", (row.task,), (row.method_name,))


def _comparable(both: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Pairs with the same settings; the others are named and left out."""
    other = _any(both, SETTINGS)
    found = []
    for row in both[other].to_dict("records"):
        what = [f"{label} {_change(row, name)}" for name, label in SETTINGS.items() if _unequal(row, name)]
        text = f"not comparable: {', '.join(what)}"
        found.append(Finding("settings", "note", text, (row["task"],), (row["method_name"],)))
    return both[~other], found


def _statuses(pairs: pd.DataFrame) -> Iterator[Finding]:
    for row in pairs[_differs(pairs, "status")].to_dict("records"):
        before, after = row["status_a"], row["status_b"]
        verdict: Verdict = "regression" if before == "ok" else "improvement" if after == "ok" else "note"
        why = (str(row["error_b"]).splitlines() or [""])[0][:160] if after != "ok" else ""
        text = f"status {before} -> {after}" + (f" in {row['phase_b']}: {why}" if why else "")
        yield Finding("status", verdict, text, (row["task"],), (row["method_name"],))


def _declared(pairs: pd.DataFrame) -> tuple[pd.Series, list[Finding]]:
    """Cells whose recipe or version says that they are others now; only their quality is compared."""
    other = _any(pairs, DECLARED)
    found = []
    for row in pairs[other].to_dict("records"):
        what = []
        if _unequal(row, "method_version"):
            what.append(f"version {_change(row, 'method_version')}")
        before, after = json.loads(row["config_a"]), json.loads(row["config_b"])
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        what += [f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}" for name in names]
        found.append(Finding("declared", "declared", ", ".join(what), (row["task"],), (row["method_name"],)))
    return other, found


# exact facts ---------------------------------------------------------------------------------------------------------


def _exact_facts(pairs: pd.DataFrame) -> Iterator[Finding]:
    for name, label in EXACT.items():
        known = pairs[f"{name}_a"].notna() & pairs[f"{name}_b"].notna()
        for row in pairs[known & _differs(pairs, name)].to_dict("records"):
            text = f"{label} {int(row[f'{name}_a']):,} -> {int(row[f'{name}_b']):,}"
            yield Finding("parameters", "regression", text, (row["task"],), (row["method_name"],))


def _trained(pairs: pd.DataFrame) -> Iterator[Finding]:
    known = pairs["trained_a"].notna() & pairs["trained_b"].notna()
    for row in pairs[known & _differs(pairs, "trained")].to_dict("records"):
        before, after = json.loads(row["trained_a"]), json.loads(row["trained_b"])
        gone, new = (sorted(one.keys() - other.keys()) for one, other in ((before, after), (after, before)))
        other = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
        parts = [f"trains what it did not: {', '.join(new)}"] if new else []
        parts += [f"no longer trains {', '.join(gone)}"] if gone else []
        parts += [f"{name}: {_tensors(before[name])} -> {_tensors(after[name])}" for name in other]
        yield Finding("trained tensors", "regression", "; ".join(parts), (row["task"],), (row["method_name"],))


def _tensors(counts: list[int]) -> str:
    return f"{counts[0]} tensors of {counts[1]:,} parameters"


def _data(pairs: pd.DataFrame, a: Side, b: Side) -> Iterator[Finding]:
    """One finding for each task and split: the data are the task's, not the method's."""
    for task, rows in pairs.groupby("task"):
        for split, label in (("train", "training"), ("test", "test")):
            changed = rows[_differs(rows, f"{split}_data")]
            if len(changed):
                parts = [f"{label} data {_change(changed.iloc[0].to_dict(), f'{split}_data')}"]
                parts += _label_changes(str(task), split, changed, a, b)
                yield Finding("data", "regression", "; ".join(parts), (str(task),))


def _label_changes(task: str, split: str, pairs: pd.DataFrame, a: Side, b: Side) -> list[str]:
    """How many labels differ: exactly where both sides know them, else what the predictions give away."""
    before, after = (side.labels.get(task, {}).get(split) for side in (a, b))
    if before is not None and after is not None:
        if len(before) != len(after):
            return [f"{len(before)} -> {len(after)} labels"]
        return [_items([str(i) for i, (x, y) in enumerate(zip(before, after, strict=True)) if x != y], len(before), "")]
    if split == "train":
        return []
    found: dict[str, None] = {}
    number = 0
    for one, other in _loaded(pairs, a, b):
        if "logits" in one and "logits" in other and _same_items(one, other):
            chosen = one["logits"].argmax(1) == other["logits"].argmax(1)
            moved = chosen & (one["per_item"] != other["per_item"])
            found.update(dict.fromkeys(one["items"][moved].tolist()))
            number = len(moved)
    return [_items(list(found), number, "at least ")] if number else []


def _items(names: list[str], number: int, least: str) -> str:
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"labels of {least}{len(names)} of {number} items differ" + (f": {shown}" if names else "")


# training and evaluation ---------------------------------------------------------------------------------------------


def _rounding(pairs: pd.DataFrame) -> tuple[pd.Series, list[Finding]]:
    """Which pairs are compared bit for bit: those of one machine class.

    None of them where most methods' losses differ by no more than rounding: then two machines bear the same name, as
    virtual ones do.
    """
    exact = ~_differs(pairs, "machine")
    moved = pairs[exact & _differs(pairs, "loss_digest")]
    little = [row.method_name for row in moved.itertuples() if row.losses_a and row.losses_b and _within_rounding(row)]
    methods = pairs[exact & pairs["losses_a"].notna()]["method_name"].nunique()
    if not most(len(set(little)), methods):
        return exact, []
    text = f"losses of {len(set(little))} of {methods} methods differ by rounding: another machine of the same name?"
    tasks = tuple(sorted(moved["task"].unique()))
    return exact & False, [Finding("training", "note", text, tasks)]


def _first_difference(pairs: pd.DataFrame, exact: pd.Series) -> pd.Series:
    """Step of the first loss that differs; nan where none does or a side has no trace."""
    import pandas as pd

    known = pairs["losses_a"].notna() & pairs["losses_b"].notna() & _differs(pairs, "loss_digest")
    steps = {}
    for place, before, after in pairs[known][["losses_a", "losses_b"]].itertuples(name=None):
        limit = 0.0 if exact[place] else ROUNDING
        losses = enumerate(zip(json.loads(before), json.loads(after), strict=False))
        apart = (step for step, (x, y) in losses if not _close(x, y, limit))
        steps[place] = next(apart, TRACE if exact[place] else math.nan)
    return pd.Series(steps, index=pairs.index, dtype="float64")


def _training(pairs: pd.DataFrame, steps: pd.Series) -> Iterator[Finding]:
    """One finding for each method on a task, at the first step of its seeds that differs."""
    moved = pairs.assign(first=steps)[steps.notna()]
    for (task, name), first in moved.groupby(["task", "method_name"])["first"].min().items():
        where = f"after step {TRACE - 1}" if first == TRACE else f"from step {int(first)} on"
        text = f"training drift: the loss differs {where}"
        yield Finding("training", "regression", text, (str(task),), (str(name),))


def _within_rounding(row: Any) -> bool:
    losses = zip(json.loads(row.losses_a), json.loads(row.losses_b), strict=False)
    return all(_close(before, after, ROUNDING) for before, after in losses)


def _evaluation(pairs: pd.DataFrame, exact: pd.Series, a: Side, b: Side) -> Iterator[Finding]:
    """Pairs that trained alike: their predictions and scores must be alike too."""
    for row in pairs[exact & (_differs(pairs, "predictions") | _differs(pairs, "metrics"))].to_dict("records"):
        same = _same_predictions(row, a, b)
        scores = _scores(row, 0.0)
        if same and scores:
            yield _of(row, "score", f"the same predictions score differently: {scores}")
        elif scores or same is False:
            text = f"evaluation drift: same training trace, other {'scores: ' + scores if scores else 'predictions'}"
            yield _of(row, "evaluation", text)
    for row in pairs[~exact & _differs(pairs, "metrics")].to_dict("records"):
        if scores := _scores(row, ROUNDING):
            yield _of(row, "evaluation", f"evaluation drift: same training trace within rounding, {scores}")


def _of(row: dict[str, Any], kind: Kind, text: str) -> Finding:
    return Finding(kind, "regression", text, (row["task"],), (row["method_name"],))


def _same_predictions(row: dict[str, Any], a: Side, b: Side) -> bool | None:
    """Whether the stored arrays agree; None where a side has none of them."""
    import numpy as np

    if not _unequal(row, "predictions") and row["predictions_a"] is not None:
        return True
    one, other = a.arrays(row["path_a"]), b.arrays(row["path_b"])
    if one is None or other is None:
        return None
    shared = one.keys() & other.keys()
    if all(np.array_equal(one[name], other[name]) for name in shared):
        return True if one.keys() == other.keys() else None
    return False


def _scores(row: dict[str, Any], tolerance: float) -> str:
    """Metrics that differ; with a tolerance only the smooth ones."""
    before, after = (json.loads(row[f"metrics_{side}"]) for side in "ab")
    names = [name for name in before if name in after and (not tolerance or name in SMOOTH)]
    other = [name for name in names if not _close(before[name], after[name], tolerance)]
    return ", ".join(f"{name} {_apart(before[name], after[name])}" for name in other)


def _apart(before: float, after: float) -> str:
    """Four digits, or all where four do not tell them apart."""
    short = f"{before:.4g}", f"{after:.4g}"
    return " -> ".join(short if short[0] != short[1] else (repr(before), repr(after)))


def _own_scores(pairs: pd.DataFrame, b: Side) -> Iterator[Finding]:
    """Scores of `b` that are not what its own stored predictions give; looked at where something differs."""
    moved = _differs(pairs, "predictions") | _differs(pairs, "metrics")
    for row in pairs[moved & pairs["metric_b"].isin(ITEM_MEANS)].to_dict("records"):
        arrays = b.arrays(row["path_b"])
        if arrays is not None and not _close(float(arrays["per_item"].mean()), row["value_b"], 1e-9):
            mean = float(arrays["per_item"].mean())
            text = f"{row['metric_b']} {row['value_b']:.4g} is not that of its stored predictions, {mean:.4g}"
            yield _of(row, "score", text)


# comparing columns ---------------------------------------------------------------------------------------------------


def _loaded(pairs: pd.DataFrame, a: Side, b: Side) -> Iterator[tuple[Arrays, Arrays]]:
    for row in pairs.itertuples():
        one, other = a.arrays(row.path_a), b.arrays(row.path_b)
        if one is not None and other is not None:
            yield one, other


def _same_items(one: Arrays, other: Arrays) -> bool:
    return bool(len(one["items"]) == len(other["items"]) and (one["items"] == other["items"]).all())


def _differs(pairs: pd.DataFrame, name: str) -> pd.Series:
    """Where a column differs between the sides; both empty is no difference."""
    before, after = pairs[f"{name}_a"], pairs[f"{name}_b"]
    return (before.ne(after).fillna(True) & ~(before.isna() & after.isna())).astype(bool)


def _any(pairs: pd.DataFrame, names: Iterable[str]) -> pd.Series:
    import pandas as pd

    found = pd.Series(False, index=pairs.index)
    for name in names:
        found |= _differs(pairs, name)
    return found


def _unequal(row: dict[str, Any], name: str) -> bool:
    before, after = row[f"{name}_a"], row[f"{name}_b"]
    return bool(before != after and not (_empty(before) and _empty(after)))


def _change(row: dict[str, Any], name: str) -> str:
    before, after = (_shown(row[f"{name}_{side}"]) for side in "ab")
    return f"{before} -> {after}"


def _shown(value: Any) -> str:
    if _empty(value):
        return "none"
    return f"{int(value)}" if isinstance(value, float) and value.is_integer() else str(value)


def _empty(value: Any) -> bool:
    return value is None or value != value


def _close(before: float, after: float, tolerance: float) -> bool:
    return before == after or abs(before - after) <= tolerance * max(abs(before), abs(after))
