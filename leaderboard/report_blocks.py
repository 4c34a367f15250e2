"""Parts of a report in Markdown: tables, lists of names, amounts. Every name and text comes out inert."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .board import Board
from .escaping import code, markdown
from .sheets import Cell, Sheet

STANDARD_DEVIATIONS = "standard deviations of the test items"


def table(sheet: Sheet) -> str:
    """A table without its title and without links, its notes under it."""
    right = [all(row[place].kind == "number" for row in sheet.rows) for place in range(len(sheet.head))]
    lines = [[markdown(title) for title in sheet.head], ["---:" if one else "---" for one in right]]
    lines += [[code(cell.text) if cell.kind == "name" else markdown(cell.text) for cell in row] for row in sheet.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(filter(None, (body, bullets(markdown(note) for note in sheet.notes))))


def bullets(lines: Iterable[str]) -> str:
    """Of lines that are inert already."""
    return "\n".join(f"- {line}" for line in lines)


def names(found: Sequence[str]) -> str:
    """`a`, `b` and `c`; none where there is none."""
    if not found:
        return "none"
    marked = [code(name) for name in found]
    return marked[0] if len(marked) == 1 else f"{', '.join(marked[:-1])} and {marked[-1]}"


def some(found: Sequence[str], most: int) -> str:
    """As `names`, the first `most` of them and the number of the others."""
    more = len(found) - most
    return names(found) if more <= 1 else f"{', '.join(map(code, found[:most]))} and {more} more"


def counted(number: int, one: str, several: str | None = None) -> str:
    """`1 pair`, `2 pairs`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def unit(found: Board, tasks: Sequence[str]) -> str:
    """What a difference of means over these tasks counts in."""
    metrics = {found.tasks_metric(task) for task in tasks}
    if len(metrics) > 1:
        return STANDARD_DEVIATIONS
    return "points" if found.tasks[tasks[0]].unit == "%" else metrics.pop().replace("_", " ")


def amount(value: float, counted_in: str, half_width: float | None = None) -> str:
    """`1.24 points`, `1.24 ± 0.50 points`; four digits for units that run from 0 to about 1."""
    digits = 2 if counted_in == "points" else 4
    half = "" if half_width is None else f" ± {half_width:.{digits}f}"
    return f"{value:.{digits}f}{half} {markdown(counted_in)}"


def name_cell(name: str) -> Cell:
    return Cell(name, "name")


def number_cell(text: str) -> Cell:
    return Cell(text, "number")
