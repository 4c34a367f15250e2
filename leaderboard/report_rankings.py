"""What a suite's rankings say: what can be told apart, against the baseline, at which cost, and as others published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..bench.agreement import FEWEST, ROUGH, Correlation, agreement
from ..bench.ranking import SIGNIFICANCE
from . import sheets, wording
from .board import COSTS, Board, Contender, Pair, Published, PublishedRow, Ranking, Suite, Tradeoff
from .comparisons import Comparer, Comparison
from .escaping import code, markdown
from .plots.ranks import together
from .report_blocks import amount, bullets, counted, name_cell, names, number_cell, some, table, unit
from .sheets import Sheet

BASELINE = "linear"
FEW_PAIRS = 10  # that are listed one by one


def ranking_blocks(found: Board, suite: Suite, ranking: Ranking) -> Iterator[str]:
    """A ranking's table, what it tells apart, and its Pareto fronts."""
    yield f"### {markdown(wording.ranking_title(ranking))}"
    sheet = sheets.standings(found, suite, ranking)
    yield table(replace(sheet, notes=()))
    several = sum(standing.rank is not None for standing in ranking.standings) > 1
    said = [*_told_apart(found, ranking), *_fronts(ranking)] if several else ["One method: nothing to compare it with."]
    yield bullets([*said, *map(markdown, sheet.notes)])


def _told_apart(found: Board, ranking: Ranking) -> Iterator[str]:
    ranked = [standing for standing in ranking.standings if standing.rank is not None]
    first = ranked[0].name
    alike = [_other(pair, first) for pair in ranking.pairs if first in (pair.a, pair.b) and not _clear(pair)]
    others = len(ranked) - 1
    yield (
        f"{code(first)} ranks first and is told apart from {others - len(alike)} of {counted(others, 'other')}; "
        f"not told apart from it: {names(alike)}."
    )
    counted_in = unit(found, ranking.tasks)
    yield from _unclear(ranking, [standing.name for standing in ranked], counted_in)
    visible = ranking.detectable
    if visible is None:
        yield "How large a difference could have been seen is not known: no two methods have all cells with items."
    else:
        yield (
            f"As the only comparison, a true difference of {amount(visible.alone, counted_in)} would be found in 80% "
            f"of repetitions; at the first step of Holm's procedure over {counted(visible.pairs, 'pair')}, one of "
            f"{amount(visible.among_all, counted_in)} (variance pooled over the pairs). Smaller ones can hide behind a "
            "shared rank."
        )


def _unclear(ranking: Ranking, order: Sequence[str], counted_in: str) -> Iterator[str]:
    """Which pairs cannot be told apart: one by one where they are few, else the longest runs of the order."""
    unclear = [pair for pair in ranking.pairs if not _clear(pair)]
    line = f"Pairs told apart: {len(ranking.pairs) - len(unclear)} of {len(ranking.pairs)}"
    if len(unclear) <= FEW_PAIRS:
        listed = [_difference(pair, counted_in) for pair in unclear]
        yield f"{line}. Not told apart: {'; '.join(listed) or 'none'}."
    else:
        runs = [names(order[low : high + 1]) for low, high in together(order, ranking.pairs)]
        yield f"{line}. Neighbours in the order of which no pair is told apart: {'; '.join(runs) or 'none'}."


def _fronts(ranking: Ranking) -> Iterator[str]:
    measured = {tradeoff.cost: tradeoff for tradeoff in ranking.tradeoffs}
    for cost, (title, cost_unit) in COSTS.items():
        tradeoff = measured.get(cost)
        yield f"Quality against {title}: {'not measured' if tradeoff is None else _front(tradeoff, cost_unit)}."


