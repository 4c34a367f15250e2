"""What methods cost, how much a wrong learning rate costs them, and which cells have no score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from . import sheets, wording
from .board import STATUS_MEANING, Board, Contender, Cost, Entry, Suite
from .escaping import markdown
from .report_blocks import amount, bullets, counted, name_cell, names, number_cell, table, unit
from .sensitivity import FARTHEST, NEAREST, Neighbour, Sensitivity, sensitivities
from .sheets import Cell, Sheet

FEW_NAMES = 6  # in a cell of a table
FEW_LINES = 10


def cost_blocks(found: Board, suite: Suite) -> Iterator[str]:
    """Parameters and bytes from the records, memory and time from the profiles."""
    yield "### What each method costs"
    profiled = [c.name for c in suite.contenders if any(e.cost is not None for e in c.entries)]
    yield f"{len(profiled)} of {counted(len(suite.contenders), 'method')} have a cost profile (`bench profile`)."
    rows = [_cost_row(found, member) for member in sheets.best_first(suite)]
    head = ("method", "trainable", "shipped", "ledger peak", "training step")
    yield table(Sheet("", head, tuple(rows), tuple(_cost_notes(found, suite))))


def _cost_row(found: Board, member: Contender) -> tuple[Cell, ...]:
    def profiles(figure: Callable[[Cost], float | None]) -> Iterator[float | None]:
        return (figure(found.costs[entry.cost]) for entry in member.entries if entry.cost is not None)

    return (
        name_cell(member.name),
        number_cell(sheets.trainable(member)),
        number_cell(_range((entry.shipped_bytes for entry in member.entries), wording.size)),
        number_cell(_range(profiles(lambda cost: cost.ledger_peak), wording.size)),
        number_cell(_range(profiles(_step), lambda value: f"{1000 * value:,.1f} ms")),
    )


def _step(cost: Cost) -> float | None:
    timing = cost.timing("train step", cost.batch)
    return None if timing is None else timing.median


def _range(values: Iterable[float | None], text: Callable[[Any], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return wording.NOT_MEASURED
    return " to ".join(text(value) for value in sorted({min(known), max(known)}))


def _cost_notes(found: Board, suite: Suite) -> Iterator[str]:
    costs = [found.costs[e.cost] for member in suite.contenders for e in member.entries if e.cost is not None]
    yield "trainable: without the head; shipped: of the file that a user would publish; ranges where tasks differ"
    if costs:
        yield f"ledger and step time measured on {'; '.join(sorted({cost.machine for cost in costs}))}"
    busy = sorted({cost.name for cost in costs if cost.busy})
    if busy:
        yield f"the machine did other work meanwhile, so times are worth little: {', '.join(busy)}"


# tuning ---------------------------------------------------------------------------------------------------------------


def sensitivity_blocks(found: Board, protocol: str, version: int) -> Iterator[str]:
    """What a learning rate costs that is off by a factor of about three, from the tuning trials."""
    yield f"## How much the learning rate matters ({markdown(protocol)} version {version})"
    rows, others = sensitivities(found, protocol, version)
    if not rows and not others:
        yield "No tuning trials are recorded."
        return
    for backbone in dict.fromkeys(row.backbone for row in rows):
        here = [row for row in rows if row.backbone == backbone]
        yield f"### {markdown(backbone)}"
        yield bullets(_sensitivity_lines(found, here))
        yield _sensitivity_table(found, here)
    if others:
        yield f"Not shown, since their trials vary no learning rate or are on tasks without results: {names(others)}."


def _sensitivity_lines(found: Board, rows: Sequence[Sensitivity]) -> Iterator[str]:
    counted_in = unit(found, rows[0].tasks)
    known = [row for row in rows if row.best is not None]
    for side in ("lower", "higher"):
        beside = [(row.name, one) for row in known if (one := getattr(row, side)) is not None]
        losses = [one.loss for _, one in beside if one.loss is not None]
        failed = [name for name, one in beside if one.loss is None]
        if losses:
            yield (
                f"A {side} rate costs {amount(statistics.median(losses), counted_in)} in the median of "
                f"{counted(len(losses), 'method')} and {amount(max(losses), counted_in)} at most; training fails there "
                f"for {names(failed)}."
            )
    ends = [row.name for row in known if row.at_end]
    yield f"The best rate is at an end of those tried, so a better one may lie outside: {names(ends)}."
    unknown = [row.name for row in rows if row.best is None]
    if unknown:
        yield f"No rate has a score on every tuning task: {names(unknown)}."


def _sensitivity_table(found: Board, rows: Sequence[Sensitivity]) -> str:
    digits = 1 if unit(found, rows[0].tasks) == "points" else 3
    body = [
        (
            name_cell(row.name),
            number_cell(f"{row.best:g}"),
            number_cell(f"{row.score:.{digits}f}"),
            number_cell(_loss(row.lower, digits)),
            number_cell(_loss(row.higher, digits)),
        )
        for row in rows
        if row.best is not None and row.score is not None
    ]
    head = ("method", "best rate", "score there", "loss at a lower rate", "loss at a higher rate")
    tasks = dict.fromkeys(task for row in rows for task in row.tasks)
    notes = (
        f"held-out part of the training split, mean over {', '.join(tasks)}; most sensitive first",
        f"beside a loss: the factor to the best rate, of those between {NEAREST:g} and {FARTHEST:g} the nearest to 3",
        "the best of several trials is chosen on the items it is scored on, which makes losses look larger",
    )
    return table(Sheet("", head, tuple(body), notes))


def _loss(one: Neighbour | None, digits: int) -> str:
    if one is None:
        return "no trial"
    text = "failed" if one.loss is None or math.isnan(one.loss) else f"{one.loss:.{digits}f}"
    return f"{text} (x{one.factor:.2g})"


# cells without a score ------------------------------------------------------------------------------------------------


def missing_blocks(suite: Suite) -> Iterator[str]:
    """Every cell without a full score, grouped by the reason, and what was set aside."""
    yield "### Failures and missing cells"
    groups: dict[tuple[str, str], list[tuple[str, Entry]]] = {}
    for member in suite.contenders:
        for entry in member.entries:
            if entry.status != "ok":
                why = entry.reason or STATUS_MEANING[entry.status]
                groups.setdefault((entry.status, why), []).append((member.name, entry))
    if not groups:
        yield "Every cell of every method here has a score for every seed that was run."
    else:
        rows = [
            (Cell(status), number_cell(str(len(cells))), Cell(why), *_places(cells))
            for (status, why), cells in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1])))
        ]
        yield table(Sheet("", ("status", "cells", "why", "methods", "tasks"), tuple(rows)))
    if suite.set_aside:
        shown = [markdown(line) for line in suite.set_aside[:FEW_LINES]]
        more = len(suite.set_aside) - len(shown)
        yield "Records set aside:\n\n" + bullets([*shown, *([f"and {more} more such lines"] if more else [])])


def _places(cells: Sequence[tuple[str, Entry]]) -> Iterator[Cell]:
    for found in ([name for name, _ in cells], [entry.task for _, entry in cells]):
        several = list(dict.fromkeys(found))
        more = len(several) - FEW_NAMES
        yield Cell(", ".join(several[:FEW_NAMES]) + (f" and {more} more" if more > 0 else ""))
