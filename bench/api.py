"""Run and read the benchmark from Python: `peft_atlas.run(...)`, `peft_atlas.load_results(...)`.

The verbs `plan` and `run` of the command line are these functions.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .plan import Design, Existing, Plan, check_seeds, make_plan
from .records import Cell, Record
from .store import Store

if TYPE_CHECKING:
    import pandas as pd

    from .display import Display, Style
    from .executors import Executor
    from .names import Name
    from .protocol import Protocol

Names = str | Iterable[str]
INTERRUPTED = 130


@dataclass(frozen=True)
class RunOutcome:
    """What a run left: iterate it for the current records of all cells that were asked for."""

    records: list[Record]
    plan: Plan
    exit_code: int  # 0 all ok, 1 a cell failed or is missing, 130 Ctrl-C
    blocked: list[tuple[Cell, str]] = field(default_factory=list)  # not run: an asset cannot be had

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]


def load_results(results: str | Path = "results") -> pd.DataFrame:
    """The records of a results folder as a tidy frame: one row per cell, the attempt that counts."""
    store = Store(results)
    if not store.root.is_dir():
        raise UsageError(f"the results folder {results} does not exist")
    return store.frame()


def plan(
    methods: Names | None = None,
    tasks: Names | None = None,
    *,
    protocol: str = "embedded",
    seeds: Sequence[int] | None = None,
    results: str | Path = "results",
    existing: Existing = "failed",
    plugins: Sequence[str | Path] = (),
    budget: str | None = None,
    plan_file: str | Path | None = None,
    only: str | None = None,
    shard: str | None = None,
) -> Plan:
    """What `run` would do. Writes nothing; raises UsageError for wrong names."""
    from . import plan_file as plan_files
    from .registry import use_plugins

    use_plugins(plugins)
    if plan_file is None:
        asked = _asked(methods, tasks, protocol, seeds, budget)
    elif methods or tasks or seeds or budget:
        raise UsageError("a plan file says which cells: give no methods, tasks, seeds or budget beside it")
    else:
        asked = _planned(plan_files.read_plan(Path(plan_file)))
    cells = asked.design.cells
    cells = cells if only is None else plan_files.only(cells, only)
    cells = cells if shard is None else plan_files.shard_of(cells, shard)
    chosen = Design(cells, [] if only else asked.design.unsupported)
    return make_plan(asked.protocol, asked.names, asked.tasks, chosen, Store(results), existing)


@dataclass(frozen=True)
class _Asked:
    """A request with every name resolved."""

    protocol: Protocol
    names: list[Name]
    tasks: list[str]
    design: Design


def _asked(
    methods: Names | None, tasks: Names | None, protocol: str, seeds: Sequence[int] | None, budget: str | None
) -> _Asked:
    from . import processes
    from .protocol import load_protocol
    from .recipes import expand, with_budget

    if methods is None or tasks is None:
        raise UsageError(f"Missing option '--{'tasks' if methods is not None else 'methods'}'.")
    rules = load_protocol(protocol)
    names = with_budget(expand(methods), budget)
    task_ids = rules.resolve_tasks(tasks)
    wanted = check_seeds(rules.seeds if seeds is None else seeds)
    if not names or not task_ids:
        raise UsageError("at least one method and one task are needed")
    found: Design = processes.call("peft_atlas.bench.plan:design", protocol, names, task_ids, wanted)
    return _Asked(rules, names, task_ids, found)


def _planned(cells: list[Cell]) -> _Asked:
    """The request that cells of one protocol stand for."""
    from .names import parse_one
    from .protocol import load_protocol

    names = {cell.method.name: parse_one(cell.method.name) for cell in cells}
    tasks = list(dict.fromkeys(cell.task.id for cell in cells))
    return _Asked(load_protocol(cells[0].protocol.id), list(names.values()), tasks, Design(cells, []))


def run(
    methods: Names | None = None,
    tasks: Names | None = None,
    *,
    protocol: str = "embedded",
    seeds: Sequence[int] | None = None,
    results: str | Path = "results",
    existing: Existing = "failed",
    jobs: int | None = None,
    plugins: Sequence[str | Path] = (),
    display: Style = "auto",
    max_memory: str | int | None = None,
    timeout: float | None = None,
    budget: str | None = None,
    plan_file: str | Path | None = None,
    only: str | None = None,
    shard: str | None = None,
    executor: str | None = None,
    data_root: str | Path | None = None,
) -> RunOutcome:
    """Run methods x tasks x seeds, each cell in a process of its own; the same call resumes.

    `methods`: names such as "lora(r=16)", groups, "all". `tasks`: tasks and suites of the protocol. `jobs`: cells at
    once (default: cores / threads of the protocol). `max_memory`: data one cell may hold, such as "3GB". `timeout`:
    seconds a cell may take (default: the protocol's). `budget`: what every method trains, "0.5%" of the backbone or a
    number of parameters; ranks, widths or prompts are chosen to meet it. `plan_file`: the cells, in place of methods
    and tasks, see `plan_file`; `only` those with these comma-separated keys, `shard` the "3/8" of them. `executor`:
    run them elsewhere, "ray(gpus=1)" or "slurm(workers=8)", see `executors`. `data_root`: folder with local copies of
    what the tasks and backbones of hub protocols need, see `sources`.

    Raises UsageError for wrong requests (before anything is written) and StoreError when results cannot be written.
    Cells that fail raise nothing: see `RunOutcome.exit_code` and the records.
    """
    from .display import make_display, plan_text
    from .executors import make_executor
    from .sources import use_data

    use_data(data_root)
    elsewhere = None if executor is None else make_executor(executor)
    if elsewhere is not None and jobs is not None:
        raise UsageError("jobs is how many cells run at once on this machine: an executor has options of its own")
    memory = bytes_of(max_memory)
    shown = make_display(display)
    store = Store(results)
    with shown.busy("making the plan"):
        planned = plan(
            methods,
            tasks,
            protocol=protocol,
            seeds=seeds,
            results=results,
            existing=existing,
            plugins=plugins,
            budget=budget,
            plan_file=plan_file,
            only=only,
            shard=shard,
        )
    shown.say(plan_text(planned))
    if planned.run:
        store.check_writable()
    cells, blocked = fetch_assets(planned.run, shown)
    interrupted = False
    try:
        run_cells(
            *(cells, planned.protocol, store, shown, jobs, memory, timeout), again=existing == "all", executor=elsewhere
        )
    except KeyboardInterrupt:
        interrupted = True
    options = {
        "plan": plan_file,
        "methods": ",".join(planned.methods) if plan_file is None else None,
        "tasks": None if tasks is None else ",".join([tasks] if isinstance(tasks, str) else tasks),
        "protocol": None if protocol == "embedded" else protocol,
        "seeds": None if seeds is None else ",".join(map(str, seeds)),
        "only": only,
        "shard": shard,
        "executor": executor,
        "results": None if str(results) == "results" else str(results),
        "max-memory": max_memory,
        "data-root": data_root,
        "plugin": [str(folder) for folder in plugins],
    }
    return _outcome(planned, store, blocked, interrupted, shown, options)


def run_cells(
    cells: Sequence[Cell],
    protocol: Protocol,
    store: Store,
    shown: Display,
    jobs: int | None,
    max_memory: int | None = None,
    timeout: float | None = None,
    *,
    again: bool = False,
    executor: Executor | None = None,
) -> list[Record]:
    """Run cells under a display, here (see `Runner.run`) or by an executor."""
    from .environment import cores, environment
    from .executors import Work
    from .runner import Limits, Runner

    if not cells:
        return []
    jobs = jobs or max(1, cores() // protocol.threads)
    limits = Limits(jobs=jobs, timeout=timeout or protocol.timeout, max_memory=max_memory)
    with shown.cells(len(cells)):
        if executor is not None:
            return executor.run(Work(cells, store, limits, shown, threads=protocol.threads, again=again))
        return Runner(store, limits, environment(protocol.threads, jobs), shown, again=again).run(cells)


def fetch_assets(cells: Sequence[Cell], shown: Display) -> tuple[list[Cell], list[tuple[Cell, str]]]:
    """Fetch each asset and each source once, before children would ask for it at the same time.

    Returns the cells that can run, and the others with the reason.
    """
    from .needs import obtain

    lacking = obtain(cells, shown.asset)
    for reason in dict.fromkeys(reason for reasons in lacking.values() for reason in reasons):
        shown.warn(reason)
    blocked = [(cell, lacking[cell.key][0]) for cell in cells if cell.key in lacking]
    return [cell for cell in cells if cell.key not in lacking], blocked


def bytes_of(size: str | int | None) -> int | None:
    """Bytes from "3GB", "512MB", "1.5GiB" or a number of bytes. UsageError for anything else."""
    if size is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", str(size).strip(), re.IGNORECASE)
    number = float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2].lower() or " ") if match else 0
    if number < 1:
        raise UsageError(f"memory is given like 3GB or 512MB, not {size!r}")
    return int(number)


def _outcome(
    planned: Plan,
    store: Store,
    blocked: list[tuple[Cell, str]],
    interrupted: bool,
    shown: Display,
    options: dict[str, Any],
) -> RunOutcome:
    """The table, what is missing, and the exit code."""
    from .display import resume_command
    from .tables import result_table

    current = {cell.key: store.current(cell) for cell in planned.cells}
    records = [record for record in current.values() if record is not None]
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    shown.say("\n" + result_table(planned, store).text(width))
    undone = [key for key, record in current.items() if record is None or record.status not in ("ok", "unsupported")]
    if undone:
        word = "cell is" if len(undone) == 1 else "cells are"
        shown.say(f"\n{len(undone)} {word} missing or failed; to run them:\n  {resume_command(options)}")
    return RunOutcome(records, planned, INTERRUPTED if interrupted else 1 if undone else 0, blocked)
