"""The result table of a run: methods in rows, tasks in columns, `value ± 95% half-width`, failures by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .moderation import task_estimates
from .plan import Plan
from .records import Cell, Record
from .registry import registry
from .statistics import Estimate, Seeds, suite_estimate
from .store import Store
from .text_table import text_table

PERCENT = {"accuracy", "macro_f1", "h", "base", "new"}  # metrics in 0..1 that are read as percentages
GAP = 2  # spaces between columns, as `text_table` sets them


@dataclass(frozen=True)
class Entry:
    """One method on one task, over the seeds asked for."""

    estimate: Estimate | None  # over the seeds that are ok; in percent for the metrics of `PERCENT`
    metric: str | None
    ok: int
    asked: int
    status: str  # "ok", the first failure's status, "missing", or "unsupported"
    items: Seeds = ()  # what the interval comes from, on the estimate's scale; empty where it is not stored

    def __str__(self) -> str:
        if self.estimate is None:
            return {"unsupported": "-", "missing": "?"}.get(self.status, self.status)
        text = value_text(self.estimate, self.metric)
        return text if self.ok == self.asked else f"{text} ({self.ok}/{self.asked})"


@dataclass(frozen=True)
class ResultTable:
    """Columns of text and the notes that belong under them."""

    methods: list[str]
    columns: list[tuple[str, list[str]]]
    notes: list[str] = field(default_factory=list)

    def text(self, width: int = 100) -> str:
        """The table; columns that do not fit `width` go to further blocks, no number is cut."""
        blocks: list[list[tuple[str, list[str]]]] = []
        room = 0
        names = max(len(name) for name in [*self.methods, "method"])
        for title, values in self.columns:
            size = max(len(title), *map(len, values)) + GAP
            if not blocks or size > room:
                blocks.append([])
                room = width - names
            blocks[-1].append((title, values))
            room -= size
        parts = [_block(self.methods, block) for block in blocks]
        return "\n\n".join([*parts, "\n".join(self.notes)] if self.notes else parts)


def result_table(plan: Plan, store: Store) -> ResultTable:
    """Read the current records of a plan's cells and lay them out."""
    records = {cell.key: store.current(cell) for cell in plan.cells}
    by_place: dict[tuple[str, str], list[Cell]] = {}
    for cell in plan.cells:
        by_place.setdefault((cell.method.name, cell.task.id), []).append(cell)
    impossible = {(cell.method.name, cell.task.id) for cell, _ in plan.unsupported}
    places = {*by_place, *impossible}
    methods = [name for name in plan.methods if any((name, task) in places for task in plan.tasks)]
    entries = {
        (name, task): entry_of(
            [records[cell.key] for cell in by_place.get((name, task), [])], store, (name, task) in impossible
        )
        for name in methods
        for task in plan.tasks
    }
    for name in methods:
        entries |= with_intervals({place: entry for place, entry in entries.items() if place[0] == name})
    columns = [(task, [str(entries[name, task]) for name in methods]) for task in plan.tasks]
    columns += _suite_means(plan, methods, entries)
    columns += _parameter_columns(plan, methods, records)
    notes = [*_metric_notes(entries), *_notes(plan, records)]
    return ResultTable(methods, [(title, _aligned(values)) for title, values in columns], notes)


def entry_of(found: Sequence[Record | None], store: Store, impossible: bool = False) -> Entry:
    """One method on one task from the records of its seeds; None for a seed without one. See `with_intervals`."""
    if impossible:
        return Entry(None, None, 0, 0, "unsupported")
    good = [record for record in found if record is not None and record.primary is not None and record.status == "ok"]
    bad: list[str] = [record.status for record in found if record is not None and record.status != "ok"]
    status = "ok" if len(good) == len(found) and good else (bad or ["missing"])[0]
    if not good or good[0].primary is None:
        return Entry(None, None, 0, len(found), status)
    estimate, items = _estimate(good, store)
    return Entry(estimate, good[0].primary.name, len(good), len(found), status, items)


def _estimate(records: Sequence[Record], store: Store) -> tuple[Estimate, Seeds]:
    """Mean of the recorded scores, and the stored items, brought to the metric's scale."""
    scores = [record.primary.value for record in records if record.primary is not None]
    metric = records[0].primary.name if records[0].primary else ""
    factor = 100.0 if metric in PERCENT else 1.0
    mean = sum(scores) / len(scores)
    arrays = [store.predictions(record) for record in records]
    items = [array["per_item"] for array in arrays if array is not None and "per_item" in array]
    if len(items) < len(records) or len({len(item) for item in items}) != 1:
        return Estimate(factor * mean, None), ()
    raw = sum(float(item.mean()) for item in items) / len(items)
    scale = mean / raw if raw else 1.0
    return Estimate(factor * mean, None), [factor * scale * item for item in items]


def with_intervals(row: Mapping[tuple[str, str], Entry]) -> dict[tuple[str, str], Entry]:
    """One method's entries with the intervals that its tasks of one metric give together, see `moderation`."""
    found = dict(row)
    for metric in {entry.metric for entry in row.values()}:
        places = [place for place, entry in row.items() if entry.metric == metric and len(entry.items)]
        for place, estimate in zip(places, task_estimates([row[place].items for place in places]), strict=True):
            mean = row[place].estimate
            assert mean is not None, "items come with a score"
            found[place] = replace(row[place], estimate=replace(estimate, mean=mean.mean))
    return found


