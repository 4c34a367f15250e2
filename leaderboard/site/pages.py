"""The pages: what each template gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import sheets, wording
from ..board import COSTS, STATUS_MEANING, Board, Entry, Method, Suite
from ..citation import bibtex
from ..pictures import tunings_of
from ..places import Places
from ..plots.style import in_order
from ..reproduction import reproduction
from . import kernels, links, tables
from .links import Here
from .templates import environment


def files(board: Board, places: Places) -> dict[str, bytes]:
    """Path in the site -> content of every page."""
    providers, measured = kernels.comparisons(kernels.MEASURED)
    site = {
        "board": board,
        "wording": wording,
        "method_page": links.method_page,
        "suite_page": links.suite_page,
        "suite_data": links.suite_data,
        "has_kernels": bool(measured),
    }
    found: dict[str, bytes] = {}
    for path, template, content in _pages(board):
        found[path] = _page(path, template, places, {**site, **content})
    if measured:
        content = {"providers": providers, "comparisons": measured}
        found["kernels.html"] = _page("kernels.html", "kernels", places, {**site, **content})
    return found


def _page(path: str, template: str, places: Places, content: dict[str, Any]) -> bytes:
    text = environment().get_template(f"{template}.html").render(here=Here(path, places), **content)
    return text.encode()


def _pages(board: Board) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, template and content."""
    yield "index.html", "index", _index(board)
    yield "methods.html", "methods", {"groups": _groups(board)}
    yield "compare.html", "compare", {}
    if board.releases:
        yield "releases.html", "releases", {}
    for suite in board.suites:
        yield links.suite_page(suite), "suite", _suite(board, suite)
    for method in board.methods.values():
        yield links.method_page(method.id), "method", _method(board, method)


def _index(board: Board) -> dict[str, Any]:
    suites = [
        {
            "suite": suite,
            "families": sorted({board.tasks[task].family for task in suite.tasks}),
            "tables": [tables.standings(board, suite, ranking) for ranking in suite.rankings],
        }
        for suite in board.suites
    ]
    names = [table for one in suites for table in one["tables"]]  # type: ignore[attr-defined]
    return {
        "suites": suites,
        "groups": _groups(board),
        "families": sorted({family for one in suites for family in one["families"]}),  # type: ignore[attr-defined]
        "budgets": sorted({table.budget for table in names} - {"own"}),
        "machines": sorted({suite.machine for suite in board.suites}),
    }


def _groups(board: Board) -> list[str]:
    return in_order(method.category.partition("/")[0] for method in board.methods.values())


def _suite(board: Board, suite: Suite) -> dict[str, Any]:
    found = [tables.standings(board, suite, ranking) for ranking in suite.rankings]
    statuses = dict.fromkeys(e.status for member in suite.contenders for e in member.entries if e.status != "ok")
    compared = {trade.cost for ranking in suite.rankings for trade in ranking.tradeoffs}
    return {
        "suite": suite,
        "protocol": board.protocols[f"{suite.protocol}@{suite.protocol_version}"],
        "tables": found,
        "groups": _groups(board),
        "budgets": sorted({table.budget for table in found} - {"own"}),
        "scores": tables.scores(board, suite),
        "shades": range(tables.SHADES),
        "absent": sheets.absent(suite),
        "statuses": [(status, STATUS_MEANING[status]) for status in statuses],
        "published": [sheets.beside(board, suite, table) for table in sheets.published_for(board, suite)],
        "costs": [cost for cost in COSTS if cost in compared],
        "cost_titles": {cost: title for cost, (title, _) in COSTS.items()},
        "computes": list(dict.fromkeys(ranking.compute for ranking in suite.rankings if ranking.budget is None)),
        "tuned": sorted({one.name for one in tunings_of(board, suite)}),
        "scored": _having(suite, lambda entry: entry.interval is not None),
        "trained": _having(suite, lambda entry: any(score.curve for score in entry.scores)),
    }


def _having(suite: Suite, fact: Callable[[Entry], bool]) -> list[str]:
    """Tasks with an entry of which a fact holds."""
    entries = [entry for member in suite.contenders for entry in member.entries]
    return [task for task in suite.tasks if any(entry.task == task and fact(entry) for entry in entries)]


def _method(board: Board, method: Method) -> dict[str, Any]:
    paper = method.paper or {}
    return {
        "method": method,
        "paper_link": links.paper(paper.get("arxiv"), paper.get("doi"), paper.get("url")),
        "results": list(sheets.of_method(board, method)),
        "settings": sheets.settings(board, method),
        "again": reproduction(board, method),
        "bibtex": bibtex(method),
        "elsewhere": [
            (table, row, links.web(table.url)) for table in board.published for row in table.rows
            if row.method == method.id
        ],
        "appears": [(suite, member.name) for suite in board.suites for member in suite.contenders
                    if member.method == method.id],
    }  # fmt: skip