def _front(tradeoff: Tradeoff, cost_unit: str) -> str:
    front = [point for point in tradeoff.points if point.on_front]
    told = [f"{code(p.name)} ({f'{p.cost:,.0f} {cost_unit}'.strip()}: {p.quality:.4g})" for p in front]
    off = [point.name for point in tradeoff.points if point.clearly_off]
    lacking = f"; cost or mean not known: {some(tradeoff.lacking, 8)}" if tradeoff.lacking else ""
    clear = f"; clearly off it, since a method that is no dearer is significantly better: {names(off)}" if off else ""
    return f"on the Pareto front, cheapest first, {', '.join(told)}{clear}{lacking}"


# against the baseline -------------------------------------------------------------------------------------------------


def baseline_blocks(suite: Suite, comparer: Comparer) -> Iterator[str]:
    """Every method against the linear probe on the same items."""
    yield f"### Against the baseline {code(BASELINE)}"
    baseline = next((member for member in suite.contenders if member.name == BASELINE), None)
    found = [] if baseline is None else comparer.against(baseline)
    if not found:
        yield f"No task has a full score of both {code(BASELINE)} and another method, so nothing can be said."
        return
    known = sorted((one for one in found if one.difference is not None), key=_by_metric)
    better = [one.b for one in known if one.better == one.b]
    worse = [one.b for one in known if one.better == one.a]
    unclear = [one.b for one in known if one.better is None]
    lost = [one.b for one in found if one.difference is None]
    whole = counted(len(known), "comparison")
    line = f"Of {whole} on the tasks that both have in full (paired by item, adjusted by Holm over all), "
    line += f"{len(better)} are better than {code(BASELINE)}, {len(worse)} are worse ({names(worse)}), "
    line += f"{len(unclear)} cannot be told apart from it ({names(unclear)})."
    yield line + (f" Scored on other test items or without stored ones: {names(lost)}." if lost else "")
    yield table(_baseline_sheet(suite, known, comparer))


def _baseline_sheet(suite: Suite, known: Sequence[Comparison], comparer: Comparer) -> Sheet:
    rows = []
    for one in known:
        assert one.difference is not None
        half = one.difference.half_width
        digits = 1 if unit(comparer.found, one.tasks) == "points" else 3
        text = f"{one.difference.mean:+.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")
        verdict = {one.b: "better", one.a: "worse"}.get(one.better or "", "not told apart")
        p = "none" if one.p_holm is None else f"{one.p_holm:.2g}"
        tasks = number_cell(f"{len(one.tasks)} of {len(suite.tasks)}")
        metric = sheets.Cell(one.metric.replace("_", " "))
        rows.append((name_cell(one.b), metric, number_cell(text), tasks, number_cell(p), sheets.Cell(verdict)))
    head = ("method", "metric", f"better than {BASELINE} by", "tasks", "p (Holm)", "")
    return Sheet("", head, tuple(rows))


def _by_metric(one: Comparison) -> tuple[str, float]:
    return one.metric, -(one.difference.mean if one.difference is not None else 0.0)


# as others published --------------------------------------------------------------------------------------------------


def published_blocks(found: Board, suite: Suite, comparer: Comparer) -> Iterator[str]:
    """How far the order agrees with each published table that the suite is shown beside."""
    for published in sheets.published_for(found, suite):
        yield f"### Beside {markdown(published.title)}"
        yield f"{markdown(published.citation)}. {markdown(published.setting)} {markdown(published.caveat)}"
        yield from _agreement(found, suite, published, comparer)


