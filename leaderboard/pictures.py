"""Which pictures there are: name, words and what draws each. Loads no plotting library.

A picture is three files: `<path>-light.png`, `<path>-dark.png`, and `<path>.svg` for papers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .board import COSTS, Board, Suite, Tuning
from .escaping import slug


@dataclass(frozen=True)
class Picture:
    """`draw`: "module:function" of `leaderboard.plots`, called with the board and `subject`."""

    path: str
    title: str
    caption: str
    draw: str
    subject: tuple[str, ...]
    width: int = 820  # pixels on a page


def every(board: Board) -> Iterator[Picture]:
    """Every picture of a board."""
    for suite in board.suites:
        yield from of_suite(board, suite)
        yield from of_tuning(board, suite)


def of_suite(board: Board, suite: Suite) -> list[Picture]:
    """Quality against parameters first: it says most at a glance."""
    return [*_pareto(suite), *_scores(suite), *_ranks(suite), *_learning(suite)]


def _pareto(suite: Suite) -> Iterator[Picture]:
    measured = {t.cost for ranking in suite.rankings if ranking.budget is None for t in ranking.tradeoffs}
    lower = "" if any(s.means for r in suite.rankings for s in r.standings) else " (in standard deviations of items)"
    for cost, (title, _) in COSTS.items():
        if cost in measured:
            yield Picture(
                f"plots/{suite.id}-pareto-{cost.replace('_', '-')}",
                f"{suite.name}: quality against {title}",
                f"Mean score{lower} against {title}, with 95% intervals. The line is the Pareto front of the methods "
                "that train with equal steps; hollow marks are ranked apart.",
                "pareto:draw",
                (suite.id, cost),
            )


def _scores(suite: Suite) -> Iterator[Picture]:
    yield Picture(
        f"plots/{suite.id}-heat-map",
        f"{suite.name}: methods and tasks",
        "Colour is the place between the task's worst and best method; the number is the score. Hatched cells have no "
        "score, with the reason in words and in the table of cells without a full score.",
        "heat_map:draw",
        (suite.id,),
    )
    if any(member.entries for member in suite.contenders):
        yield Picture(
            f"plots/{suite.id}-seeds",
            f"{suite.name}: every seed",
            "Dots are seeds, the bar is the 95% interval of the mean.",
            "seeds:draw",
            (suite.id,),
        )


def _ranks(suite: Suite) -> Iterator[Picture]:
    for ranking in suite.rankings:
        if len(ranking.standings) > 1 and ranking.budget is None:
            yield Picture(
                f"plots/{suite.id}-ranks-{slug(ranking.compute)}",
                f"{suite.name}: mean ranks and what cannot be told apart ({ranking.compute})",
                "Mean rank over the tasks. A bar joins methods of which no pair differs significantly (paired tests, "
                "Holm over all pairs, 5%).",
                "ranks:draw",
                (suite.id, ranking.compute),
            )


def _learning(suite: Suite) -> Iterator[Picture]:
    if any(score.curve for member in suite.contenders for entry in member.entries for score in entry.scores):
        yield Picture(
            f"plots/{suite.id}-learning",
            f"{suite.name}: training loss",
            "Training loss, mean over seeds, of the methods that rank first; the others are grey.",
            "curves:draw_suite",
            (suite.id,),
        )


def tunings_of(board: Board, suite: Suite) -> list[Tuning]:
    """The trials that chose hyper-parameters for a suite: of its protocol, on its tasks, from any machine."""
    wanted = (suite.protocol, suite.protocol_version)
    return [one for one in board.tuning if one.task in suite.tasks and (one.protocol, one.protocol_version) == wanted]


def of_tuning(board: Board, suite: Suite) -> list[Picture]:
    """One picture with a panel for each method."""
    if not tunings_of(board, suite):
        return []
    return [
        Picture(
            f"plots/{suite.id}-tuning",
            f"{suite.name}: tuning trials",
            "Score on the held-out part of the training split for each trial. A ring marks the value that the recipe "
            "has today; crosses failed.",
            "curves:draw_tuning",
            (suite.id,),
        )
    ]
