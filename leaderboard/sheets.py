"""Tables without a format: what the columns of suites and methods are, and the evidence each cell links to.

Links are written from the folder of the output: `records:` and `repository:` stand for the results folder and for the
repository, `page:` for another page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from . import board, wording
from .board import Board, Contender, Entry, Method, Ranking, Suite
from .escaping import slug


@dataclass(frozen=True)
class Cell:
    """`name`: as typed on a command line; `link`: to a place, see above; `links`: instead of text."""

    text: str
    kind: Literal["text", "number", "name"] = "text"
    link: str | None = None
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A table; `notes` belong under it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = field(default=())


def method_page(method: str) -> str:
    return f"page:methods/{slug(method)}/README.md"


def suite_page(suite: Suite) -> str:
    return f"page:suites/{suite.id}.md"


def standings(found: Board, suite: Suite, ranking: Ranking) -> Sheet:
    """A ranking with intervals and shared ranks, and what its methods train."""
    titles = list(dict.fromkeys(title for standing in ranking.standings for title in standing.means))
    metric = found.tasks[ranking.tasks[0]].metric
    members = {contender.name: contender for contender in suite.contenders}
    rows = []
    for standing in ranking.standings:
        member = members[standing.name]
        means = [Cell(wording.interval(standing.means.get(title), metric), "number") for title in titles]
        rows.append(
            (
                Cell(wording.rank(standing, ranking), "number"),
                Cell(standing.name, "name", method_page(member.method)),
                *means,
                Cell(wording.number(standing.mean_rank), "number"),
                Cell(wording.number(standing.win_rate), "number"),
                Cell(trainable(member), "number"),
                Cell(standing.seeds, "number"),
            )
        )
    head = ("rank", "method", *titles, "mean rank", "win rate", "trainable", "seeds")
    return Sheet(wording.ranking_title(ranking), head, tuple(rows), tuple(_ranking_notes(ranking)))


def _ranking_notes(ranking: Ranking) -> Iterator[str]:
    yield from ranking.notes
    if ranking.lacking:
        yield f"no result yet on {', '.join(ranking.lacking)}: no part of means and ranks"
    for standing in ranking.standings:
        if standing.failed:
            yield f"{standing.name}: {standing.failed}"


def trainable(member: Contender) -> str:
    """Parameters the method trains, head aside; a range where tasks differ."""
    counts = [entry.trainable for entry in member.entries if entry.trainable is not None]
    ends = sorted({min(counts), max(counts)}) if counts else []
    return " to ".join(wording.count(end) for end in ends) or wording.NOT_MEASURED


def scores(found: Board, suite: Suite) -> Sheet:
    """Methods in rows, tasks in columns; cells without a score say why."""
    rows = []
    for member in best_first(suite):
        cells = [Cell(wording.entry(entry, found.tasks_metric(entry.task)), "number") for entry in member.entries]
        rows.append((Cell(member.name, "name", method_page(member.method)), *cells))
    return Sheet("Scores by task", ("method", *suite.tasks), tuple(rows), tuple(_metric_notes(found, suite)))


def best_first(suite: Suite) -> list[Contender]:
    """The contenders in the order of the rankings; those in none at the end."""
    order = [standing.name for ranking in suite.rankings for standing in ranking.standings]
    place = {name: number for number, name in enumerate(order)}
    return sorted(suite.contenders, key=lambda member: place.get(member.name, len(place)))


def _metric_notes(found: Board, suite: Suite) -> Iterator[str]:
    for metric in dict.fromkeys(found.tasks_metric(task) for task in suite.tasks):
        named = [task for task in suite.tasks if found.tasks_metric(task) == metric]
        task = found.tasks.get(named[0])
        way = "higher" if task is None or task.higher_is_better else "lower"
        unit = " in %" if task is not None and task.unit == "%" else ""
        yield f"{metric.replace('_', ' ')}{unit}, {way} is better: {', '.join(named)}"
    yield "± is the half-width of the 95% interval over the recorded seeds and the test items"


def absent(suite: Suite) -> Sheet:
    """Every cell that has no score, or lacks seeds, and why."""
    rows = [
        (Cell(member.name, "name"), Cell(entry.task), Cell(entry.status), Cell(entry.reason or _default(entry)))
        for member in suite.contenders
        for entry in member.entries
        if entry.status != "ok"
    ]
    return Sheet("Cells without a full score", ("method", "task", "status", "why"), tuple(rows))


def _default(entry: Entry) -> str:
    return board.STATUS_MEANING[entry.status]


def of_method(found: Board, method: Method) -> Iterator[Sheet]:
    """The results of a method in one arena after the other, in the fixed order of columns."""
    head: tuple[str, ...] = (
        "name",
        "task",
        "backbone",
        "protocol",
        "trainable",
        "shipped",
        "ledger peak",
        "peak RSS",
        "step",
    )
    head = (*head, "latency, batch 1", "score", "drift", "config", "record", "log", "mark")
    for suite in found.suites:
        rows = tuple(
            _result(found, suite, member, entry, method)
            for member in suite.contenders
            if member.method == method.id
            for entry in member.entries
            if entry.status != "missing"
        )
        if rows:
            yield Sheet(f"{suite.name} ({wording.machine_line(suite)})", head, rows, tuple(_result_notes(found, suite)))


def _result(found: Board, suite: Suite, member: Contender, entry: Entry, method: Method) -> tuple[Cell, ...]:
    cost = None if entry.cost is None else found.costs[entry.cost]
    step = None if cost is None else cost.timing("train step", cost.batch)
    latency = None if cost is None else cost.timing("inference", 1, False)
    record = tuple((f"seed {score.seed}", f"records:{score.record}") for score in entry.scores)
    log = (("loss", f"page:methods/{slug(method.id)}/log.csv"),) if any(s.curve for s in entry.scores) else ()
    config = (("recipe", f"repository:{method.recipe}"),) if method.recipe else ()
    return (
        Cell(member.name, "name"),
        Cell(entry.task),
        Cell(entry.backbone),
        Cell(f"{suite.protocol} v{suite.protocol_version}"),
        Cell(wording.count(entry.trainable), "number"),
        Cell(wording.size(entry.shipped_bytes), "number"),
        Cell(wording.size(None if cost is None else cost.ledger_peak), "number"),
        Cell(wording.size(None if cost is None else cost.train_peak_rss), "number"),
        Cell(wording.milliseconds(step), "number"),
        Cell(wording.milliseconds(latency), "number"),
        Cell(wording.entry(entry, found.tasks_metric(entry.task)), "number"),
        Cell(wording.number(entry.drift, 3), "number"),
        Cell("", links=config),
        Cell("", links=record),
        Cell("", links=log),
        Cell(wording.mark(entry.scores)),
    )


def _result_notes(found: Board, suite: Suite) -> Iterator[str]:
    machines = sorted({found.costs[e.cost].machine for c in suite.contenders for e in c.entries if e.cost is not None})
    yield from (f"costs measured on {machine}" for machine in machines)


def settings(found: Board, method: Method) -> Sheet:
    """The recorded hyper-parameters of a method's names, once for each backbone and set of values."""
    kinds: dict[tuple[str, str, str], tuple[board.Setting, ...]] = {}
    for suite in found.suites:
        for member in suite.contenders:
            for entry in member.entries if member.method == method.id else ():
                key = (member.name, entry.backbone, repr([(one.name, one.value) for one in entry.settings]))
                kinds.setdefault(key, entry.settings)
    rows = [
        (
            Cell(name, "name"),
            Cell(backbone),
            Cell(one.name),
            Cell(_value(one.value), "name"),
            Cell(one.layer or ""),
            Cell(_source(one)),
        )
        for (name, backbone, _), settings_of in kinds.items()
        for one in settings_of
    ]
    return Sheet("Settings", ("name", "backbone", "hyper-parameter", "value", "layer", "source"), tuple(rows))


