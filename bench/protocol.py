"""Protocols: everything that must be equal for all methods of a comparison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from .cards import fault, unknown_key
from .errors import UsageError, did_you_mean
from .records import Computation
from .registry import Entry, registry

if TYPE_CHECKING:
    from ..tasks.contract import Card as TaskCard


# fields of `FamilySettings` that came after records were published, with the value that says nothing
LATER: dict[str, Any] = {"buckets": 1, "accumulate": 1, "checkpointing": False, "compile": False}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FamilySettings(_Strict):
    """Backbone, inputs and training length of one task family."""

    backbone: str
    inputs: dict[str, Any] = Field(default_factory=dict, description="options of the backbone: image_size, max_tokens")
    steps: int = Field(gt=0, description="optimiser steps of the `equal-steps` compute class")
    batch: int = Field(gt=0, description="items a step")
    eval_batch: int = Field(gt=0, description="items at once in evaluation")
    head_lr: float | None = Field(gt=0, description="peak learning rate of the head; null where there is none")
    buckets: int = Field(
        default=1, gt=0, description="batches drawn together and cut after sorting by length: less padding"
    )
    accumulate: int = Field(
        default=1, gt=0, description="parts in which a step's batch is computed, one after the other"
    )
    checkpointing: bool = Field(
        default=False, description="compute blocks again in the backward pass to keep less for it"
    )
    compile: bool = Field(default=False, description="compile the backbone with the method on it")

    @model_validator(mode="after")
    def _parts_of_a_batch(self) -> FamilySettings:
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate: a batch of {self.batch} has no {self.accumulate} parts")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without later fields where they say nothing: hashes of protocols and keys of cells stay what they were."""
        return {name: value for name, value in fields(self).items() if name not in LATER or value != LATER[name]}


class TaskSettings(_Strict):
    """What one task sets otherwise than its family; what is left out stays the family's."""

    inputs: dict[str, Any] = Field(default_factory=dict, description="options of the backbone, beside the family's")
    steps: int | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, gt=0)


class OptimizerSettings(_Strict):
    """The optimiser and its schedule, the same for every method."""

    name: Literal["adamw"]
    betas: tuple[float, float]
    eps: float = Field(gt=0)
    schedule: Literal["cosine", "linear"] = Field(description="how the learning rate falls to zero after the warm-up")
    warmup: float = Field(ge=0, lt=1, description="share of the steps with a linear rise of the learning rate")
    clip: float = Field(gt=0, description="largest norm of the gradient over all that trains")
    head_weight_decay: float = Field(ge=0)


class Suite(_Strict):
    """Tasks that are reported together. `name` is what tables print, so that a stand-in cannot pass for the suite."""

    name: str
    tasks: tuple[str, ...] = Field(min_length=1)


class Tuning(_Strict):
    """The budget that `bench tune` gives to every method."""

    selection: float = Field(gt=0, lt=1, description="share of the training split held out, its last items")
    trials: int = Field(gt=0)
    steps: dict[str, int] = Field(description="steps of a trial, by family")
    tasks: dict[str, tuple[str, ...]] = Field(description="tasks that a trial runs, by family")


class Protocol(_Strict):
    """A versioned protocol, as its YAML states it."""

    id: str
    version: int = Field(gt=0)
    title: str
    description: str
    seeds: tuple[int, ...] = Field(min_length=1)
    families: dict[str, FamilySettings]
    tasks: dict[str, TaskSettings] = Field(default_factory=dict, description="exceptions, by task")
    optimizer: OptimizerSettings
    dtype: Literal["float32", "bfloat16"] = Field(description="of products in forward and backward passes")
    threads: int = Field(gt=0, description="threads of one cell")
    timeout: float = Field(gt=0, description="longest time of one cell in seconds")
    suites: dict[str, Suite]
    tuning: Tuning

    @property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of its canonical JSON, titles and descriptions aside."""
        unsaid = {"title", "description"} | (set() if self.tasks else {"tasks"})  # older than the field: same hash
        content = self.model_dump(mode="json", exclude=unsaid)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def resolve_tasks(self, names: str | Iterable[str]) -> list[str]:
        """Task ids of suites (by key or by full name) and tasks: order kept, no doubles. UsageError for others."""
        words = names.split(",") if isinstance(names, str) else [part for name in names for part in name.split(",")]
        suites = {key: suite.tasks for name, suite in self.suites.items() for key in (name, suite.name)}
        tasks = registry("tasks")
        found: dict[str, None] = {}
        for word in map(str.strip, words):
            if word not in suites and word not in tasks:
                near = did_you_mean(word, {*suites, *tasks.ids()})
                raise UsageError(
                    f"unknown task or suite {word!r} (protocol {self.id}).{near or ' `bench ls tasks` lists them.'}"
                )
            found.update(dict.fromkeys(suites.get(word, (word,))))
        for task_id in found:
            self.family(tasks.card(task_id))
        return list(found)

    def suite_of(self, task_id: str) -> str | None:
        """Full name of the first suite with this task ("vtab-embedded"), or None."""
        return next((suite.name for suite in self.suites.values() if task_id in suite.tasks), None)

    def family(self, task: TaskCard) -> FamilySettings:
        """Settings for a task: its family's, with its own exceptions. UsageError where the protocol has none."""
        if task.family not in self.families:
            raise UsageError(f"protocol {self.id} has no settings for {task.family} tasks such as {task.id}")
        settings, own = self.families[task.family], self.tasks.get(task.id, TaskSettings())
        changed = {name: value for name in ("steps", "batch") if (value := getattr(own, name)) is not None}
        return settings.model_copy(update={**changed, "inputs": {**settings.inputs, **own.inputs}})

    def computation(self, task: TaskCard) -> Computation:
        """How training on a task is computed, as its records say it."""
        settings = self.family(task)
        return Computation(
            dtype=self.dtype,
            accumulate=settings.accumulate,
            checkpointing=settings.checkpointing,
            compile=settings.compile,
        )


def load_protocol(protocol_id: str) -> Protocol:
    """A protocol by id. UsageError with the nearest ids for an unknown one."""
    return registry("protocols").card(protocol_id)


def read_protocol(entry: Entry) -> Protocol:
    """Check a protocol's card; the first fault becomes a UsageError with file, line and key."""
    try:
        return Protocol.model_validate(entry.data)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        path = first["loc"]
        if first["type"] == "extra_forbidden":
            raise unknown_key(entry.file, path, _siblings(path)) from None
        if first["type"] == "missing":
            raise fault(entry.file, path, f"the key {path[-1]!r} is missing") from None
        message = first["msg"].replace("Input should be", "must be")
        raise fault(entry.file, path, f"{path[-1]} {message}") from None


def _siblings(path: tuple[int | str, ...]) -> list[str]:
    """Keys that would have been right where `path` ends."""
    inside: dict[str | int, type[BaseModel]] = {
        "families": FamilySettings,
        "tasks": TaskSettings,
        "optimizer": OptimizerSettings,
        "suites": Suite,
        "tuning": Tuning,
    }
    return list((inside[path[0]] if len(path) > 1 else Protocol).model_fields)
