"""The verbs that run no cell: `bench ls`, `explain`, `params`, `validate`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import (
    AsJson,
    Plugins,
    Protocol,
    json_text,
    load_plugins,
)


def ls(
    noun: Annotated[Literal["methods", "tasks", "backbones", "protocols", "kernels"], typer.Argument(metavar="NOUN")],
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """List methods, tasks, backbones, protocols or kernels."""
    from .listing import listing

    load_plugins(plugin)
    print(listing(noun, as_json))


def explain(
    method: Annotated[str, typer.Argument(metavar="METHOD", help='Such as lora or "lora(r=16)".')],
    task: Annotated[str, typer.Argument(metavar="TASK")],
    protocol: Protocol = "embedded",
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Show every value of a cell and where it came from."""
    from . import explain as explaining

    load_plugins(plugin)
    explanation = explaining.explain(method, task, protocol)
    print(json_text(explanation.as_dict()) if as_json else explaining.as_text(explanation))


def params(
    method: Annotated[str, typer.Argument(metavar="METHOD", help='Such as lora or "lora(r=16)".')],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="A backbone, or an architecture by its usual name.")],
    classes: Annotated[int | None, typer.Option(min=1, help="Count a linear head with this many outputs too.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every trainable tensor too.")] = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Count trainable parameters exactly; loads no weights."""
    from .params import command

    load_plugins(plugin)
    print(command(method, backbone, classes, as_json, verbose))


def validate(
    subject: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help='A method, such as lora or "lora(r=2)"; or a folder of records.')
    ],
    models: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Of a method: vit,bert,llama; all when not given.")
    ] = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> int:
    """Check a method on a tiny random model of every architecture that it fits, or contributed records.

    A method has to pass what every method of this package does: start, gradients, training, merge, shipped file, ...
    Exit code 1 when something fails.
    """
    from .registry import registry

    load_plugins(plugin)
    if Path(subject).is_dir() and subject not in registry("methods"):
        from . import validate_records

        return validate_records.command(Path(subject), as_json)
    from .conformance import report

    return report.command(subject, models, as_json)


def doctor(as_json: AsJson = False, plugin: Plugins = None) -> int:
    """Say what this machine offers and whether a run can start.

    Opens no network connection.
    """
    from . import doctor as examination

    load_plugins(plugin)
    report = examination.examine()
    print(json_text(report.as_dict()) if as_json else examination.as_text(report))
    return 1 if report.problems else 0
