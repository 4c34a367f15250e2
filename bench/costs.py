"""Cost profiles: what a configured method costs on a backbone at one input shape, measured alone on a machine.

Costs do not depend on the seed, the labels or the learning rate, so they are measured once and joined to cells when
tables are made. A profile is a record of its own: `profiles/<backbone>/<method>/<key>/profile-<n>.json` in the results
folder, one file an attempt, never changed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .other_load import BUSY
from .records import (
    BackboneIdentity,
    Environment,
    ErrorReport,
    MethodIdentity,
    ParameterCounts,
    Status,
    Upgrades,
    versioned,
)

SCHEMA_VERSION = 2
RULE = (
    "wall seconds of one call; the first calls are left out as warm-up, no other is: slow ones belong to the machine, "
    "and median, p10 and p90 bear them"
)
UPGRADES: Upgrades = {1: lambda content: {**content, "other_load": None}}  # as in `records`; 1 knew only the average


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Subject(_Strict):
    """What is measured: all that shapes the costs, and nothing else."""

    method: MethodIdentity = Field(description="its learning rate `lr` is no part of the key")
    backbone: BackboneIdentity
    family: str
    inputs: dict[str, Any] = Field(description="the protocol's input settings: image_size, max_tokens ...")
    batch: int = Field(description="items of a training step")
    classes: int | None = Field(
        description="classes, told by a linear head or by names; null where the family has none"
    )
    optimizer: dict[str, Any]
    dtype: str
    device: str
    threads: int

    @property
    def key(self) -> str:
        """16 hex digits of the SHA-256 over the subject in canonical JSON."""
        identity = self.model_dump(mode="json", exclude={"method": {"name": True, "config": {"lr"}}})
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def folder(self) -> PurePosixPath:
        """Where its profiles lie, relative to the results folder."""
        return PurePosixPath("profiles", self.backbone.id, self.method.id, self.key)

    def __str__(self) -> str:
        return f"{self.method.name} on {self.backbone.id}"


class TrainingLedger(_Strict):
    """Bytes of one training step, counted over unique storages, see `bench/ledger.py`.

    `canonical`: CPU, fp32, no autocast, attention by the flash kernel where it applies and by plain products elsewhere;
    the same on every machine of one torch version. `native`: device, dtype and attention kernels as the profile ran.
    """

    form: Literal["canonical", "native"]
    frozen_weights: int = Field(description="parameters and buffers that do not train, of backbone, method and head")
    trained_weights: int = Field(description="parameters that train, of backbone, method and head")
    gradients: int = Field(description="gradients when the optimiser's step begins")
    optimizer_state: int = Field(description="tensors of the optimiser after its step")
    activations: int = Field(
        description="largest sum of storages that autograd keeps for the backward pass at one time; weights aside, "
        "copies of weights in another dtype aside; under activation checkpointing without what is computed twice"
    )
    weight_copies: int = Field(
        description="the part of what autograd keeps that is copies of weights in another dtype, as autocast makes "
        "them of frozen weights too"
    )
    peak: int = Field(
        description="largest sum of storages alive at one time in the step: weights, optimiser state, and all that "
        "the step makes; what kernels use inside themselves is not seen"
    )


class InferenceLedger(_Strict):
    """Bytes of one forward pass without gradients, 32 items, counted as in the canonical training ledger."""

    weights: int = Field(description="parameters and buffers of backbone, method and head, not merged")
    peak: int = Field(description="weights and the largest sum of storages that the pass makes")


class PeakMemory(_Strict):
    """Measured peaks of the process; null where the system cannot tell."""

    train_rss_above_baseline: int | None = Field(
        description="largest resident set from the load of the backbone to the second training step, in bytes, less "
        "the one before: the interpreter and its libraries"
    )
    inference_rss_above_baseline: int | None = Field(description="the same over one forward pass of 32 items")
    baseline_rss: int | None = Field(description="resident set before the backbone was loaded, in bytes")


class Operations(_Strict):
    """Floating-point operations of matrix products, convolutions and attention (a multiply-add is two)."""

    train_forward: int = Field(description="of one training step's forward passes")
    train_backward: int = Field(description="of its backward passes")
    inference_per_item: int = Field(description="of one item's forward pass, not merged")
    inference_per_item_merged: int | None = Field(description="the same when merged; null where it cannot be")


class Timing(_Strict):
    """One measured condition; seconds, see `costs.RULE` for warm-up and outliers."""

    what: Literal["train step", "inference", "load adapter", "switch adapter", "merge"]
    batch: int | None = Field(description="items of a call; null where there are none")
    merged: bool | None = Field(description="whether the method was merged; null: the bare backbone, or neither")
    dtype: str
    device: str
    threads: int
    n: int = Field(description="calls measured")
    warm_up: int = Field(description="calls left out before them")
    median: float
    p10: float
    p90: float


class CostProfile(_Strict):
    """One measurement of a subject. What could not be measured is null, and `notes` says why."""

    schema_version: int = SCHEMA_VERSION
    key: str
    status: Status
    error: ErrorReport | None = None
    subject: Subject
    notes: tuple[str, ...] = ()
    tokens_per_item: int | None = Field(default=None, description="tokens of an item; null for images")
    parameters: ParameterCounts | None = None
    training: tuple[TrainingLedger, ...] = Field(
        default=(), description="canonical, then native; empty where training is no gradient descent"
    )
    inference: InferenceLedger | None = None
    peak: PeakMemory | None = None
    operations: Operations | None = None
    timings: tuple[Timing, ...] = ()
    fit_overhead_seconds: float | None = Field(
        default=None, description="what the method does once, before its first step (importance scores, decompositions)"
    )
    adapter_file_bytes: int | None = Field(
        default=None, description="size of the safetensors file that a user would publish, head aside"
    )
    environment: Environment
    load_average: float | None = Field(
        default=None, description="of the minute before it began, in which this suite may have measured something else"
    )
    other_load: float | None = Field(
        default=None, description="cores that other processes kept busy, on average, while it was measured"
    )
    started: str = Field(description="UTC, ISO 8601")
    finished: str = Field(description="UTC, ISO 8601")

    @property
    def busy(self) -> bool:
        """Whether other work took so much of the machine that times are worth little."""
        load = self.load_average if self.other_load is None else self.other_load
        return load is not None and load > BUSY

    def timing(self, what: str, batch: int | None = None, merged: bool | None = None) -> Timing | None:
        """The condition asked for, where it was measured."""
        wanted = (what, batch, merged)
        return next((t for t in self.timings if (t.what, t.batch, t.merged) == wanted), None)


def to_json(profile: CostProfile) -> str:
    """Canonical text of a profile."""
    return json.dumps(profile.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str) -> CostProfile:
    """A profile, upgraded when an older version wrote it. Raises ValueError that says what is wrong with the text."""
    profile = CostProfile.model_validate(versioned(text, SCHEMA_VERSION, UPGRADES))
    if profile.key != profile.subject.key:
        raise ValueError(f"its key {profile.key} is not the key of its subject, {profile.subject.key}")
    return profile
