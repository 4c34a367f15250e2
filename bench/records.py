"""Records: what one attempt at one cell left behind, as strict JSON that says what each number means.

`json_schema()` exports the format. A record never changes once written. Records of an older `schema_version` are
brought up to date when they are read, by the functions in `UPGRADES`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 3
Status = Literal["ok", "oom", "nan", "timeout", "error", "unsupported", "cancelled"]
FAILED: frozenset[Status] = frozenset({"oom", "nan", "timeout", "error"})

# how every record of version 1 and 2 was computed
PLAIN = {"dtype": "float32", "accumulate": 1, "checkpointing": False, "compile": False}

# {version: function that turns a record of this version into one of the next}
Upgrades = dict[int, Callable[[dict[str, Any]], dict[str, Any]]]
UPGRADES: Upgrades = {
    1: dict,  # version 2 added what trains by name, and the drift: unknown in older records
    2: lambda data: {"computation": PLAIN, **data},  # version 3 added it, and the origin; there was no other way before
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ProtocolIdentity(_Strict):
    """The rules of the comparison."""

    id: str
    version: int
    hash: str = Field(
        description="16 hex digits of the SHA-256 over the settings that shape this cell: the protocol's entry for the "
        "task's family, its optimiser, dtype, threads, and the selection share of a tuning trial"
    )


class MethodIdentity(_Strict):
    """The method with every hyper-parameter resolved."""

    id: str
    name: str = Field(description="the name as asked for, in canonical form; not part of the cell's key")
    version: int
    config: dict[str, Any] = Field(description="every hyper-parameter")


class TaskIdentity(_Strict):
    """The task."""

    id: str
    version: int


class BackboneIdentity(_Strict):
    """The pretrained model."""

    id: str
    weights: str = Field(description="16 hex digits over all its tensors")


class Cell(_Strict):
    """One point of the grid: protocol x method x task x backbone x seed. Machine and versions do not belong to it."""

    protocol: ProtocolIdentity
    method: MethodIdentity
    task: TaskIdentity
    backbone: BackboneIdentity
    seed: int
    selection: bool = Field(default=False, description="a tuning trial: trained and scored on the training split alone")
    steps: int | None = Field(
        default=None, description="optimiser steps where they are not the protocol's (tuning), else null"
    )

    @property
    def key(self) -> str:
        """16 hex digits of the SHA-256 over the identity in canonical JSON."""
        identity = self.model_dump(mode="json", exclude={"method": {"name"}})
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def folder(self) -> PurePosixPath:
        """Where its records lie, relative to the results folder."""
        protocol = f"{self.protocol.id}-tuning" if self.selection else self.protocol.id
        return PurePosixPath(protocol, self.task.id, self.method.id, self.key)

    def __str__(self) -> str:
        return f"{self.method.name} x {self.task.id} x seed {self.seed}"


class ErrorReport(_Strict):
    """Why an attempt failed."""

    type: str = Field(description="name of the exception, or how the process ended (`Signal`, `Exit`, `Watchdog`)")
    message: str
    traceback: str = Field(description="trimmed; of a process that was ended, where it was and what it printed last")


class Primary(_Strict):
    """The task's headline metric on the test split (of a tuning trial: on the held-out share of the training split)."""

    name: str
    value: float
    higher_is_better: bool


class PredictionsFile(_Strict):
    """Per-item predictions, a compressed npz beside the record.

    Arrays: `items` (names), `per_item` (float64, each item's contribution to the primary metric), and the task's own.
    """

    file: str = Field(pattern=r"^[0-9]+\.npz$", description="file name, in the record's folder")
    sha256: str


class CurvePoint(_Strict):
    """One optimiser step."""

    step: int
    loss: float = Field(description="training loss of the batch before the step")
    lr: float | None = Field(default=None, description="learning rate of the method's first parameter group")


class TrainedTensors(_Strict):
    """Trainable tensors whose names differ in numbers only."""

    tensors: int = Field(description="number of such tensors")
    parameters: int = Field(description="scalar parameters in all of them")


class ParameterCounts(_Strict):
    """Numbers of scalar parameters."""

    backbone: int = Field(description="parameters of the pretrained model")
    adapter: int = Field(description="trainable parameters of the method, backbone parameters it trains included")
    head: int = Field(description="trainable parameters of the task's head")
    total_trainable: int = Field(description="adapter + head")
    shipped_bytes: int = Field(description="bytes of the tensors a user would publish (head aside)")
    trained: dict[str, TrainedTensors] | None = Field(
        default=None,
        description="what trains, by name with every number written as *: the method's own tensors, `backbone.` and "
        "the name there, `head.` and the name there; null in records of version 1",
    )


class StepTimes(_Strict):
    """Wall seconds of an optimiser step (batch, forward, backward, update); the first step is left out as warm-up."""

    n: int = Field(description="steps measured")
    median: float
    p10: float
    p90: float


