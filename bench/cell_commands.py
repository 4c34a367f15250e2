"""The verbs that make records: `bench plan`, `run`, `tune`, `profile`. Each imports what it needs when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    AsJson,
    Budget,
    DataRoot,
    Existing,
    Jobs,
    Methods,
    On,
    Only,
    OptionalMethods,
    OptionalTasks,
    PlanFile,
    Plugins,
    Protocol,
    Results,
    Seeds,
    Shard,
    Tasks,
    json_text,
    load_plugins,
    seed_list,
)


def plan(
    methods: Methods,
    tasks: Tasks,
    protocol: Protocol = "embedded",
    seeds: Seeds = None,
    results: Results = Path("results"),
    existing: Existing = "failed",
    budget: Budget = None,
    shard: Shard = None,
    as_json: AsJson = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print what would run, a cell a line, for run --plan.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Show which cells would run and which cannot. Writes nothing.

    Cells with a record are listed as cached, impossible ones with the place that is missing.
    """
    from . import api, display
    from .plan_file import to_lines

    planned = api.plan(
        methods,
        tasks,
        protocol=protocol,
        seeds=seed_list(seeds),
        results=results,
        existing=existing,
        plugins=plugin or (),
        budget=budget,
        shard=shard,
    )
    if jsonl:
        print(display.plan_text(planned), file=sys.stderr)
        print(to_lines(planned.run), end="")
    else:
        print(json_text(planned.as_dict()) if as_json else display.plan_text(planned))


def run(
    methods: OptionalMethods = None,
    tasks: OptionalTasks = None,
    protocol: Protocol = "embedded",
    seeds: Seeds = None,
    results: Results = Path("results"),
    existing: Existing = "failed",
    jobs: Jobs = None,
    timeout: Annotated[float | None, typer.Option(min=1, help="Longest time of a cell in seconds.")] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="3GB", help="Memory that one cell may take.")] = None,
    budget: Budget = None,
    plan: PlanFile = None,
    only: Only = None,
    shard: Shard = None,
    executor: On = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> int:
    """Run methods on tasks; the same command resumes what was interrupted."""
    from . import api

    outcome = api.run(
        methods,
        tasks,
        protocol=protocol,
        seeds=seed_list(seeds),
        results=results,
        existing=existing,
        jobs=jobs,
        plugins=plugin or (),
        display="none" if as_json else "auto",
        max_memory=max_memory,
        timeout=timeout,
        budget=budget,
        plan_file=plan,
        only=only,
        shard=shard,
        executor=executor,
        data_root=data_root,
    )
    if as_json:
        print(json_text([record.model_dump(mode="json") for record in outcome.records]))
    return outcome.exit_code


def tune(
    methods: Methods,
    families: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Comma-separated: vision,text,lm; all when not given.")
    ] = None,
    protocol: Protocol = "embedded",
    results: Results = Path("results"),
    jobs: Jobs = None,
    write: Annotated[bool, typer.Option("--write", help="Write the winners into the recipes.")] = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> int:
    """Choose learning rates, with one budget for every method.

    Each trial is a record. Nothing but the training split is used.
    """
    from . import tune as tuning

    load_plugins(plugin)
    return tuning.tune_command(
        methods, families=families, protocol=protocol, results=results, jobs=jobs, write=write, as_json=as_json
    )


def profile(
    methods: Methods,
    tasks: Tasks,
    protocol: Protocol = "embedded",
    results: Results = Path("results"),
    again: Annotated[
        bool, typer.Option("--again", help="Measure those that have a profile of this machine too.")
    ] = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> int:
    """Measure what methods cost: memory, operations, times, file size. One at a time.

    Costs do not depend on the task, only on its family's backbone and input shape: a profile serves all its tasks.
    """
    from . import profiling

    return profiling.command(
        methods, tasks, protocol=protocol, results=results, again=again, as_json=as_json, plugins=plugin or ()
    )
