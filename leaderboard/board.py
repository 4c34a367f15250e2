"""The board: everything that tables, plots and pages show, as one model that is also JSON.

`data.build` makes it from a results folder; writers read nothing else. Texts are as the records have them: each writer
makes them inert in its own format (`escaping`). Scores and intervals are in the unit of their task (`Task.unit`); bytes
are bytes, times are seconds. Paths of records are relative to the results folder, paths of recipes to the repository.

Nothing in it depends on when or where it was made: the same records give the same board.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .exhibits import Backbone as Backbone
from .exhibits import CellStatus as CellStatus
from .exhibits import Cost as Cost
from .exhibits import Method as Method
from .exhibits import Protocol as Protocol
from .exhibits import Published as Published
from .exhibits import PublishedRow as PublishedRow
from .exhibits import Release as Release
from .exhibits import Strict
from .exhibits import Task as Task
from .exhibits import Timing as Timing
from .exhibits import Trial as Trial
from .exhibits import Tuning as Tuning

SCHEMA_VERSION = 1
Mark = Literal["maintainers", "self-reported", "verified"]
STATUS_MEANING: dict[str, str] = {
    "ok": "every seed has a score",
    "partial": "some seeds have a score, others failed or are missing",
    "oom": "ran out of memory",
    "nan": "the loss or a gradient was no number",
    "timeout": "took longer than the protocol allows",
    "error": "ended with an error",
    "cancelled": "was interrupted",
    "unsupported": "the method needs a place that the backbone or the task does not have",
    "missing": "was not run",
}


class Interval(Strict):
    """A mean and the half-width of its 95% interval; null where there is too little to tell."""

    mean: float
    half_width: float | None


class Setting(Strict):
    """A hyper-parameter: the value that was recorded, and where today's recipe has it from."""

    name: str
    value: Any
    layer: str | None = Field(description="layer of the recipe; null where the recipe has another value today")
    source: str | None


class Score(Strict):
    """One seed of a cell: the attempt that counts."""

    seed: int
    status: CellStatus
    value: float | None
    record: str
    predictions: str | None
    reason: str | None = Field(description="first line of the error of an attempt that failed")
    mark: Mark
    curve: tuple[float, ...] = Field(description="training loss, means over equal spans of steps")
    steps: int = Field(description="optimiser steps that the curve covers")


class Entry(Strict):
    """One method on one task, over its seeds."""

    task: str
    backbone: str
    status: CellStatus
    reason: str | None = Field(description="why there is no score, or why seeds lack")
    interval: Interval | None
    scores: tuple[Score, ...]
    ece: float | None = Field(default=None, description="expected calibration error, mean over seeds")
    drift: float | None = Field(default=None, description="forgetting, see bench/drift.py; mean over seeds")
    trainable: int | None = Field(default=None, description="parameters the method trains, head aside")
    head: int | None = None
    shipped_bytes: int | None = None
    settings: tuple[Setting, ...] = ()
    method_version: int | None = None
    commits: tuple[str, ...] = Field(default=(), description="commits of the suite that the records were made with")
    command: str | None = Field(default=None, description="the shell command that runs these cells again")
    same_cell: bool | None = Field(
        default=None, description="whether the command gives the recorded cell with today's recipe; null: not known"
    )
    cost: int | None = Field(default=None, description="place in `Board.costs`; null: not measured")


class Contender(Strict):
    """A method with its arguments in one suite; an entry for each of the suite's tasks, in their order."""

    name: str = Field(description='canonical, as typed: "lora(r=16)"')
    method: str = Field(description="id of the method")
    compute: str = Field(description="compute class: equal-steps, own-budget, training-free, or unknown")
    budget: str | None = Field(description="the argument `budget`; such names are ranked among themselves")
    entries: tuple[Entry, ...]


class Standing(Strict):
    """A contender in a ranking, see `bench/ranking.py` for what the numbers are."""

    name: str
    rank: int | None = Field(description="1 + the number of methods that are significantly better; null: no ok cell")
    means: dict[str, Interval | None] = Field(
        description="mean, mean of groups, mean <group>; null where a cell of it is imputed; empty for several metrics"
    )
    mean_rank: float | None
    win_rate: float | None
    quality: float | None = Field(description="what is compared: the plain mean, imputed where needed")
    seeds: str
    imputed: tuple[str, ...] = Field(description="tasks whose value is imputed")
    failed: str


class Pair(Strict):
    """Mean of b - a in units of `Standing.quality`."""

    a: str
    b: str
    mean: float
    half_width: float | None
    p_holm: float | None


class TradeoffPoint(Strict):
    name: str
    cost: float
    quality: float
    half_width: float | None
    on_front: bool
    clearly_off: bool = Field(description="a method that is no dearer is significantly better")


class Tradeoff(Strict):
    """Quality against one cost, see `bench/tradeoff.py`. Methods whose cost or mean is not known are left out."""

    cost: str = Field(description="key of `COSTS`")
    machine: str | None = Field(description="where it was measured; null for counts, which no machine changes")
    points: tuple[TradeoffPoint, ...]
    lacking: tuple[str, ...] = Field(description="ranked methods that are left out")


class Detectable(Strict):
    """Differences in units of `Standing.quality` that 80% of repetitions would find, see `bench/pairwise.py`."""

    alone: float
    among_all: float
    pairs: int


class Ranking(Strict):
    """The contenders of one compute class and one budget on the tasks that have results."""

    compute: str
    budget: str | None
    tasks: tuple[str, ...]
    lacking: tuple[str, ...] = Field(description="tasks of the suite without any score: no part of mean and rank")
    standings: tuple[Standing, ...] = Field(description="best first")
    pairs: tuple[Pair, ...]
    tradeoffs: tuple[Tradeoff, ...]
    notes: tuple[str, ...]
    detectable: Detectable | None = Field(default=None, description="null: no two methods with all cells")


class Suite(Strict):
    """A suite's results under one version of one protocol on one class of machine: what may be compared."""

    id: str = Field(description="unique, safe in a file name and a link")
    name: str = Field(description="resolved name of the suite; of tasks that no suite holds, the task's")
    protocol: str
    protocol_version: int
    machine: str
    tasks: tuple[str, ...]
    contenders: tuple[Contender, ...]
    rankings: tuple[Ranking, ...]
    set_aside: tuple[str, ...] = Field(description="records that do not count here, a line for each reason")


class Board(Strict):
    """All of it."""

    schema_version: int = SCHEMA_VERSION
    version: str = Field(description="of the package that made it")
    digest: str = Field(description="16 hex digits of the SHA-256 over the records that count")
    records: int
    suites: tuple[Suite, ...]
    methods: dict[str, Method]
    tasks: dict[str, Task]
    protocols: dict[str, Protocol] = Field(description='by "id@version"')
    backbones: dict[str, Backbone]
    costs: tuple[Cost, ...]
    tuning: tuple[Tuning, ...]
    published: tuple[Published, ...]
    releases: tuple[Release, ...]

    def tasks_metric(self, task: str) -> str:
        """The metric of a task; of one without any record, "unknown"."""
        return self.tasks[task].metric if task in self.tasks else "unknown"


COSTS: dict[str, tuple[str, str]] = {  # what a trade-off can be against: title, unit
    "trainable": ("trainable parameters", ""),
    "ledger_peak": ("memory of a training step (ledger)", "MiB"),
    "seconds_step": ("time of a training step", "ms"),
}