class Times(_Strict):
    """Wall seconds of the phases, on a machine that may have run other cells at the same time; null: not reached."""

    start: float | None = Field(
        default=None, description="from the parent's request for a process to the start of the cell"
    )
    load: float | None = Field(default=None, description="load the backbone")
    data: float | None = Field(default=None, description="build splits and prepare them for the backbone")
    attach: float | None = Field(default=None, description="build the method and add it to the backbone")
    fit: float | None = Field(default=None, description="train")
    evaluate: float | None = Field(default=None, description="predict the evaluation split and score it")
    probe: float | None = Field(default=None, description="answer the probe of the drift, before and after")
    total: float | None = Field(default=None, description="from the start of the cell to the record")
    step: StepTimes | None = None


class Drift(_Strict):
    """Forgetting: how far the adapted backbone is from the pretrained one on a fixed probe, see `bench/drift.py`."""

    measure: Literal["cka_distance", "bits_per_byte_rise"]
    value: float = Field(description="0 where the backbone answers as before; larger is further away")
    items: int = Field(description="items of the probe")


class MemoryUse(_Strict):
    """Memory of the cell's process."""

    peak_rss_above_baseline_bytes: int = Field(description="largest resident set, less the one at the cell's start")
    baseline_rss_bytes: int = Field(description="resident set at the cell's start: the interpreter and its libraries")
    limit_bytes: int | None = Field(default=None, description="limit set on the process's data by the user, else null")


class DataFingerprints(_Strict):
    """Hashes of the data this attempt saw."""

    train: str
    test: str | None = Field(description="null while it was not built: tuning trials, and attempts that ended before")
    matches_card: bool | None = Field(
        description="whether they are the ones that the task's card states; null where it pins their source instead"
    )


class Computation(_Strict):
    """How training was computed, see the fields of the same names in `bench/protocol.py`."""

    dtype: Literal["float32", "bfloat16"] = Field(
        description="of the products in forward and backward passes; weights and optimiser states are float32"
    )
    accumulate: int = Field(description="parts in which a step's batch was computed")
    checkpointing: bool = Field(description="whether blocks were computed a second time in the backward pass")
    compile: bool = Field(description="whether the backbone with its method was compiled by torch.compile")


class Origin(_Strict):
    """Where a record was written, for one that was merged from another folder."""

    results: str = Field(description="the results folder, by as many last parts of its path as told it from others")
    attempt: int = Field(description="its number there")


class Environment(_Strict):
    """Provenance; not part of the cell's key."""

    commit: str | None = Field(description="git commit of the suite, null outside a checkout")
    dirty: bool | None = Field(description="whether code or YAML differed from that commit")
    versions: dict[str, str] = Field(description="python and the packages that shape results")
    platform: str
    cpu: str
    cores: int = Field(description="cores this process may use")
    threads: int = Field(description="threads of the cell")
    jobs: int = Field(description="cells that ran at the same time at most")
    device: str


class Record(_Strict):
    """One attempt at one cell."""

    schema_version: int = SCHEMA_VERSION
    key: str = Field(description="hash of `cell`; equal keys are attempts at the same cell")
    attempt: int = Field(ge=1)
    status: Status
    phase: str = Field(description="where it ended: start, load, probe, data, attach, fit, evaluate, or done")
    error: ErrorReport | None = None
    cell: Cell
    metrics: dict[str, float] = Field(default_factory=dict, description="every metric of the task")
    primary: Primary | None = None
    predictions: PredictionsFile | None = None
    drift: Drift | None = Field(default=None, description="null in records of version 1 and where it was not reached")
    curve: tuple[CurvePoint, ...] = ()
    parameters: ParameterCounts | None = None
    times: Times = Times()
    memory: MemoryUse | None = None
    data: DataFingerprints | None = None
    computation: Computation | None = Field(default=None, description="null where it ended before it began to compute")
    origin: Origin | None = Field(default=None, description="null where it lies in the folder it was written in")
    environment: Environment
    started: str = Field(description="UTC, ISO 8601")
    finished: str = Field(description="UTC, ISO 8601")


def to_json(record: Record) -> str:
    """Canonical text of a record."""
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str) -> Record:
    """A record, upgraded when an older version wrote it. Raises ValueError that says what is wrong with the text."""
    record = Record.model_validate(versioned(text, SCHEMA_VERSION, UPGRADES))
    if record.key != record.cell.key:
        raise ValueError(f"its key {record.key} is not the key of its cell, {record.cell.key}")
    return record


def versioned(text: str, present: int, upgrades: Upgrades) -> dict[str, Any]:
    """JSON text with a `schema_version`, brought to the present one, one version at a time. Raises ValueError."""
    data = json.loads(text, parse_constant=_refuse)
    if not isinstance(data, Mapping) or not isinstance(data.get("schema_version"), int):
        raise ValueError("it has no schema_version")
    data = dict(data)
    while (version := data["schema_version"]) != present:
        if version not in upgrades:
            age = "newer" if version > present else "unknown"
            raise ValueError(f"schema_version {version} is {age}; this release reads up to {present}")
        data = {**upgrades[version](data), "schema_version": version + 1}
    return data


def json_schema() -> dict[str, Any]:
    """JSON schema of a record, with the definition of every field."""
    return Record.model_json_schema()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