def _agreement(found: Board, suite: Suite, published: Published, comparer: Comparer) -> Iterator[str]:
    members = {c.name: c for c in suite.contenders}
    both = [(row, members[row.method]) for row in published.rows if row.method in members]
    tasks = [t for place, t in enumerate(suite.tasks) if any(c.entries[place].status == "ok" for _, c in both)]
    shared = [(row, c) for row, c in both if all(e.status == "ok" for e in c.entries if e.task in tasks)]
    absent = [row.method for row in published.rows if row.method and row.method not in {c.name for _, c in shared}]
    lost = f" Published, but without a full score here: {names(absent)}." if absent else ""
    metrics = {found.tasks_metric(task) for task in tasks}
    if len(shared) < FEWEST or len(metrics) != 1:
        why = "several metrics" if len(metrics) > 1 else counted(len(shared), "method")
        yield f"Nothing can be concluded from {why} in both; at least {FEWEST} methods and one metric are needed.{lost}"
        return
    higher = found.tasks[tasks[0]].higher_is_better
    ours = [_mean(member, tasks) for _, member in shared]
    agreed = agreement([mean if higher else -mean for mean in ours], [row.mean for row, _ in shared])
    number = f"{len(shared)} methods are in both, compared on {counted(len(tasks), 'task')} here."
    rough = f" With fewer than {ROUGH} methods such intervals cover less than they say." if len(shared) < ROUGH else ""
    if agreed is None:
        yield f"{number} One side has the same score for all of them, so the orders cannot be compared.{lost}"
        return
    yield (
        f"{number} Kendall's tau-b is {_correlation(agreed.tau)}, Spearman's rho {_correlation(agreed.rho)}. Intervals "
        f"are bootstrapped over methods, p is from permutations.{rough}{lost}"
    )
    yield from _pairs(shared, comparer)
    yield table(_order_sheet(shared, ours, higher))


def _pairs(shared: Sequence[tuple[PublishedRow, Contender]], comparer: Comparer) -> Iterator[str]:
    """Whether the pairs that are told apart here have the published order."""
    published = {member.name: row.mean for row, member in shared}
    found = comparer.among([member for _, member in shared])
    clear = [one for one in found if one.better is not None]
    contrary = [one for one in clear if published[_loser(one)] > published[one.better or ""]]
    listed = [f"{code(one.better or '')} above {code(_loser(one))}" for one in contrary]
    yield (
        f"Of {counted(len(found), 'pair')} of these methods, {len(clear) - len(contrary)} are told apart here in the "
        f"published order, {len(contrary)} in the contrary one ({'; '.join(listed) or 'none'}), and "
        f"{len(found) - len(clear)} cannot be told apart here."
    )


def _order_sheet(shared: Sequence[tuple[PublishedRow, Contender]], ours: Sequence[float], higher: bool) -> Sheet:
    from scipy.stats import rankdata

    published_places = rankdata([-row.mean for row, _ in shared])
    own_places = rankdata([-mean if higher else mean for mean in ours])
    places = zip(published_places, own_places, shared, ours, strict=True)
    rows = [
        (
            name_cell(member.name),
            number_cell(f"{there:g}"),
            number_cell(f"{row.mean:.2f}"),
            number_cell(f"{here:g}"),
            number_cell(f"{mean:.2f}"),
        )
        for there, here, (row, member), mean in sorted(places, key=lambda place: float(place[0]))
    ]
    return Sheet("", ("method", "published place", "published mean", "place here", "mean here"), tuple(rows))


def _mean(member: Contender, tasks: Sequence[str]) -> float:
    means = [entry.interval.mean for entry in member.entries if entry.task in tasks and entry.interval is not None]
    return sum(means) / len(means)


def _correlation(one: Correlation) -> str:
    if one.low is None or one.high is None:
        return f"{one.value:.2f} (no interval, since resampling shows no spread; p {one.p:.2g})"
    return f"{one.value:.2f} (95% interval {one.low:.2f} to {one.high:.2f}; p {one.p:.2g})"


def _loser(one: Comparison) -> str:
    return one.a if one.better == one.b else one.b


def _clear(pair: Pair) -> bool:
    return pair.p_holm is not None and pair.p_holm < SIGNIFICANCE


def _other(pair: Pair, name: str) -> str:
    return pair.b if pair.a == name else pair.a


def _difference(pair: Pair, counted_in: str) -> str:
    """`a` above `b` by 1.20 ± 1.50 points."""
    above, below = (pair.b, pair.a) if pair.mean > 0 else (pair.a, pair.b)
    return f"{code(above)} above {code(below)} by {amount(abs(pair.mean), counted_in, pair.half_width)}"
