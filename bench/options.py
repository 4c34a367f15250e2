"""Options that several verbs of the command line share, and what becomes of their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .errors import UsageError

METHODS: Any = typer.Option(
    metavar="NAMES", help='Comma-separated: lora,vpt, "lora(r=16, targets=q+v)", a group, or all.'
)
TASKS: Any = typer.Option(metavar="NAMES", help="Comma-separated tasks or suites: mnist,imdb or vtab,nlp.")
Methods = Annotated[str, METHODS]
OptionalMethods = Annotated[str | None, METHODS]
Tasks = Annotated[str, TASKS]
OptionalTasks = Annotated[str | None, TASKS]
Protocol = Annotated[str, typer.Option(metavar="NAME", help="What is equal for all methods; see bench ls protocols.")]
Seeds = Annotated[str | None, typer.Option(metavar="0,1,2", help="Seeds; the protocol's own when not given.")]
Results = Annotated[Path, typer.Option(metavar="DIR", help="Where records are read and written.")]
Existing = Annotated[
    Literal["missing", "failed", "all", "never"],
    typer.Option(help="Run cells that have no record (missing), or failed too (failed), all of them, or never any."),
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="DIR", help="A folder with recipes or cards; repeatable.")
]
MarkdownFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a summary for a pull request.")]
JunitFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML for a CI system.")]
Budget = Annotated[
    str | None,
    typer.Option(metavar="0.5%|N", help="Give every method the size that trains this share of the backbone, or N."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Cells of `bench plan --jsonl`, for methods and tasks.")
]
Only = Annotated[
    str | None, typer.Option(metavar="KEYS", help="Of these cells, those with these comma-separated keys.")
]
Shard = Annotated[str | None, typer.Option(metavar="3/8", help="Of these cells, the third of eight parts.")]
On = Annotated[
    str | None,
    typer.Option("--executor", metavar="NAME", help='Run elsewhere: "ray(gpus=1)", "slurm(workers=8, partition=gpu)".'),
]
DataRoot = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Local copies: DIR/owner/name holds what that repository does.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Cells at once; as many as there are cores when not given.")]


def load_plugins(plugins: list[Path] | None) -> None:
    """Let the registries know the folders of --plugin."""
    if plugins:
        from .registry import use_plugins

        use_plugins(plugins)


def seed_list(text: str | None) -> list[int] | None:
    """Seeds as typed: "0,1,2"."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise UsageError(f"seeds are whole numbers such as 0,1,2, not {wrong[0]!r}")
    return [int(word) for word in words]


def json_text(content: Any) -> str:
    """What --json prints."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