def _value(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _source(setting: board.Setting) -> str:
    return setting.source or "as recorded; today's recipe has another value, or does not know the name"


def beside(found: Board, suite: Suite, table: board.Published) -> Sheet:
    """A published table with our mean next to each method that is the same."""
    ours = {s.name: (s, r) for r in suite.rankings if r.budget is None for s in r.standings}
    metric = found.tasks_metric(suite.tasks[0])
    rows = []
    for row in sorted(table.rows, key=lambda row: -row.mean):
        standing, _ = ours.get(row.method or "", (None, None))
        mean = None if standing is None else standing.means.get("mean")
        name = Cell(row.method, "name", method_page(row.method)) if row.method and standing else Cell("")
        mine = Cell(wording.interval(mean, metric, "incomplete" if standing else ""), "number")
        rows.append((Cell(row.label), Cell(f"{row.mean:.2f}", "number"), Cell(row.parameters, "number"), name, mine))
    head = (f"{table.suite}, as published", "mean", "parameters", f"in {suite.name}", "mean here")
    notes = (f"Published: {table.citation}. {table.setting}", table.caveat)
    return Sheet(f"Beside published numbers: {table.title}", head, tuple(rows), notes)


def published_for(found: Board, suite: Suite) -> Sequence[board.Published]:
    """Published tables that a suite is shown beside."""
    return [table for table in found.published if suite.name.split("-")[0] == table.beside]
