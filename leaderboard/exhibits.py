"""What stands beside the results on the board: cards, cost profiles, tuning trials, published tables, releases."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CellStatus = Literal["ok", "partial", "oom", "nan", "timeout", "error", "cancelled", "unsupported", "missing"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Method(Strict):
    """A method's card; what is not known here (a plug-in's method) has empty fields."""

    id: str
    title: str
    version: int | None
    category: str
    families: tuple[str, ...]
    compute: str
    summary: str
    paper: dict[str, Any] | None
    checks: tuple[dict[str, str], ...]
    recipe: str | None


class Task(Strict):
    id: str
    title: str
    version: int | None
    family: str
    group: str | None
    metric: str
    higher_is_better: bool
    unit: str = Field(description='"%" or empty')
    licence: str
    citation: str
    description: str
    sizes: dict[str, int]


class Protocol(Strict):
    id: str
    version: int
    title: str
    description: str
    backbones: dict[str, str] = Field(description="task family -> backbone")
    settings: dict[str, Any]


class Backbone(Strict):
    id: str
    title: str
    parameters: int | None
    licence: str


class Timing(Strict):
    """One measured condition; seconds of a call."""

    what: str
    batch: int | None
    merged: bool | None = Field(description="null: the bare backbone, or neither")
    dtype: str
    threads: int
    n: int
    median: float
    p10: float
    p90: float


class Cost(Strict):
    """A cost profile, see `bench/costs.py` for the definition of every figure; null: not measured."""

    name: str
    method: str
    backbone: str
    family: str
    batch: int
    inputs: dict[str, Any]
    machine: str
    device: str
    cpu: str
    status: str
    reason: str | None
    ledger: dict[str, int] | None = Field(description="bytes of one training step by part, canonical form")
    ledger_peak: int | None
    train_peak_rss: int | None
    inference_peak_rss: int | None
    train_operations: int | None
    inference_operations: int | None
    timings: tuple[Timing, ...]
    adapter_file_bytes: int | None
    busy: bool = Field(description="the machine did other work: times are worth little")
    record: str

    def timing(self, what: str, batch: int | None = None, merged: bool | None = None) -> Timing | None:
        """The condition asked for, where it was measured."""
        wanted = (what, batch, merged)
        return next((t for t in self.timings if (t.what, t.batch, t.merged) == wanted), None)


class Trial(Strict):
    values: dict[str, Any]
    score: float | None
    status: CellStatus
    record: str
    chosen: bool = Field(description="whether today's recipe has these values")


class Tuning(Strict):
    """The trials of one method on one task; scores of a part of the training split that was held out."""

    name: str
    method: str
    protocol: str
    protocol_version: int
    machine: str
    backbone: str
    task: str
    trials: tuple[Trial, ...]


class PublishedRow(Strict):
    label: str
    method: str | None = Field(description="id of our method, where it is the same")
    values: dict[str, float]
    mean: float
    parameters: str = Field(description="as printed")
    ppt: float | None


class Published(Strict):
    """A published table. It stands beside ours and is ranked with nothing: other data, models and budgets."""

    id: str
    title: str
    suite: str = Field(description="the suite's name as published")
    beside: str = Field(description="key of our suites that it is shown beside")
    unit: str
    citation: str
    url: str
    setting: str
    caveat: str
    tasks: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


class Release(Strict):
    """A frozen snapshot, see `releases`."""

    name: str
    date: str
    digest: str
    records: int
    folder: str = Field(description="relative to the results folder")
    archive_sha256: str
    changes: tuple[str, ...] = Field(description="since the release before; empty for the first")
