"""The command `bench`. Each verb imports what it needs when it is called, so that `--help` and `ls` stay fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from . import cell_commands, question_commands, result_commands
from .asset_commands import app as asset_app
from .errors import AtlasError
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
for verb in (
    question_commands.ls,
    cell_commands.plan,
    cell_commands.run,
    result_commands.merge,
    question_commands.explain,
    question_commands.params,
    question_commands.validate,
    cell_commands.tune,
    cell_commands.profile,
    result_commands.compare,
    result_commands.check,
    result_commands.leaderboard,
    result_commands.report,
    question_commands.doctor,
):
    app.command()(verb)


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