def value_text(estimate: Estimate, metric: str | None) -> str:
    """`86.6 ± 3.0` for percentages, three decimals otherwise."""
    digits = 1 if metric in PERCENT else 3
    text = f"{estimate.mean:.{digits}f}"
    return text if estimate.half_width is None else f"{text} ± {estimate.half_width:.{digits}f}"


def _suite_means(
    plan: Plan, methods: Sequence[str], entries: Mapping[tuple[str, str], Entry]
) -> list[tuple[str, list[str]]]:
    """A column for each suite asked for in full, where one metric serves all its tasks."""
    columns, done = [], set()
    for suite in plan.protocol.suites.values():
        tasks = [task for task in suite.tasks if task in plan.tasks]
        metrics = {registry("tasks").card(task).metric for task in tasks}
        if len(tasks) < max(2, len(suite.tasks)) or len(metrics) != 1 or suite.name in done:
            continue
        done.add(suite.name)
        metric = metrics.pop()
        values = []
        for name in methods:
            row = [entries[name, task] for task in tasks]
            estimates = [entry.estimate for entry in row if entry.estimate is not None and entry.ok == entry.asked]
            complete = len(estimates) == len(row)
            values.append(value_text(_suite_mean(row, estimates), metric) if complete else "incomplete")
        columns.append((f"{suite.name} mean", values))
    return columns


def _suite_mean(row: Sequence[Entry], estimates: Sequence[Estimate]) -> Estimate:
    """Of the estimates of a row's entries."""
    mean = sum(estimate.mean for estimate in estimates) / len(estimates)
    if not all(entry.items for entry in row):
        return Estimate(mean, None)
    return replace(suite_estimate([entry.items for entry in row]), mean=mean)


def _parameter_columns(
    plan: Plan, methods: Sequence[str], records: Mapping[str, Record | None]
) -> list[tuple[str, list[str]]]:
    """Trainable parameters of the method and, apart, of the head; ranges where tasks differ."""
    columns = []
    for title, attribute in (("trainable", "adapter"), ("head", "head")):
        values = []
        for name in methods:
            found = [records[cell.key] for cell in plan.cells if cell.method.name == name]
            counts = {getattr(r.parameters, attribute) for r in found if r is not None and r.parameters is not None}
            spread = sorted({min(counts), max(counts)}) if counts else []
            values.append("..".join(f"{count:,}" for count in spread) or "?")
        columns.append((title, values))
    return columns


def _metric_notes(entries: Mapping[tuple[str, str], Entry]) -> list[str]:
    """What the numbers are; tasks are named where metrics differ."""
    tasks: dict[str, dict[str, None]] = {}
    for (_, task), entry in entries.items():
        if entry.metric is not None:
            tasks.setdefault(entry.metric, {})[task] = None
    names = {metric: metric.replace("_", " ") + (" in %" if metric in PERCENT else "") for metric in tasks}
    if len(tasks) < 2:
        return list(names.values())
    return ["; ".join(f"{names[metric]}: {', '.join(found)}" for metric, found in tasks.items())]


def _notes(plan: Plan, records: Mapping[str, Record | None]) -> list[str]:
    notes = []
    known = [record for record in records.values() if record is not None]
    if any(record.status == "ok" for record in known):
        several = len({cell.seed for cell in plan.cells}) > 1
        covers = "seeds and test items" if several else "the sampling of test items, not of seeds (one seed)"
        notes.append(f"± half-width of the 95% interval over {covers}; trainable parameters without the head")
    different = sorted({r.cell.task.id for r in known if r.data is not None and r.data.matches_card is False})
    if different:
        notes.append(f"the data are not those of the task's card: {', '.join(different)}")
    return [*notes, *_failure_lines(known), *unsupported_lines(plan)]


def _failure_lines(records: Sequence[Record]) -> list[str]:
    """One line for each method and kind of failure."""
    places: dict[str, list[str]] = {}
    for record in records:
        if record.status != "ok" and record.error is not None:
            what = f"{record.cell.method.name}: {record.status} in {record.phase}: {_first_line(record.error.message)}"
            places.setdefault(what, []).append(f"{record.cell.task.id} seed {record.cell.seed}")
    return [f"{what} ({', '.join(found)})" for what, found in places.items()]


def unsupported_lines(plan: Plan) -> list[str]:
    """One line for each method and reason."""
    tasks: dict[tuple[str, str], dict[str, None]] = {}
    for cell, reason in plan.unsupported:
        tasks.setdefault((cell.method.name, reason), {})[cell.task.id] = None
    return [f"unsupported: {name} x {', '.join(found)}: {reason}" for (name, reason), found in tasks.items()]


def _aligned(values: Sequence[str]) -> list[str]:
    """Numbers under numbers: values to the right, words to the left."""
    width = max((len(value) for value in values), default=0)
    return [value.rjust(width) if value[:1].isdigit() or value[:1] == "-" else value.ljust(width) for value in values]


def _block(methods: Sequence[str], block: Sequence[tuple[str, Sequence[str]]]) -> str:
    rows = [[name, *values] for name, *values in zip(methods, *(values for _, values in block), strict=True)]
    return text_table(["method", *(title for title, _ in block)], rows)


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:160]
