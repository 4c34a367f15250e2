"""Every seed as a dot: a panel for each task, methods in rows, the 95% interval of the mean behind the dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..board import Board, Contender
from ..sheets import best_first
from .style import Theme, group_of, look, shown, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.27  # inches
FEW = 12  # methods; of more, panels stand in one row and are narrower


def draw(board: Board, theme: Theme, suite_id: str) -> Figure:
    from matplotlib import pyplot

    suite = next(suite for suite in board.suites if suite.id == suite_id)
    members = best_first(suite)
    across, width = (4, 2.1) if len(members) <= FEW else (8, 1.5)
    across = min(across, len(suite.tasks))
    down = -(-len(suite.tasks) // across)
    size = (1.6 + width * across, down * (0.85 + ROW * max(len(members), 3)))
    figure, grid = pyplot.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for axes, task in zip(panels, suite.tasks, strict=False):
        _panel(axes, board, theme, task, members)
    for axes in panels[len(suite.tasks) :]:
        axes.set_visible(False)
    panels[0].set_ylim(len(members) - 0.4, -0.6)
    panels[0].set_yticks(range(len(members)))
    panels[0].set_yticklabels([shown(member.name, 24) for member in members])
    for axes in panels:
        axes.tick_params(axis="y", labelcolor=theme.ink)
    figure.tight_layout(h_pad=1.4, w_pad=1.2)
    note = "dots are seeds, the bar is the 95% interval of the mean"
    title(panels[0], f"{shown(suite.name)}: every seed", note, theme, lift=14)
    return figure


def _panel(axes: Axes, board: Board, theme: Theme, task: str, members: Sequence[Contender]) -> None:
    about = board.tasks[task]
    for row, member in enumerate(members):
        entry = next(entry for entry in member.entries if entry.task == task)
        colour, _ = look(theme, group_of(board, member.method))
        if entry.interval is None:
            axes.text(0.02, row, entry.status, transform=axes.get_yaxis_transform(), va="center", fontsize=7,
                      color=theme.quiet)  # fmt: skip
            continue
        half = entry.interval.half_width or 0.0
        axes.plot([entry.interval.mean - half, entry.interval.mean + half], [row, row], color=colour, linewidth=5,
                  alpha=0.3, solid_capstyle="butt")  # fmt: skip
        axes.plot([entry.interval.mean] * 2, [row - 0.28, row + 0.28], color=colour, linewidth=1.4)
        seeds = [score.value for score in entry.scores if score.value is not None]
        axes.plot(seeds, [row] * len(seeds), "o", color=colour, markersize=3.6, markeredgecolor=theme.page,
                  markeredgewidth=0.5)  # fmt: skip
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    unit = f" ({about.unit})" if about.unit else f" ({about.metric.replace('_', ' ')})"
    arrow = "" if about.higher_is_better else ", lower is better"
    axes.set_title(f"{shown(task, 22)}{unit if about.unit != '%' else ''}{arrow}")
