"""One look for all pictures: the colours of Okabe and Ito (2008), which colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..board import Board
from ..escaping import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    page: str
    ink: str
    faint: str  # grid lines and what is not in focus
    quiet: str  # notes and ticks
    series: tuple[str, ...]


LIGHT = Theme(
    page="#ffffff",
    ink="#1f2328",
    faint="#d5d9de",
    quiet="#59636e",
    series=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7a5195", "#8c6d31"),
)
DARK = Theme(
    page="#0d1117",
    ink="#e6edf3",
    faint="#30363d",
    quiet="#9198a1",
    series=("#56B4E9", "#FF8A3D", "#2FC79A", "#E79BC6", "#F0B93A", "#A5D8F3", "#B79AD6", "#C9A95C"),
)
MARKERS = ("o", "s", "^", "D", "P", "X", "v", "h")
GROUPS = (
    "reparameterized",
    "additive",
    "selective",
    "hybrid",
    "efficiency",
    "application",
    "beyond",
    "baseline",
)


def styled(theme: Theme) -> AbstractContextManager[None]:
    """A context in which figures are drawn for a theme."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    context: AbstractContextManager[None] = pyplot.rc_context(
        {
            "figure.facecolor": theme.page,
            "axes.facecolor": theme.page,
            "axes.edgecolor": theme.quiet,
            "axes.labelcolor": theme.ink,
            "axes.titlecolor": theme.ink,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.linewidth": 0.8,
            "grid.color": theme.faint,
            "grid.linewidth": 0.7,
            "text.color": theme.ink,
            "xtick.color": theme.quiet,
            "ytick.color": theme.quiet,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "axes.labelsize": 9,
            "font.size": 8.5,
            "font.family": "DejaVu Sans",
            "legend.frameon": False,
            "svg.hashsalt": "peft-atlas",
            "hatch.linewidth": 0.5,
        }
    )
    return context


def shown(name: str, longest: int = 34) -> str:
    """A name that fits a figure."""
    plain = one_line(name)
    fitting = plain if len(plain) <= longest else f"{plain[: longest - 1]}…"
    return fitting.replace("$", r"\$")  # or matplotlib would set a pair of them as mathematics


def group_of(board: Board, method: str) -> str:
    """The group of the taxonomy that a method's mark stands for."""
    return board.methods[method].category.partition("/")[0]


def look(theme: Theme, group: str) -> tuple[str, str]:
    """Colour and marker of a group; those not known here share the last."""
    place = GROUPS.index(group) if group in GROUPS else len(GROUPS) - 1
    return theme.series[place], MARKERS[place]


def in_order(groups: Iterable[str]) -> list[str]:
    """Groups as legends list them."""
    return sorted(set(groups), key=lambda group: GROUPS.index(group) if group in GROUPS else len(GROUPS))


def title(axes: Axes, text: str, note: str, theme: Theme, lift: int = 0) -> None:
    """A figure's heading above its axes and a quiet line under it, `lift` points higher where a panel has a title."""
    for line, height, look in (
        (text, 26, {"fontsize": 12, "weight": "bold"}),
        (note, 11, {"fontsize": 8.5, "color": theme.quiet}),
    ):
        place = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(line, (0, 1), (0, height + lift), **place, **look)  # type: ignore[arg-type]
