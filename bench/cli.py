"""The command `bench`. Each verb imports what it needs when it is called, so that `--help` and `ls` stay fast."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .asset_commands import app as asset_app
from .errors import AtlasError, UsageError
from .kernel_commands import app as kernel_app

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
    help="PEFT Atlas: methods x tasks x backbones x seeds of parameter-efficient fine-tuning in one harness.",
)
app.add_typer(asset_app, name="assets")
app.add_typer(kernel_app, name="kernels")

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code. 0: all ok, 1: a cell or a check failed, 2: usage, 130: Ctrl-C."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="bench", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except AtlasError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)
    except BrokenPipeError:  # `bench ls methods | head -1`; the parser does the same where the pipe breaks earlier
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # the parser's own errors are no public class, but all can format themselves
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        page = message.startswith("Usage:")  # no verb was given: the whole help
        return _complain(message if page else " ".join(message.replace("Value error, ", "").split()), 2)


def _complain(message: str, code: int) -> int:
    """Print one line; a page of help (no verb was given) as it is."""
    print(message if message.startswith("Usage:") else f"bench: {message}", file=sys.stderr)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"peft-atlas {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def ls(
    noun: Annotated[Literal["methods", "tasks", "backbones", "protocols", "kernels"], typer.Argument(metavar="NOUN")],
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """List methods, tasks, backbones, protocols or kernels."""
    from .listing import listing

    _use(plugin)
    print(listing(noun, as_json))


@app.command()
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
        seeds=_seeds(seeds),
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
        print(_json(planned.as_dict()) if as_json else display.plan_text(planned))


@app.command()
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
        seeds=_seeds(seeds),
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
        print(_json([record.model_dump(mode="json") for record in outcome.records]))
    return outcome.exit_code


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders of other machines.")],
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> int:
    """Join the records of several machines into one results folder; nothing there is changed."""
    from . import merge as merging

    return merging.command(folders, results, as_json)


@app.command()
def explain(
    method: Annotated[str, typer.Argument(metavar="METHOD", help='Such as lora or "lora(r=16)".')],
    task: Annotated[str, typer.Argument(metavar="TASK")],
    protocol: Protocol = "embedded",
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Show every value of a cell and where it came from."""
    from . import explain as explaining

    _use(plugin)
    explanation = explaining.explain(method, task, protocol)
    print(_json(explanation.as_dict()) if as_json else explaining.as_text(explanation))


@app.command()
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

    _use(plugin)
    print(command(method, backbone, classes, as_json, verbose))


@app.command()
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

    _use(plugin)
    if Path(subject).is_dir() and subject not in registry("methods"):
        from . import validate_records

        return validate_records.command(Path(subject), as_json)
    from .conformance import report

    return report.command(subject, models, as_json)


@app.command()
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

    _use(plugin)
    return tuning.tune_command(
        methods, families=families, protocol=protocol, results=results, jobs=jobs, write=write, as_json=as_json
    )


@app.command()
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


@app.command()
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


@app.command()
def check(
    baseline: Annotated[Path, typer.Option(metavar="FILE", help="What a run left earlier, see --update.")],
    protocol: Protocol = "smoke",
    methods: Methods = "all",
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

    _use(plugin)
    return checking.check_command(
        *(baseline, checking.Output(markdown, junit, as_json)),
        protocol=protocol,
        methods=methods,
        results=results,
        jobs=jobs,
        update=update,
    )


@app.command()
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

    _use(plugin)
    return leaderboard_command(results, out or results / "leaderboard", formats, check=check, freeze=freeze)


@app.command()
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

    _use(plugin)
    return report_command(results, out, protocol, check=check)


@app.command()
def doctor(as_json: AsJson = False, plugin: Plugins = None) -> int:
    """Say what this machine offers and whether a run can start.

    Opens no network connection.
    """
    from . import doctor as examination

    _use(plugin)
    report = examination.examine()
    print(_json(report.as_dict()) if as_json else examination.as_text(report))
    return 1 if report.problems else 0


def _use(plugins: list[Path] | None) -> None:
    if plugins:
        from .registry import use_plugins

        use_plugins(plugins)


def _seeds(text: str | None) -> list[int] | None:
    """Seeds as typed: "0,1,2"."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise UsageError(f"seeds are whole numbers such as 0,1,2, not {wrong[0]!r}")
    return [int(word) for word in words]


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
