"""Tables of the site: what is read, what it is sorted by, and what filters ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .. import sheets, wording
from ..board import COSTS, Board, Contender, Entry, Interval, Ranking, Standing, Suite
from ..escaping import slug

Way = Literal["ascending", "descending"]
SHADES = 9  # steps of the heat map's colour, as in style.css


@dataclass(frozen=True)
class Whisker:
    """An interval on the scale of its table, 0 to 100."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Cell:
    """`sort`: None stands at the end whichever way a table is sorted; `look`: classes of the style sheet; `link`: an
    anchor of the page."""

    text: str
    sort: float | None = None
    whisker: Whisker | None = None
    look: str = ""
    link: str | None = None


@dataclass(frozen=True)
class Row:
    """One contender; `mark`: who vouches for its records."""

    name: str
    title: str
    method: str
    category: str
    mark: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """`best`: the way in which a column's best comes first, for each column."""

    id: str
    title: str
    head: tuple[str, ...]
    best: tuple[Way, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    budget: str


def standings(board: Board, suite: Suite, ranking: Ranking) -> Table:
    """A ranking: means with intervals, ranks, and what the methods cost."""
    titles = list(dict.fromkeys(title for standing in ranking.standings for title in standing.means))
    metric = board.tasks[ranking.tasks[0]].metric
    way: Way = "descending" if board.tasks[ranking.tasks[0]].higher_is_better else "ascending"
    known = {trade.cost: {p.name: p.cost for p in trade.points} for trade in ranking.tradeoffs}
    costs = [cost for cost in ("ledger_peak", "seconds_step") if known.get(cost)]
    members = {member.name: member for member in suite.contenders}
    scale = _scale([standing.means.get("mean") for standing in ranking.standings])
    rows = []
    for standing in ranking.standings:
        member = members[standing.name]
        means = [_mean(standing.means.get(title), metric, scale if title == "mean" else None) for title in titles]
        priced = [_cost(known[cost].get(standing.name)) for cost in costs]
        cells = (_rank(standing, ranking), *means, *_places(standing), _trainable(member), *priced)
        rows.append(_row(board, member, (*cells, Cell(standing.seeds), _vouched(member))))
    cost_heads = [f"{'memory' if cost == 'ledger_peak' else 'step'}, {COSTS[cost][1]}" for cost in costs]
    head = ("rank", *titles, "mean rank", "win rate", "trainable", *cost_heads, "seeds", "records by")
    best: list[Way] = ["ascending", *[way] * len(titles), "ascending", "descending", "ascending"]
    best += [*["ascending"] * len(costs), "descending", "ascending"]  # type: ignore[list-item]
    notes = sheets.standings(board, suite, ranking).notes
    place = "-".join(filter(None, (suite.id, ranking.compute, ranking.budget)))
    return Table(
        id=slug(place).replace("=", "-").replace(".", "-"),
        title=wording.ranking_title(ranking),
        head=head,
        best=tuple(best),
        rows=tuple(rows),
        notes=notes,
        budget=ranking.budget or "own",
    )


def scores(board: Board, suite: Suite) -> Table:
    """Methods in rows, tasks in columns, shaded from each task's worst score to its best."""
    sheet = sheets.scores(board, suite)
    members = sheets.best_first(suite)
    ends = [_ends([member.entries[place] for member in members]) for place in range(len(suite.tasks))]
    higher = [board.tasks[task].higher_is_better for task in suite.tasks]
    rows = []
    for member in members:
        cells = [
            _score(entry, board.tasks_metric(entry.task), limits, up)
            for entry, limits, up in zip(member.entries, ends, higher, strict=True)
        ]
        rows.append(_row(board, member, tuple(cells)))
    best: list[Way] = ["descending" if up else "ascending" for up in higher]
    return Table("scores", sheet.title, suite.tasks, tuple(best), tuple(rows), sheet.notes, "")


def _row(board: Board, member: Contender, cells: tuple[Cell, ...]) -> Row:
    method = board.methods[member.method]
    return Row(
        name=member.name,
        title=method.title,
        method=method.id,
        category=method.category,
        mark=_mark(member),
        cells=cells,
    )


def _mark(member: Contender) -> str:
    return wording.mark(tuple(score for entry in member.entries for score in entry.scores))


def _vouched(member: Contender) -> Cell:
    mark = _mark(member)
    order = ("maintainers", "verified", "self-reported")
    return Cell(mark, float(order.index(mark)) if mark in order else None, look=f"mark {mark}")


def _rank(standing: Standing, ranking: Ranking) -> Cell:
    return Cell(wording.rank(standing, ranking), None if standing.rank is None else float(standing.rank))


def _mean(found: Interval | None, metric: str, scale: tuple[float, float] | None) -> Cell:
    text = wording.interval(found, metric)
    if found is None:
        return Cell(text, look="absent")
    return Cell(text, found.mean, None if scale is None else _whisker(found, scale))


def _places(standing: Standing) -> Iterator[Cell]:
    for value in (standing.mean_rank, standing.win_rate):
        yield Cell(wording.number(value), value)


def _trainable(member: Contender) -> Cell:
    counts = [entry.trainable for entry in member.entries if entry.trainable is not None]
    return Cell(sheets.trainable(member), float(max(counts)) if counts else None)


def _cost(value: float | None) -> Cell:
    return Cell(wording.NOT_MEASURED, look="absent") if value is None else Cell(f"{value:,.1f}", value)


def _scale(found: Sequence[Interval | None]) -> tuple[float, float]:
    """The span of all intervals of a column."""
    known = [(one.mean - (one.half_width or 0), one.mean + (one.half_width or 0)) for one in found if one is not None]
    low, high = min((low for low, _ in known), default=0.0), max((high for _, high in known), default=1.0)
    return low, max(high, low + 1e-9)


def _whisker(found: Interval, scale: tuple[float, float]) -> Whisker:
    half = found.half_width or 0.0
    low, middle, high = (
        round(100 * (value - scale[0]) / (scale[1] - scale[0]), 1)
        for value in (found.mean - half, found.mean, found.mean + half)
    )
    return Whisker(low, middle, high)


def _ends(entries: Sequence[Entry]) -> tuple[float, float]:
    means = [entry.interval.mean for entry in entries if entry.interval is not None]
    return (min(means), max(means)) if means else (0.0, 0.0)


def _score(entry: Entry, metric: str, ends: tuple[float, float], higher: bool) -> Cell:
    text = wording.entry(entry, metric)
    if entry.interval is None:
        return Cell(text, look=f"hatched {entry.status}", link="#absent")
    share = 0.5 if ends[0] == ends[1] else (entry.interval.mean - ends[0]) / (ends[1] - ends[0])
    shade = round((share if higher else 1 - share) * (SHADES - 1))
    return Cell(text, entry.interval.mean, look=f"shade-{shade}", link=None if entry.status == "ok" else "#absent")
