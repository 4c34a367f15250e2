"""How numbers read, the same in every format that people look at."""

from __future__ import annotations

from ..bench.statistics import Estimate
from ..bench.tables import value_text
from . import board

NOT_MEASURED = "not measured"
MIB = 2**20
_MARK = {"unsupported": "unsupported", "missing": "not run"}


def interval(value: board.Interval | None, metric: str, absent: str = "incomplete") -> str:
    """`86.6 ± 3.0`, with the digits of the metric."""
    return absent if value is None else value_text(Estimate(value.mean, value.half_width), metric)


def entry(found: board.Entry, metric: str) -> str:
    """A cell of a table of scores: the score, or what happened."""
    if found.interval is None:
        return _MARK.get(found.status, found.status)
    text = interval(found.interval, metric)
    scored = sum(score.value is not None for score in found.scores)
    return text if scored == len(found.scores) else f"{text} ({scored}/{len(found.scores)})"


def rank(standing: board.Standing, among: board.Ranking) -> str:
    """`1`, or `1=` where methods share it."""
    if standing.rank is None:
        return "none"
    shared = sum(other.rank == standing.rank for other in among.standings) > 1
    return f"{standing.rank}{'=' if shared else ''}{'*' if standing.imputed else ''}"


def count(number: int | None) -> str:
    return NOT_MEASURED if number is None else f"{number:,}"


def size(number: int | None) -> str:
    """Bytes in the largest unit that gives 1 or more."""
    if number is None:
        return NOT_MEASURED
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} B" if unit == "B" else f"{value:,.1f} {unit}"


def milliseconds(timing: board.Timing | None) -> str:
    """The median, with p10 and p90."""
    if timing is None:
        return NOT_MEASURED
    return f"{1000 * timing.median:,.1f} ms ({1000 * timing.p10:,.1f} to {1000 * timing.p90:,.1f})"


def number(value: float | None, digits: int = 2) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def mark(entry_scores: tuple[board.Score, ...]) -> str:
    """Who vouches for an entry: the weakest of its records' marks."""
    found = {score.mark for score in entry_scores}
    order: tuple[board.Mark, ...] = ("self-reported", "verified", "maintainers")
    return next((name for name in order if name in found), "")


def machine_line(suite: board.Suite) -> str:
    return f"protocol {suite.protocol} version {suite.protocol_version}; {suite.machine}"


def ranking_title(ranking: board.Ranking) -> str:
    names = {
        "equal-steps": "Equal steps",
        "own-budget": "Own budget: methods that set their own training length, ranked apart",
        "training-free": "Training-free methods, ranked apart",
        "unknown": "Methods whose recipe is not known here, ranked apart",
    }
    title = names.get(ranking.compute, ranking.compute)
    return title if ranking.budget is None else f"{title}, every method at a budget of {ranking.budget}"
