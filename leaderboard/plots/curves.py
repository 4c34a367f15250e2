"""Loss while training, and scores of tuning trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..board import Board, Contender, Entry, Suite, Tuning
from ..pictures import tunings_of
from ..sheets import best_first
from .style import Theme, shown, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 4  # panels in a row
FOCUS = 6  # methods with a colour


def draw_suite(board: Board, theme: Theme, suite_id: str) -> Figure:
    """The mean over seeds of every method, a panel for each task."""
    suite = _suite(board, suite_id)
    figure, panels = _panels(len(suite.tasks), 2.15, 1.75)
    members = [member for member in best_first(suite) if any(_has_curve(entry) for entry in member.entries)]
    focus = {member.name: theme.series[place] for place, member in enumerate(members[:FOCUS])}
    for axes, task in zip(panels, suite.tasks, strict=False):
        for member in reversed(members):
            _mean_curve(axes, _entry(member, task), focus.get(member.name, theme.faint), member.name)
        _loss_axes(axes, task)
    handles = [_line(colour, shown(name, 20)) for name, colour in focus.items()]
    if len(members) > FOCUS:
        handles.append(_line(theme.faint, f"{len(members) - FOCUS} others"))
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 0.92), labelcolor=theme.ink)
    return _headed(figure, panels, f"{shown(suite.name)}: training loss", "mean over seeds, logarithmic", theme)


def draw_tuning(board: Board, theme: Theme, suite_id: str) -> Figure:
    """A panel for each method and backbone, a line for each tuning task."""
    suite = _suite(board, suite_id)
    found = tunings_of(board, suite)
    places = list(dict.fromkeys((one.name, one.backbone) for one in found))
    tasks = list(dict.fromkeys(one.task for one in found))
    figure, panels = _panels(len(places), 2.15, 1.75)
    for axes, (name, backbone) in zip(panels, places, strict=False):
        for one in found:
            if (one.name, one.backbone) == (name, backbone):
                _trials(axes, one, theme.series[tasks.index(one.task)], theme)
        axes.grid(visible=True)
        axes.set_title(shown(name, 22) if len({b for _, b in places}) == 1 else f"{shown(name, 14)}, {backbone}")
    handles = [_line(theme.series[place], _task_label(board, task)) for place, task in enumerate(tasks)]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 0.92), labelcolor=theme.ink)
    note = "score on held-out training data; a ring marks today's recipe"
    return _headed(figure, panels, f"{shown(suite.name)}: tuning trials", note, theme)


def _task_label(board: Board, task: str) -> str:
    return shown(task, 20) if board.tasks[task].higher_is_better else f"{shown(task, 20)}\n(lower is better)"


def _trials(axes: Axes, one: Tuning, colour: str, theme: Theme) -> None:
    """Against the one value that varies; where several vary, against the number of the trial."""
    names = list(one.trials[0].values)
    numbers = [trial.values[names[0]] if len(names) == 1 else place for place, trial in enumerate(one.trials)]
    numeric = len(names) == 1 and all(isinstance(value, int | float) for value in numbers)
    xs = [float(value) if numeric else float(place) for place, value in enumerate(numbers)]
    known = [(x, trial) for x, trial in zip(xs, one.trials, strict=True) if trial.score is not None]
    axes.plot(
        [x for x, _ in known], [t.score or 0.0 for _, t in known], "o-", color=colour, markersize=3, linewidth=1.2
    )
    ring = [(x, trial.score or 0.0) for x, trial in known if trial.chosen]
    axes.plot([x for x, _ in ring], [y for _, y in ring], "o", color=colour, markersize=8, markerfacecolor="none")
    lost = [x for x, trial in zip(xs, one.trials, strict=True) if trial.score is None]
    axes.plot(lost, [0.04] * len(lost), "x", color=theme.quiet, transform=axes.get_xaxis_transform(), markersize=5)
    if numeric and min(xs) > 0 and max(xs) / min(xs) > 8:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel({"lr": "learning rate"}.get(names[0], names[0]) if len(names) == 1 else "trial", fontsize=8)


def _suite(board: Board, suite_id: str) -> Suite:
    return next(suite for suite in board.suites if suite.id == suite_id)


def _entry(member: Contender, task: str) -> Entry:
    return next(entry for entry in member.entries if entry.task == task)


def _has_curve(entry: Entry) -> bool:
    return any(score.curve for score in entry.scores)


def _panels(number: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib import pyplot

    across = max(1, min(ACROSS, number))
    down = max(1, -(-number // across))
    size = (0.6 + max(width * across, 3.6), 0.5 + height * down)
    figure, grid = pyplot.subplots(down, across, figsize=size, squeeze=False)
    panels = list(grid.flat)
    for axes in panels[number:]:
        axes.set_visible(False)
    return figure, panels


def _mean_curve(axes: Axes, entry: Entry, colour: str, name: str) -> None:
    """Of the seeds that ran as long as most."""
    curves = [score.curve for score in entry.scores if score.curve]
    steps = [score.steps for score in entry.scores if score.curve]
    if not curves:
        return
    usual = max(sorted(set(steps)), key=steps.count)
    mean = np.mean([curve for curve, number in zip(curves, steps, strict=True) if number == usual], axis=0)
    axes.plot(_steps(mean, usual), mean, color=colour, linewidth=1.3, label=name)


def _steps(curve: Sequence[float] | np.ndarray, steps: int) -> np.ndarray:
    """The middle of each span."""
    return (np.arange(len(curve)) + 0.5) * steps / len(curve)


def _loss_axes(axes: Axes, task: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True)
    axes.set_title(shown(task, 24))
    axes.set_xlabel("step", fontsize=8)


def _line(colour: str, label: str) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=2, label=label)


def _headed(figure: Figure, panels: Sequence[Axes], text: str, note: str, theme: Theme) -> Figure:
    """With room for the heading above the first panel's own title."""
    figure.tight_layout(h_pad=1.2, w_pad=1.0)
    title(panels[0], text, note, theme, lift=14)
    return figure
