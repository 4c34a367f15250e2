"""How a method's cells are run again, and which of them today's code would not repeat."""

from __future__ import annotations

from dataclasses import dataclass

from . import today
from .board import Board, Entry, Method


@dataclass(frozen=True)
class Reproduction:
    """`moved`: tasks whose cells are others with today's recipe, method or protocol; `commits`: where those ran."""

    commands: tuple[str, ...]
    moved: tuple[str, ...]
    commits: tuple[str, ...]


def reproduction(board: Board, method: Method) -> Reproduction:
    """One command for all tasks of a suite that were recorded with the same seeds."""
    commands: dict[str, None] = {}
    moved: dict[str, None] = {}
    commits: set[str] = set()
    for suite in board.suites:
        for member in suite.contenders:
            known = [entry for entry in member.entries if entry.scores and member.method == method.id]
            for seeds in dict.fromkeys(_seeds(entry) for entry in known):
                tasks = ",".join(entry.task for entry in known if _seeds(entry) == seeds)
                commands[today.command(suite.protocol, member.name, tasks, seeds)] = None
            changed = [entry for entry in known if entry.same_cell is False]
            moved |= dict.fromkeys(entry.task for entry in changed)
            commits |= {commit[:12] for entry in changed for commit in entry.commits}
    return Reproduction(tuple(commands), tuple(moved), tuple(sorted(commits)))


def _seeds(entry: Entry) -> tuple[int, ...]:
    return tuple(score.seed for score in entry.scores)
