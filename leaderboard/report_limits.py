"""What the findings cannot say, from what the records and cards hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .board import Board, Protocol, Suite, Task
from .escaping import code, markdown
from .report_blocks import counted, names

RENDERED = "rendered by this package"  # in the licence of tasks that the package draws itself


def limits(found: Board, suites: Sequence[Suite]) -> Iterator[str]:
    """A line for each limit, inert."""
    yield from _protocols(found, suites)
    yield from _backbones(found, suites)
    yield from _tasks(found, suites)
    yield from _seeds(suites)
    yield (
        "Tasks, training splits and backbones are fixed: intervals and tests say what other seeds and other test items "
        "would give, not what other tasks, backbones or longer training would."
    )


def _protocols(found: Board, suites: Sequence[Suite]) -> Iterator[str]:
    for key in dict.fromkeys(f"{suite.protocol}@{suite.protocol_version}" for suite in suites):
        protocol = found.protocols[key]
        if not protocol.settings:
            yield f"{code(key)} is not this checkout's version of the protocol: its settings are not known here."
            continue
        yield f"{code(key)}: {markdown(protocol.description)}"
        yield from _training(protocol)


def _training(protocol: Protocol) -> Iterator[str]:
    families: dict[str, dict[str, Any]] = protocol.settings["families"]
    tuning: dict[str, Any] = protocol.settings["tuning"]
    short = [
        f"{markdown(family)} {settings['steps']} steps of {settings['batch']}" for family, settings in families.items()
    ]
    yield f"Training is short ({'; '.join(short)}): a method that needs more is not shown at its best."
    chosen = [f"{names(tasks)} ({tuning['steps'][family]} steps)" for family, tasks in tuning["tasks"].items()]
    yield (
        f"Hyper-parameters of a method are chosen from {counted(tuning['trials'], 'trial')} with one seed on "
        f"{'; '.join(chosen)}, once for each backbone: other values may suit the other tasks better."
    )


def _backbones(found: Board, suites: Sequence[Suite]) -> Iterator[str]:
    used = sorted({e.backbone for s in suites for c in s.contenders for e in c.entries if e.backbone})
    sizes = {name: size for name in used if (size := found.backbones[name].parameters)}
    if sizes:
        listed = ", ".join(f"{code(name)} ({size:,} parameters)" for name, size in sizes.items())
        yield f"The largest backbone has {max(sizes.values()):,} parameters ({listed}): larger ones may differ."


def _tasks(found: Board, suites: Sequence[Suite]) -> Iterator[str]:
    tasks = [found.tasks[name] for name in dict.fromkeys(task for suite in suites for task in suite.tasks)]
    rendered = [task.id for task in tasks if RENDERED in task.licence]
    if rendered:
        yield f"Rendered, neither photographed nor written, {len(rendered)} of {len(tasks)} tasks: {names(rendered)}."
    sizes = [task.sizes for task in tasks if {"train", "test"} <= set(task.sizes)]
    if sizes:
        yield f"A task has {_between(sizes, 'train')} training and {_between(sizes, 'test')} test items."
    yield from _mixed(tasks)


def _mixed(tasks: Sequence[Task]) -> Iterator[str]:
    metrics = sorted({task.metric.replace("_", " ") for task in tasks})
    if len(metrics) > 1:
        yield f"Tasks are scored by {markdown(', '.join(metrics))}; scores of different metrics are never averaged."


def _between(sizes: Sequence[dict[str, int]], split: str) -> str:
    numbers = sorted({size[split] for size in sizes})
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def _seeds(suites: Sequence[Suite]) -> Iterator[str]:
    for suite in suites:
        numbers = [sum(s.value is not None for s in e.scores) for c in suite.contenders for e in c.entries if e.scores]
        scored = sorted(number for number in numbers if number)
        if scored:
            seeds = f"{scored[0]} to {scored[-1]} seeds" if scored[0] < scored[-1] else counted(scored[0], "seed")
            single = scored.count(1)
            line = f"{markdown(suite.name)}: a cell has {seeds}"
            yield line + (
                f"; intervals of {counted(single, 'cell')} with one are over test items only." if single else "."
            )
