"""Compare the cost profiles of two sides: what is counted exactly, what is timed by ratios.

Counted costs (the canonical ledger, operations, parameters, the adapter's file) depend on the code and on torch alone:
between profiles of one torch version they are equal or something changed.

Times are compared between profiles of one class of machine only, and never as seconds: each profile has timed the bare
backbone too, before and after the method in the same process, and a time counts in multiples of that. A change counts
when it is at least `LEAST` and the two ranges from p10 to p90 do not meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .environment import machine_class
from .findings import Finding

if TYPE_CHECKING:
    from .costs import CostProfile, Timing

LEAST = 0.10  # relative change of a time, in multiples of the bare backbone's, that matters
LEDGER = ("frozen_weights", "trained_weights", "gradients", "optimizer_state", "activations", "weight_copies", "peak")


def cost_facts(profile: CostProfile) -> dict[str, Any]:
    """A profile as one flat row of plain values: what it is about, `exact` counts, and `times` (p10, median, p90)."""
    subject = profile.subject
    exact: dict[str, int] = {}
    for ledger in profile.training:
        if ledger.form == "canonical":
            exact |= {f"ledger, {name.replace('_', ' ')}": getattr(ledger, name) for name in LEDGER}
    if profile.inference is not None:
        exact["ledger of inference, peak"] = profile.inference.peak
    if profile.operations is not None:
        found = profile.operations.model_dump()
        exact |= {f"operations, {name.replace('_', ' ')}": value for name, value in found.items() if value is not None}
    if profile.adapter_file_bytes is not None:
        exact["bytes of the adapter's file"] = profile.adapter_file_bytes
    where = profile.environment
    return {
        "method_name": subject.method.name,
        "method_version": subject.method.version,
        "backbone": subject.backbone.id,
        "key": profile.key,
        "status": profile.status,
        "torch": where.versions.get("torch"),
        "machine": machine_class(where),
        "exact": exact,
        "times": _relative_times(profile),
    }


def compare_costs(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What changed in the costs from `a` to `b` (rows of `cost_facts`), for subjects that both have."""
    before: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in a:
        before.setdefault((row["method_name"], row["backbone"]), []).append(row)
    for after in b:
        rows = before.get((after["method_name"], after["backbone"]), [])
        if rows:
            yield from _compared(max(rows, key=lambda row: _alike(row, after)), after)


def _alike(row: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[bool, ...]:
    """How well a row serves to be compared with `after`, best last."""
    return tuple(row[name] == after[name] for name in ("key", "torch", "machine"))


def _compared(row: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    place = (after["backbone"],), (after["method_name"],)
    if row["status"] == "ok" != after["status"]:
        yield Finding("costs", "regression", f"its profile ended with {after['status']}", *place)
        return
    if row["key"] != after["key"]:
        yield Finding("costs", "note", "the profiles are of different settings and were not compared", *place)
        return
    if row["torch"] == after["torch"]:
        declared = row["method_version"] != after["method_version"]
        for name in sorted(row["exact"].keys() | after["exact"].keys()):
            yield from _count(name, row["exact"].get(name), after["exact"].get(name), declared, place)
    if row["machine"] == after["machine"]:
        for name in row["times"].keys() & after["times"].keys():
            yield from _time(name, row["times"][name], after["times"][name], place)


def _count(name: str, before: int | None, after: int | None, declared: bool, place: Any) -> Iterator[Finding]:
    if before == after:
        return
    shown = " -> ".join("none" if value is None else f"{value:,}" for value in (before, after))
    better = before is not None and after is not None and after < before
    verdict = "declared" if declared else "improvement" if better else "regression"
    yield Finding("costs", verdict, f"{name} {shown}", *place)  # type: ignore[arg-type]


def _time(name: str, before: Sequence[float], after: Sequence[float], place: Any) -> Iterator[Finding]:
    change = after[1] / before[1] - 1
    apart = after[0] > before[2] or after[2] < before[0]
    if apart and abs(change) >= LEAST:
        text = f"{name} {before[1]:.2f} -> {after[1]:.2f} times the bare backbone's pass ({change:+.0%})"
        yield Finding("time", "regression" if change > 0 else "improvement", text, *place)


def _relative_times(profile: CostProfile) -> dict[str, list[float]]:
    """p10, median and p90 of each condition in multiples of the bare backbone's median for the same batch."""
    found: dict[str, list[float]] = {}
    for batch in (1, 32):
        bare = profile.timing("inference", batch, None)
        if bare is None:
            continue
        for name, timing in _conditions(profile, batch):
            if timing is not None:
                found[name] = [value / bare.median for value in (timing.p10, timing.median, timing.p90)]
    return found


def _conditions(profile: CostProfile, batch: int) -> Iterable[tuple[str, Timing | None]]:
    yield f"inference, batch {batch}", profile.timing("inference", batch, False)
    yield f"inference merged, batch {batch}", profile.timing("inference", batch, True)
    if batch > 1:
        yield "train step", profile.timing("train step", profile.subject.batch)
