"""`bench check`: run a protocol's cells and compare them with a committed baseline; the gate for CI.

And `bench compare`, which shares its output: text, Markdown, JSON, JUnit XML.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from . import api, profiling
from .baseline import baseline_side, read_baseline, task_labels, write_baseline
from .compare import compare
from .compare_costs import cost_facts
from .compare_report import as_dict, as_markdown, as_text
from .display import make_display
from .errors import UsageError
from .findings import Comparison
from .junit import write_junit
from .protocol import load_protocol
from .sides import Side, folder_side, side
from .store import Store


@dataclass(frozen=True)
class Output:
    """Where a comparison is told, besides its text (or JSON) on stdout."""

    markdown: Path | None = None
    junit: Path | None = None
    as_json: bool = False

    def tell(self, comparison: Comparison) -> None:
        """Print it, and write the files that were asked for."""
        if self.markdown is not None:
            self.markdown.write_text(as_markdown(comparison), encoding="utf-8")
        if self.junit is not None:
            write_junit(comparison, self.junit)
        print(json.dumps(as_dict(comparison), indent=1, ensure_ascii=False) if self.as_json else as_text(comparison))


def compare_command(a: str, b: str, results: Path, output: Output) -> int:
    """Compare two folders, commits, releases or baselines; the exit code. UsageError where no cell is in both."""
    with side(a, results) as one, side(b, results) as other:
        comparison = compare(one, other)
        if not comparison.pairs:
            held = (", ".join(sorted(s.cells["protocol"].unique())) or "no records" for s in (one, other))
            raise UsageError(f"{a} and {b} have no cell in common; they hold {' and '.join(held)}")
        output.tell(comparison)
    return comparison.exit_code


def check_command(
    baseline: Path,
    output: Output,
    *,
    protocol: str = "smoke",
    methods: str = "all",
    tasks: str | None = None,
    results: Path | None = None,
    jobs: int | None = None,
    update: bool = False,
) -> int:
    """Run the cells (into a temporary folder, or those that `results` lacks) and compare; the exit code.

    `update` writes the baseline instead, of `tasks` (tasks and suites) or, without them, of all suites; a comparison
    takes the baseline's own. UsageError where the baseline is missing, of another protocol or newer.
    """
    if tasks is not None and not update:
        raise UsageError("the baseline says which tasks it holds; --tasks goes with --update")
    content = None if update else read_baseline(baseline)
    if content is not None and content["protocol"] != protocol:
        raise UsageError(f"baseline {baseline} is of protocol {content['protocol']}, not {protocol}")
    with ExitStack() as stack:
        folder = results or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peft-atlas-")))
        before = None if content is None else baseline_side(content, str(baseline))
        held = _tasks(protocol, tasks) if before is None else sorted(before.cells["task"].unique())
        now, names = _run(folder, protocol, methods, held, jobs, quiet=output.as_json)
        if before is None:
            print(f"{baseline}: {write_baseline(now, protocol, baseline)} cells")
            return 0
        if methods != "all":
            cells = before.cells[before.cells["method_name"].isin(names)]
            before = replace(before, cells=cells, costs=[row for row in before.costs if row["method_name"] in names])
        comparison = compare(before, now, complete=True)
        output.tell(comparison)
    return comparison.exit_code


def _tasks(protocol: str, names: str | None) -> list[str]:
    """The tasks that are asked for; those of all suites, where none are."""
    rules = load_protocol(protocol)
    return rules.resolve_tasks(list(rules.suites) if names is None else names)


def _run(
    folder: Path, protocol: str, methods: str, tasks: list[str], jobs: int | None, *, quiet: bool
) -> tuple[Side, list[str]]:
    """What the protocol's cells leave in a folder, with what each method costs, and the methods' names.

    Costs are counted anew each time, not timed: memory ledger, operations, bytes.
    """
    rules = load_protocol(protocol)
    planned = api.plan(methods, tasks, protocol=protocol, results=folder, existing="missing")
    shown = make_display("none" if quiet else "auto")
    cells, _ = api.fetch_assets(planned.run, shown)
    api.run_cells(cells, rules, Store(folder), shown, jobs)
    with shown.busy("counting memory and operations"):
        profiles = [profiling.take(subject, timed=False) for subject in profiling.subjects(rules, planned.cells)]
    found = folder_side(folder, "this run")
    rows = found.cells[found.cells["protocol"].eq(protocol)].reset_index(drop=True)
    costs = [cost_facts(profile) for profile in profiles]
    return replace(found, cells=rows, labels=task_labels(tasks), costs=costs), planned.methods
