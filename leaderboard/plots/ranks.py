"""Mean ranks, and bars that join methods of which no pair differs: a critical-difference diagram, set upright.

The idea is Demsar's (2006, JMLR 7, 1-30); what decides here is the board's paired tests instead of Nemenyi's distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...bench.ranking import SIGNIFICANCE
from ..board import Board, Pair, Ranking, Standing
from .style import Theme, group_of, look, shown, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, BAR = 0.27, 0.12  # inches


def draw(board: Board, theme: Theme, suite_id: str, compute: str) -> Figure:
    from matplotlib import pyplot

    suite = next(suite for suite in board.suites if suite.id == suite_id)
    ranking = next(r for r in suite.rankings if r.compute == compute and r.budget is None)
    methods = {member.name: member.method for member in suite.contenders}
    found = by_mean_rank(ranking)
    bars = together([standing.name for standing in found], ranking.pairs)
    size = (5.4 + BAR * len(bars), 1.0 + ROW * max(len(found), 3))
    figure, (axes, side) = pyplot.subplots(1, 2, figsize=size, sharey=True, width_ratios=(5.0, 0.4 + BAR * len(bars)))
    for row, standing in enumerate(found):
        colour, marker = look(theme, group_of(board, methods[standing.name]))
        axes.plot([0, standing.mean_rank], [row, row], color=theme.faint, linewidth=1)
        axes.plot(standing.mean_rank, row, marker, color=colour, markersize=6.5)
        axes.annotate(f"{standing.mean_rank:.2f}", (standing.mean_rank or 0, row), (8, 0),
                      textcoords="offset points", va="center", fontsize=8, color=theme.quiet)  # fmt: skip
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_yticks(range(len(found)))
    axes.set_yticklabels([shown(standing.name) for standing in found], color=theme.ink)
    last = max((standing.mean_rank or 1 for standing in found), default=1)
    axes.set_xlim(1 - 0.02 * last, last * 1.12 + 0.2)
    axes.set_xlabel(f"mean rank over {len(ranking.tasks)} tasks (1 is best)")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    for place, (first, last) in enumerate(bars):
        side.plot([place, place], [first - 0.2, last + 0.2], color=theme.ink, linewidth=3.2, solid_capstyle="round")
    side.set_xlim(-1, max(len(bars), 1))
    side.axis("off")
    note = "a bar joins methods of which no pair differs significantly" if bars else "every pair differs significantly"
    title(axes, f"{shown(suite.name)}: mean ranks ({compute})", note, theme)
    figure.subplots_adjust(wspace=0.04)
    return figure


def by_mean_rank(ranking: Ranking) -> list[Standing]:
    """Those with a rank, best first."""
    known = [standing for standing in ranking.standings if standing.mean_rank is not None]
    return sorted(known, key=lambda standing: (standing.mean_rank or 0.0, standing.name))


def together(order: Sequence[str], pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Longest runs (first, last) of the order in which no pair differs significantly; single methods are none."""
    differs: Mapping[frozenset[str], bool] = {
        frozenset((pair.a, pair.b)): pair.p_holm is not None and pair.p_holm < SIGNIFICANCE for pair in pairs
    }
    runs: list[tuple[int, int]] = []
    for first in range(len(order)):
        last = first
        while last + 1 < len(order) and not any(
            differs.get(frozenset((order[last + 1], order[place])), False) for place in range(first, last + 1)
        ):
            last += 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs
