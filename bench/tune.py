"""Choose hyper-parameters with one budget for every method: the verb `tune`.

Each method gets `protocol.tuning.trials` values, trained with shortened steps on the first part of the training split
and scored on its last part; the test split is never built. Every trial is a record below `<protocol>-tuning/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .contest import Verdict, judge, score_of
from .errors import UsageError, did_you_mean
from .plan import Design, Existing, make_plan
from .recipe_layer import write_winners
from .records import Record
from .store import Store
from .tables import PERCENT
from .text_table import text_table

if TYPE_CHECKING:
    from .display import Style
    from .protocol import Protocol


@dataclass(frozen=True)
class TuneOutcome:
    """All verdicts; `written` names the recipes that were changed."""

    verdicts: list[Verdict]
    unsupported: list[str]
    exit_code: int  # 0, 1 where a method has no winner, 130 Ctrl-C
    written: list[Path] = field(default_factory=list)


def tune_command(
    methods: str,
    *,
    families: str | None,
    protocol: str,
    results: str | Path,
    jobs: int | None,
    write: bool,
    as_json: bool,
) -> int:
    """The verb: run the trials, print the verdicts."""
    wanted = None if families is None else [word.strip() for word in families.split(",")]
    outcome = tune(
        methods,
        wanted,
        protocol=protocol,
        results=results,
        jobs=jobs,
        write=write,
        display="none" if as_json else "auto",
    )
    if as_json:
        content = {"verdicts": [v.as_dict() for v in outcome.verdicts], "unsupported": outcome.unsupported}
        print(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    return outcome.exit_code


def tune(
    methods: str | Sequence[str],
    families: Sequence[str] | None = None,
    *,
    protocol: str = "embedded",
    results: str | Path = "results",
    jobs: int | None = None,
    write: bool = False,
    existing: Existing = "missing",
    display: Style = "auto",
) -> TuneOutcome:
    """Run the trials that have no record yet and say which values win; `write` puts them into the recipes."""
    from . import processes
    from .api import INTERRUPTED, fetch_assets, run_cells
    from .display import make_display, plan_text
    from .protocol import load_protocol
    from .recipes import expand

    rules, names = load_protocol(protocol), expand(methods)
    chosen = _families(rules, families)
    if write and (wrong := [name for name in names if name.arguments]):
        raise UsageError(f"only plain methods can be written into their recipes, not {wrong[0]}")
    shown, store = make_display(display), Store(results)
    with shown.busy("making the plan"):
        found, unsupported = processes.call("peft_atlas.bench.contest:contests", protocol, names, chosen)
    cells = {cell.key: cell for contest in found for row in contest.cells for cell in row}
    planned = make_plan(rules, names, [], Design(list(cells.values()), []), store, existing)
    shown.say("\n".join([plan_text(planned), *(f"  unsupported: {line}" for line in unsupported)]))
    if planned.run:
        store.check_writable()
    interrupted = False
    try:
        able, _ = fetch_assets(planned.run, shown)
        run_cells(able, rules, store, shown, jobs, again=existing == "all")
    except KeyboardInterrupt:
        interrupted = True
    verdicts = [judge(contest, store) for contest in found]
    for verdict in verdicts:
        shown.say("\n" + verdict_text(verdict))
    written = write_winners(verdicts, rules, store.root.name) if write and not interrupted else []
    for path in written:
        shown.say(f"wrote {path}")
    undecided = any(verdict.winner is None for verdict in verdicts)
    return TuneOutcome(verdicts, unsupported, INTERRUPTED if interrupted else int(undecided), written)


def verdict_text(verdict: Verdict) -> str:
    """A table of the trials, the winner marked."""
    contest = verdict.contest
    rows: list[list[str | float]] = []
    for trial, values in enumerate(contest.trials):
        records = verdict.records[trial]
        mark = "best" if trial == verdict.winner else ""
        mean = _number(verdict.means[trial], next((r.primary.name for r in records if r and r.primary), ""))
        rows.append([*(f"{value}" for value in values.values()), *map(_shown, records), mean, mark])
    table = text_table([*contest.trials[0], *contest.tasks, "mean", ""], rows)
    title = f"{contest.name} on {contest.backbone} ({contest.family})"
    notes = [f"{name} wins at the edge of its range" for name in _at_edge(verdict)]
    if verdict.winner is None:
        notes.append("no winner: trials are missing, or all failed")
    return "\n".join([title, table, *notes])


def _families(protocol: Protocol, wanted: Sequence[str] | None) -> list[str]:
    known = list(protocol.tuning.tasks)
    for family in wanted or ():
        if family not in known:
            raise UsageError(f"protocol {protocol.id} tunes no family {family!r}.{did_you_mean(family, known)}")
    return known if wanted is None else list(dict.fromkeys(wanted))


def _shown(record: Record | None) -> str:
    score = score_of(record)
    if record is None or record.primary is None or score is None:
        return "?" if record is None else record.status
    return _number(score, record.primary.name)


def _number(score: float | None, metric: str) -> str:
    return "" if score is None else f"{100 * score:.1f}" if metric in PERCENT else f"{score:.3f}"


def _at_edge(verdict: Verdict) -> list[str]:
    """Numbers whose winning value is the lowest or highest that was tried."""
    if verdict.values is None:
        return []
    edges = []
    for name, value in verdict.values.items():
        tried = [values[name] for values in verdict.contest.trials]
        numbers = [number for number in tried if isinstance(number, int | float) and not isinstance(number, bool)]
        if len(set(numbers)) > 2 and value in (min(numbers), max(numbers)):
            edges.append(name)
    return edges
