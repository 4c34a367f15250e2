"""What today's code and recipes would run for the names that were recorded.

Needs the methods' code, and so torch: `ask` runs in a child process.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..bench.errors import AtlasError
from ..bench.names import parse_one
from ..bench.registry import registry


@dataclass(frozen=True)
class Today:
    """A name on a task: why it cannot be, or its cells and where each value comes from."""

    reason: str | None
    keys: Mapping[int, str]  # seed -> key of the cell
    values: Mapping[str, tuple[Any, str, str]]  # name -> value, layer of the recipe, source


Answers = Mapping[tuple[str, str], Today]


def ask(protocol: str, version: int, names: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]) -> Answers:
    """Answers for every (name, task) that is known here; empty where this is another version of the protocol."""
    from ..bench import processes

    protocols = registry("protocols")
    if protocol not in protocols or protocols.card(protocol).version != version:
        return {}
    found: Answers = processes.call(f"{__name__}:answers", protocol, list(names), list(tasks), list(seeds))
    return found


def answers(protocol: str, names: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]) -> Answers:
    """What `ask` returns, in this process."""
    found = {}
    for name in names:
        for task in tasks:
            try:
                found[name, task] = _answer(protocol, name, task, seeds)
            except AtlasError:  # a name, argument or task that this checkout does not know
                continue
    return found


def command(protocol: str, name: str, task: str, seeds: Sequence[int]) -> str:
    """The shell command that runs these cells anew."""
    words = ["bench", "run", "--methods", name, "--tasks", task, "--seeds", ",".join(map(str, seeds))]
    if protocol != "embedded":
        words += ["--protocol", protocol]
    return shlex.join([*words, "--results", "my-results"])


def _answer(protocol_id: str, text: str, task_id: str, seeds: Sequence[int]) -> Today:
    from ..bench.plan import design
    from ..bench.protocol import load_protocol
    from ..bench.recipes import resolve

    name = parse_one(text)
    task = registry("tasks").card(task_id)
    found = design(protocol_id, [name], [task_id], seeds)
    if found.unsupported:
        return Today(found.unsupported[0][1], {}, {})
    backbone = load_protocol(protocol_id).family(task).backbone
    sources = resolve(name.id, name.arguments, task.family, backbone, task_id).sources
    config = found.cells[0].method.config
    values = {key: (value, *sources[key]) for key, value in config.items() if key in sources}
    return Today(None, {cell.seed: cell.key for cell in found.cells}, values)
