"""Methods and tasks: colour says how good, words say why there is no score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..board import Board, Contender, Suite
from ..sheets import best_first
from .style import Theme, shown, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = {"missing": "not run", "unsupported": "not possible"}
ROW, COLUMN = 0.3, 0.92  # inches
HATCH = {"missing": "", "unsupported": "////"}


def draw(board: Board, theme: Theme, suite_id: str) -> Figure:
    from matplotlib import pyplot

    suite = next(suite for suite in board.suites if suite.id == suite_id)
    members = best_first(suite)
    size = (2.0 + COLUMN * len(suite.tasks), 1.5 + ROW * len(members))
    figure, axes = pyplot.subplots(figsize=size)
    axes.set_xlim(0, len(suite.tasks))
    axes.set_ylim(len(members), 0)
    for column, task in enumerate(suite.tasks):
        _column(axes, board, theme, column, task, members)
    _frame(axes, board, suite, members, theme)
    return figure


def _column(axes: Axes, board: Board, theme: Theme, column: int, task: str, members: Sequence[Contender]) -> None:
    from matplotlib import colormaps

    found = [next(entry for entry in member.entries if entry.task == task) for member in members]
    values = [entry.interval.mean for entry in found if entry.interval is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    higher, digits = board.tasks[task].higher_is_better, 1 if board.tasks[task].unit == "%" else 3
    for row, entry in enumerate(found):
        if entry.interval is None:
            _empty(axes, theme, row, column, entry.status)
            continue
        share = (entry.interval.mean - low) / (high - low) if high > low else 1.0
        colour = colormaps["cividis"](share if higher else 1 - share)
        mark = "" if entry.status == "ok" else "*"
        _box(axes, row, column, facecolor=colour, edgecolor=theme.page)
        ink = "#10141a" if sum(colour[:3]) > 1.35 else "#ffffff"
        axes.text(column + 0.5, row + 0.5, f"{entry.interval.mean:.{digits}f}{mark}", color=ink, **_centre(8))


def _empty(axes: Axes, theme: Theme, row: int, column: int, status: str) -> None:
    """No score: hatched unless it was simply not run."""
    _box(axes, row, column, facecolor=theme.page, edgecolor=theme.faint, hatch=HATCH.get(status, "xxxx"))
    text = axes.text(column + 0.5, row + 0.5, WORDS.get(status, status), color=theme.quiet, **_centre(7))
    text.set_bbox({"facecolor": theme.page, "edgecolor": "none", "pad": 1})


def _box(axes: Axes, row: int, column: int, **look: Any) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((column, row), 1, 1, linewidth=1.2, **look))


def _centre(size: float) -> dict[str, Any]:
    return {"ha": "center", "va": "center", "fontsize": size}


def _frame(axes: Axes, board: Board, suite: Suite, members: Sequence[Contender], theme: Theme) -> None:
    axes.set_xticks([column + 0.5 for column in range(len(suite.tasks))])
    axes.set_xticklabels([_task_label(board, task) for task in suite.tasks], color=theme.ink)
    axes.set_yticks([row + 0.5 for row in range(len(members))])
    axes.set_yticklabels([shown(member.name) for member in members], color=theme.ink)
    axes.tick_params(length=0)
    axes.xaxis.tick_bottom()
    for side in axes.spines.values():
        side.set_visible(False)
    partial = any(e.status == "partial" for member in members for e in member.entries)
    note = "brighter is better within a task" + ("; * some seeds lack" if partial else "")
    title(axes, f"{shown(suite.name)}: methods and tasks", note, theme)


def _task_label(board: Board, task: str) -> str:
    """In two lines where the name is long."""
    group = board.tasks[task].group
    return "\n".join([*shown(task, 26).split("-", 1), *([f"({group})"] if group else [])])
