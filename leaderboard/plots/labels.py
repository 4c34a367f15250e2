"""Labels that do not lie on each other: each takes the first free place around its point, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .style import Theme

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

PLACES = [(8, 4), (8, -12), (-8, 6), (-8, -13), (0, 12), (0, -19), (12, 14), (12, -22), (-12, 16), (-12, -24)]


def place_labels(
    axes: Axes, labels: Sequence[tuple[str, float, float]], points: Sequence[tuple[float, float]], theme: Theme
) -> None:
    """(text, x, y) in data, clear of all `points`; the figure has been drawn once.

    A label without room is left out: the table has it.
    """
    figure = axes.get_figure()
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [_around(axes.transData.transform(point)) for point in points]
    for text, x, y in labels:
        for dx, dy in PLACES:
            side = "left" if dx > 0 else "right" if dx < 0 else "center"
            drawn = axes.annotate(
                text, (x, y), (dx, dy), textcoords="offset points", ha=side, fontsize=8.5, color=theme.ink, zorder=4
            )
            box = drawn.get_window_extent(renderer)
            if not any(box.overlaps(other) for other in taken) and axes.bbox.padded(14).contains(*box.min):
                taken.append(box)
                break
            drawn.remove()


def _around(centre: np.ndarray) -> Bbox:
    from matplotlib.transforms import Bbox

    x, y = centre
    return Bbox.from_extents(x - 6, y - 6, x + 6, y + 6)
