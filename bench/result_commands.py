"""The verbs that read records: `bench merge`, `compare`, `check`, `leaderboard`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    AsJson,
    Jobs,
    JunitFile,
    MarkdownFile,
    Methods,
    Plugins,
    Protocol,
    Results,
    load_plugins,
)


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders of other machines.")],
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> int:
    """Join the records of several machines into one results folder; nothing there is changed."""
    from . import merge as merging

    return merging.command(folders, results, as_json)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A results folder, a baseline file, or a commit or tag.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; what is told is how B differs from A.")],
    results: Results = Path("results"),
    markdown: MarkdownFile = None,
    junit: JunitFile = None,
    as_json: AsJson = False,
) -> int:
    """Compare two results folders, commits or releases, cell by cell.

    Of a commit or tag, what it holds of --results is read. Exact facts are compared exactly, quality by statistics.
    Exit code 1 on a regression.
    """
    from . import check as checking

    return checking.compare_command(a, b, results, checking.Output(markdown, junit, as_json))


def check(
    baseline: Annotated[Path, typer.Option(metavar="FILE", help="What a run left earlier, see --update.")],
    protocol: Protocol = "smoke",
    methods: Methods = "all",
    tasks: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="With --update: tasks and suites of the baseline; all when not given."),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep records here, and run only what it lacks.")
    ] = None,
    jobs: Jobs = None,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline from this run.")] = False,
    markdown: MarkdownFile = None,
    junit: JunitFile = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> int:
    """Run a protocol and compare it with a baseline; exit code 1 on a regression."""
    from . import check as checking

    load_plugins(plugin)
    return checking.check_command(
        *(baseline, checking.Output(markdown, junit, as_json)),
        protocol=protocol,
        methods=methods,
        tasks=tasks,
        results=results,
        jobs=jobs,
        update=update,
    )


def leaderboard(
    results: Results = Path("results"),
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where pages are written; leaderboard in --results if not given.")
    ] = None,
    formats: Annotated[
        str, typer.Option(metavar="NAMES", help="Comma-separated: md,plots,csv,latex,json,metafile,html; or all.")
    ] = "all",
    check: Annotated[bool, typer.Option("--check", help="Write nothing; say what differs from the records.")] = False,
    freeze: Annotated[
        str | None, typer.Option(metavar="0.1", help="Make a release of the records in --results instead of pages.")
    ] = None,
    plugin: Plugins = None,
) -> int:
    """Write tables, plots and pages from the records.

    With --check, the exit code is 1 where what was written before is not what the records give.
    """
    from ..leaderboard.command import leaderboard_command

    load_plugins(plugin)
    return leaderboard_command(results, out or results / "leaderboard", formats, check=check, freeze=freeze)


def report(
    results: Results = Path("results"),
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where it is written; report.md in --results if not given.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of one protocol's records; of all when not given.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; say whether the file differs.")] = False,
    plugin: Plugins = None,
) -> int:
    """Write the findings: what can be told apart and what not, costs, sensitivity, limits.

    With --check, the exit code is 1 where what was written before is not what the records give.
    """
    from ..leaderboard.report import report_command

    load_plugins(plugin)
    return report_command(results, out, protocol, check=check)
