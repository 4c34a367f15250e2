"""Choose hyper-parameters with one budget for every method: the verb `tune`.

Each method gets `protocol.tuning.trials` values, trained with shortened steps on the first part of the training split
and scored on its last part; the test split is never built. Every trial is a record below `<protocol>-tuning/`.

A recipe says what may vary: `tuning: {lr: [1.0e-4, 1.0e-2]}` (two floats: the ends of a log-spaced range),
`tuning: {c: [0.01, 0.1, 1.0, ...]}` (other lists: the values themselves), or several names, whose product must be the
number of trials (with a range, what the lists leave is spread over it).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError, did_you_mean
from .names import Name, Value
from .plan import Design, Existing, make_cell, make_plan
from .records import Cell, Record
from .store import Store
from .tables import PERCENT
from .text_table import text_table

if TYPE_CHECKING:
    from .display import Style
    from .protocol import Protocol


@dataclass(frozen=True)
class Contest:
    """One method on one family: its trials, each a set of values, and a cell for each tuning task."""

    name: Name
    family: str
    backbone: str
    tasks: tuple[str, ...]
    trials: tuple[Mapping[str, Value], ...]
    cells: tuple[tuple[Cell, ...], ...]  # [trial][task]


@dataclass(frozen=True)
class Verdict:
    """How a contest ended. `ranks` are mean ranks over the tasks, 1 is best; failed trials share the last rank."""

    contest: Contest
    records: tuple[tuple[Record | None, ...], ...]  # [trial][task]
    ranks: tuple[float, ...]
    winner: int | None  # None while a trial is missing, or when every trial failed

    @property
    def values(self) -> Mapping[str, Value] | None:
        """The winning values."""
        return None if self.winner is None else self.contest.trials[self.winner]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        contest = self.contest
        return {
            "method": str(contest.name),
            "family": contest.family,
            "backbone": contest.backbone,
            "tasks": list(contest.tasks),
            "trials": [
                {"values": dict(values), "rank": rank, "scores": [_score(record) for record in row]}
                for values, rank, row in zip(contest.trials, self.ranks, self.records, strict=True)
            ],
            "winner": None if self.values is None else dict(self.values),
        }


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
        contests, unsupported = processes.call("peft_atlas.bench.tune:contests", protocol, names, chosen)
    cells = {cell.key: cell for contest in contests for row in contest.cells for cell in row}
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
    verdicts = [judge(contest, store) for contest in contests]
    for verdict in verdicts:
        shown.say("\n" + verdict_text(verdict))
    written = write_winners(verdicts, rules, store.root.name) if write and not interrupted else []
    for path in written:
        shown.say(f"wrote {path}")
    undecided = any(verdict.winner is None for verdict in verdicts)
    return TuneOutcome(verdicts, unsupported, INTERRUPTED if interrupted else int(undecided), written)


def contests(protocol_id: str, names: Sequence[Name], families: Sequence[str]) -> tuple[list[Contest], list[str]]:
    """The contests of these methods, and a line for each that cannot be. Imports the methods' code."""
    from .protocol import load_protocol
    from .registry import registry
    from .support import unsupported_reason

    protocol = load_protocol(protocol_id)
    found: list[Contest] = []
    unsupported: list[str] = []
    for name, family in itertools.product(names, families):
        tasks = protocol.tuning.tasks[family]
        method_class = registry("methods").load(name.id)
        space = registry("methods").card(name.id).tuning
        trials = trial_values(name.id, space, protocol.tuning.trials)
        configs = [[_config(protocol, name, values, task) for task in tasks] for values in trials]
        backbone = registry("backbones").card(protocol.families[family].backbone)
        reason = unsupported_reason(method_class, configs[0][0], backbone, registry("tasks").card(tasks[0]))
        if reason is not None:
            unsupported.append(f"{name} x {family}: {reason}")
            continue
        cells = tuple(
            tuple(
                make_cell(
                    *(protocol, _named(name, values), config, task, protocol.seeds[0]),
                    selection=True,
                    steps=protocol.tuning.steps[family],
                )
                for task, config in zip(tasks, row, strict=True)
            )
            for values, row in zip(trials, configs, strict=True)
        )
        found.append(Contest(name, family, backbone.id, tuple(tasks), tuple(trials), cells))
    return found, unsupported


