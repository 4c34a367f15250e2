"""Quality against a cost, with error bars and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..board import COSTS, Board, Suite, TradeoffPoint
from .labels import place_labels
from .style import Theme, group_of, in_order, look, shown, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 16  # methods that all get a label; of more, those on the front and those ranked apart


@dataclass(frozen=True)
class _Mark:
    point: TradeoffPoint
    group: str
    apart: bool  # of another compute class than equal steps


def draw(board: Board, theme: Theme, suite_id: str, cost: str) -> Figure:
    from matplotlib import pyplot

    suite = next(suite for suite in board.suites if suite.id == suite_id)
    marks = list(_marks(board, suite, cost))
    figure, axes = pyplot.subplots(figsize=(7.6, 4.9))
    axes.grid(visible=True)
    _scale(axes, [mark.point.cost for mark in marks], cost)
    _front(axes, [mark for mark in marks if not mark.apart], theme)
    for mark in marks:
        _dot(axes, mark, theme)
    lower = not board.tasks[suite.tasks[0]].higher_is_better and bool(_one_metric(suite))
    if lower:
        axes.invert_yaxis()
    axes.set_ylabel(_y_label(board, suite))
    name, unit = COSTS[cost]
    axes.set_xlabel(f"{name}, {unit}" if unit else name)
    title(axes, f"{shown(suite.name)}: quality against {name}", _note(suite, cost), theme)
    _legend(axes, marks, theme)
    figure.canvas.draw()
    labels = [(shown(mark.point.name, 24), mark.point.cost, mark.point.quality) for mark in _labelled(marks)]
    place_labels(axes, labels, [(mark.point.cost, mark.point.quality) for mark in marks], theme)
    return figure


def _marks(board: Board, suite: Suite, cost: str) -> Iterator[_Mark]:
    methods = {member.name: member.method for member in suite.contenders}
    for ranking in suite.rankings:
        for tradeoff in ranking.tradeoffs:
            if ranking.budget is None and tradeoff.cost == cost:
                for point in tradeoff.points:
                    yield _Mark(point, group_of(board, methods[point.name]), ranking.compute != "equal-steps")


def _labelled(marks: Sequence[_Mark]) -> list[_Mark]:
    return [mark for mark in marks if len(marks) <= FEW or mark.apart or mark.point.on_front]


def _scale(axes: Axes, values: Sequence[float], cost: str) -> None:
    """Logarithmic; methods that train nothing stand at a zero of their own."""
    positive = [value for value in values if value > 0]
    if cost == "trainable" and positive and len(positive) < len(values):
        smallest = 10 ** int(f"{min(positive):e}".partition("e")[2])
        axes.set_xscale("symlog", linthresh=smallest, linscale=0.6)
        decades = [smallest * 10**power for power in range(10) if smallest * 10**power < 3 * max(positive)]
        axes.set_xticks([0, *decades])
        axes.set_xlim(-0.25 * smallest, max(positive) * 3)
    elif positive:
        axes.set_xscale("log")
        axes.set_xlim(min(positive) / 2, max(positive) * 3)
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))


def _short(value: float) -> str:
    """`10k`, `1M`: counts and sizes on an axis."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _front(axes: Axes, marks: Sequence[_Mark], theme: Theme) -> None:
    front = sorted((mark.point for mark in marks if mark.point.on_front), key=lambda point: point.cost)
    if len(front) > 1:
        xs, ys = [point.cost for point in front], [point.quality for point in front]
        axes.step(xs, ys, where="post", color=theme.quiet, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)


def _dot(axes: Axes, mark: _Mark, theme: Theme) -> None:
    colour, marker = look(theme, mark.group)
    axes.errorbar(
        mark.point.cost,
        mark.point.quality,
        yerr=mark.point.half_width,
        fmt=marker,
        color=colour,
        markersize=6.5,
        markerfacecolor=theme.page if mark.apart else colour,
        markeredgewidth=1.4,
        elinewidth=1.2,
        capsize=2.5,
        alpha=0.45 if mark.point.clearly_off else 1.0,
        zorder=3,
    )


def _legend(axes: Axes, marks: Sequence[_Mark], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for group in in_order(mark.group for mark in marks):
        colour, marker = look(theme, group)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", label=group))
    if any(mark.apart for mark in marks):
        handles.append(
            Line2D(
                [], [], color=theme.quiet, marker="o", markerfacecolor=theme.page, linestyle="", label="ranked apart"
            )
        )
    if any(mark.point.clearly_off for mark in marks):
        handles.append(Line2D([], [], color=theme.quiet, marker="o", alpha=0.45, linestyle="", label="clearly beaten"))
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, labelcolor=theme.ink)


def _one_metric(suite: Suite) -> bool:
    return any(standing.means for ranking in suite.rankings for standing in ranking.standings)


def _y_label(board: Board, suite: Suite) -> str:
    task = board.tasks[suite.tasks[0]]
    if not any(standing.means.get("mean") for r in suite.rankings for standing in r.standings):
        return "mean over tasks, in standard deviations of items"
    unit = f", {task.unit}" if task.unit else ""
    return f"mean {task.metric.replace('_', ' ')} over {len(suite.rankings[0].tasks)} tasks{unit}"


def _note(suite: Suite, cost: str) -> str:
    where = next(
        (t.machine for r in suite.rankings for t in r.tradeoffs if t.cost == cost and t.machine), suite.machine
    )
    return shown(f"95% intervals; {where}", 110)
