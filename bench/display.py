"""What a person sees of a run: the plan, live progress, and the words at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from .plan import Plan
from .records import Cell, Record
from .runner import Listener
from .statistics import Estimate
from .tables import PERCENT, unsupported_lines, value_text

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.progress import TaskID

FIT_SHARE = 0.9  # of a cell's time, for the estimate of what is left
Style = Literal["auto", "rich", "plain", "none"]


def plan_text(plan: Plan) -> str:
    """The plan in a few lines: how many cells, which cannot be, and why."""
    asked = len(plan.cells) + len({cell.key for cell, _ in plan.unsupported})
    parts = [f"{len(plan.run)} to run", f"{len(plan.cached)} cached"]
    if plan.skipped:
        parts.append(f"{len(plan.skipped)} not there")
    if plan.unsupported:
        parts.append(f"{len(plan.unsupported)} unsupported")
    lines = [f"protocol {plan.protocol.id} v{plan.protocol.version}: {_count(asked, 'cell')}: {', '.join(parts)}"]
    by_method: dict[str, dict[str, list[int]]] = {}
    for cell in plan.run:
        by_method.setdefault(cell.method.name, {}).setdefault(cell.task.id, []).append(cell.seed)
    for name, tasks in by_method.items():
        lines.append(f"  {name}: {', '.join(_with_seeds(task, seeds) for task, seeds in tasks.items())}")
    return "\n".join([*lines, *(f"  {line}" for line in unsupported_lines(plan))])


def record_text(record: Record) -> str:
    """How one cell ended, in one line."""
    seconds = "" if record.times.total is None else f" ({record.times.total:.1f} s)"
    if record.status == "ok" and record.primary is not None:
        factor = 100 if record.primary.name in PERCENT else 1
        value = value_text(Estimate(factor * record.primary.value, None), record.primary.name)
        return f"{record.cell}: {record.primary.name} {value}{seconds}"
    message = f": {record.error.message.splitlines()[0]}" if record.error and record.error.message else ""
    return f"{record.cell}: {record.status} in {record.phase}{message}{seconds}"


def resume_command(options: dict[str, Any]) -> str:
    """The command that continues a run; `options` in order, those that are None left out."""
    words = ["bench", "run"]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                words += [f"--{name}", str(one)]
    return shlex.join(words)


def make_display(style: Style) -> Display:
    """`auto`: rich on a terminal, plain lines elsewhere."""
    if style == "none":
        return Display()
    if style == "rich" or (style == "auto" and sys.stderr.isatty()):
        return RichDisplay()
    return PlainDisplay()


class Display(Listener):
    """Says nothing; the others say it their way. Progress goes to stderr, results to stdout."""

    def say(self, text: str) -> None:
        """A result: the plan, the table."""

    def warn(self, text: str) -> None:
        """Something the user should act on."""
        print(f"bench: {text}", file=sys.stderr)

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """Show that something takes seconds."""
        return nullcontext()

    @contextmanager
    def cells(self, total: int) -> Iterator[None]:
        """Around the run of `total` cells."""
        yield

    def asset(self, asset_id: str, done: int, total: int) -> None:
        """Bytes of an asset that is being fetched."""


class PlainDisplay(Display):
    """A line when a cell starts and one when it ends, for logs."""

    def __init__(self) -> None:
        self.total = self.ended = 0
        self._assets: set[str] = set()
        self._waiting = False

    def say(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def cells(self, total: int) -> Iterator[None]:
        self.total = total
        yield

    def started(self, cell: Cell) -> None:
        print(f"start {cell}", file=sys.stderr, flush=True)

    def finished(self, cell: Cell, record: Record) -> None:
        self.ended += 1
        print(f"[{self.ended}/{self.total}] {record_text(record)}", file=sys.stderr, flush=True)

    def waiting(self, cells: int) -> None:
        if not self._waiting:
            print(f"waiting for {_count(cells, 'cell')} that another run is working on", file=sys.stderr, flush=True)
        self._waiting = True

    def asset(self, asset_id: str, done: int, total: int) -> None:
        if asset_id not in self._assets:
            self._assets.add(asset_id)
            print(f"fetching {asset_id} ({total / 1e6:.0f} MB)", file=sys.stderr, flush=True)


class RichDisplay(Display):
    """A line for each running cell and a bar over all, with the time that is left."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True, highlight=False)
        self._lines: dict[str, TaskID] = {}
        self._share: dict[str, float] = {}
        self._ended = 0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def busy(self, text: str) -> AbstractContextManager[Any]:
        return self.console.status(text)

    @contextmanager
    def cells(self, total: int) -> Iterator[None]:
        from rich import progress
        from rich.console import Group
        from rich.live import Live

        self._cells = progress.Progress(
            progress.TextColumn("  {task.description}", markup=False),
            progress.TextColumn("{task.fields[phase]}", style="cyan"),
            progress.BarColumn(bar_width=16),
            progress.TextColumn("{task.fields[steps]:>9}"),
            progress.TextColumn("{task.fields[loss]:>11}"),
            progress.TimeElapsedColumn(),
            console=self.console,
        )
        self._overall = progress.Progress(
            progress.TextColumn("cells"),
            progress.BarColumn(bar_width=30),
            progress.TextColumn("{task.fields[ended]}/{task.total:.0f}{task.fields[bad]}"),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("spent"),
            progress.TimeElapsedColumn(),
            console=self.console,
            speed_estimate_period=600,
        )
        self._bar = self._overall.add_task("cells", total=total, ended=0, bad="")
        self._bad = 0
        with Live(Group(self._cells, self._overall), console=self.console, refresh_per_second=8, transient=True):
            yield

    def started(self, cell: Cell) -> None:
        self._lines[cell.key] = self._cells.add_task(str(cell), total=None, phase="start", steps="", loss="")

    def progress(self, cell: Cell, report: dict[str, Any]) -> None:
        line = self._lines[cell.key]
        step, steps, loss = report.get("step"), report.get("steps"), report.get("loss")
        counted = step is not None and steps is not None
        self._cells.update(
            line,
            phase=report.get("phase", ""),
            completed=step or 0,
            total=steps,
            steps=f"{step}/{steps}" if counted else "",
            loss="" if loss is None else f"loss {loss:.3f}",
        )
        if step is not None and steps is not None and report.get("phase") == "fit":
            self._share[cell.key] = FIT_SHARE * step / steps
            self._move()

    def finished(self, cell: Cell, record: Record) -> None:
        if cell.key in self._lines:
            self._cells.remove_task(self._lines.pop(cell.key))
        self._share.pop(cell.key, None)
        self._ended += 1
        self._bad += record.status != "ok"
        self._move()
        style = None if record.status == "ok" else "red"
        self.console.print(record_text(record), style=style, markup=False, soft_wrap=True)

    def waiting(self, cells: int) -> None:
        self._overall.update(self._bar, bad=f" ({cells} held by another run)")

    def asset(self, asset_id: str, done: int, total: int) -> None:
        share = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else ""
        self.console.print(f"fetching {asset_id}: {share}", end="\r", markup=False)
        if done >= total:
            self.console.print()

    def _move(self) -> None:
        bad = f", {self._bad} failed" if self._bad else ""
        done = self._ended + sum(self._share.values())
        self._overall.update(self._bar, completed=done, ended=self._ended, bad=bad)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _with_seeds(task: str, seeds: Sequence[int]) -> str:
    return task if len(seeds) == 1 else f"{task} (seeds {','.join(map(str, seeds))})"