def trial_values(method: str, space: Mapping[str, Any], trials: int) -> list[dict[str, Value]]:
    """Exactly `trials` sets of values from a recipe's `tuning`, in ascending order of the first name."""
    lists: dict[str, list[Value]] = {}
    ranges = [name for name, values in space.items() if _is_range(values)]
    explicit = math.prod(len(values) for name, values in space.items() if name not in ranges)
    if len(ranges) > 1 or not space or trials % explicit or (not ranges and explicit != trials):
        raise UsageError(f"{method}: its recipe's `tuning` does not make {trials} trials")
    for name, values in space.items():
        lists[name] = _log_spaced(*values, trials // explicit) if name in ranges else list(values)
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def judge(contest: Contest, store: Store) -> Verdict:
    """Rank the trials on each task and average; ties go to the earlier trial (the smaller values)."""
    records = tuple(tuple(store.current(cell) for cell in row) for row in contest.cells)
    ranks = [0.0] * len(records)
    for column in zip(*records, strict=True):
        scores = [_goodness(record) for record in column]
        for trial, score in enumerate(scores):
            better = sum(other > score for other in scores)
            equal = sum(other == score for other in scores)
            ranks[trial] += (better + (equal + 1) / 2) / len(contest.tasks)
    missing = any(record is None or record.status == "cancelled" for row in records for record in row)
    able = [trial for trial, row in enumerate(records) if all(_goodness(record) > -math.inf for record in row)]
    winner = None if missing or not able else min(able, key=lambda trial: (round(ranks[trial], 9), trial))
    return Verdict(contest, records, tuple(ranks), winner)


def verdict_text(verdict: Verdict) -> str:
    """A table of the trials, the winner marked."""
    contest = verdict.contest
    rows: list[list[str | float]] = []
    for trial, values in enumerate(contest.trials):
        scores = [_shown(record) for record in verdict.records[trial]]
        mark = "best" if trial == verdict.winner else ""
        rows.append([*(f"{value}" for value in values.values()), *scores, f"{verdict.ranks[trial]:.2f}", mark])
    table = text_table([*contest.trials[0], *contest.tasks, "mean rank", ""], rows)
    title = f"{contest.name} on {contest.backbone} ({contest.family})"
    notes = [f"{name} wins at the edge of its range" for name in _at_edge(verdict)]
    if verdict.winner is None:
        notes.append("no winner: trials are missing, or all failed")
    return "\n".join([title, table, *notes])


def write_winners(verdicts: Sequence[Verdict], protocol: Protocol, results: str) -> list[Path]:
    """Put winning values into the recipes' backbone layer, leaving comments and form as they are."""
    from .registry import registry

    written: dict[Path, None] = {}
    for verdict in verdicts:
        if verdict.values is None:
            continue
        contest = verdict.contest
        source = (
            f"bench tune, protocol {protocol.id} v{protocol.version}, {len(contest.trials)} trials on "
            f"{' and '.join(contest.tasks)}, {results}/{protocol.id}-tuning"
        )
        path = registry("methods").entry(contest.name.id).file
        write_layer(path, contest.backbone, verdict.values, source)
        written[path] = None
    return list(written)


def write_layer(recipe: Path, backbone: str, values: Mapping[str, Value], source: str) -> None:
    """Set values in `hyperparameters.backbone.<backbone>` of a recipe file."""
    import io
    import os

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML(typ="rt", pure=True)
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = recipe.read_text(encoding="utf-8")
    content = yaml.load(text)
    layer = content["hyperparameters"].setdefault("backbone", CommentedMap()).setdefault(backbone, CommentedMap())
    for name, value in values.items():
        leaf = CommentedMap(value=value, source=source)
        leaf.fa.set_flow_style()
        layer[name] = leaf
    buffer = io.StringIO()
    yaml.dump(content, buffer)
    part = recipe.with_name(f".{recipe.name}.part")
    part.write_text(buffer.getvalue(), encoding="utf-8")
    os.replace(part, recipe)


def _families(protocol: Protocol, wanted: Sequence[str] | None) -> list[str]:
    known = list(protocol.tuning.tasks)
    for family in wanted or ():
        if family not in known:
            raise UsageError(f"protocol {protocol.id} tunes no family {family!r}.{did_you_mean(family, known)}")
    return known if wanted is None else list(dict.fromkeys(wanted))


def _named(name: Name, values: Mapping[str, Value]) -> Name:
    return Name(name.id, {**name.arguments, **values})


def _config(protocol: Protocol, name: Name, values: Mapping[str, Value], task_id: str) -> Any:
    from .recipes import configure, resolve
    from .registry import registry

    task = registry("tasks").card(task_id)
    backbone = protocol.family(task).backbone
    return configure(name.id, resolve(name.id, {**name.arguments, **values}, task.family, backbone, task_id))


def _is_range(values: Any) -> bool:
    return len(values) == 2 and all(isinstance(value, float) for value in values)


def _log_spaced(low: float, high: float, number: int) -> list[Value]:
    """Values from low to high with equal ratios, to two significant digits."""
    if number == 1:
        return [float(f"{math.sqrt(low * high):.1e}")]
    return [float(f"{low * (high / low) ** (step / (number - 1)):.1e}") for step in range(number)]


def _score(record: Record | None) -> float | None:
    return record.primary.value if record is not None and record.primary is not None and record.status == "ok" else None


def _goodness(record: Record | None) -> float:
    """Higher is better; minus infinity for an attempt that failed."""
    score = _score(record)
    if record is None or record.primary is None or score is None:
        return -math.inf
    return score if record.primary.higher_is_better else -score


def _shown(record: Record | None) -> str:
    score = _score(record)
    if record is None or record.primary is None or score is None:
        return "?" if record is None else record.status
    return f"{100 * score:.1f}" if record.primary.name in PERCENT else f"{score:.3f}"


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
