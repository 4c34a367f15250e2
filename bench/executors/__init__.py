"""Cells on other machines, by engines that exist: Ray and Slurm.

An executor hands out cells and does nothing else: what runs one there is `Runner`, as here, with its limits and its
records of every end. The package must be installed on all machines in the same version; a cell that another version
would run differently is refused there, see `plan_file.check`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..display import Display
from ..errors import UsageError, did_you_mean
from ..names import parse_one
from ..records import Cell, Record
from ..runner import CELL_TARGET, Limits
from ..store import Store

HANDED_OVER = ("PEFT_ATLAS_", "HF_")  # environment variables that workers take from here: plug-ins, data, cache
EXECUTORS = {"ray": "on_ray:Ray", "slurm": "on_slurm:Slurm"}


@dataclass(frozen=True)
class Work:
    """Cells to run, and where their records go. `threads`: of one cell. `again`: also where an ok record exists."""

    cells: Sequence[Cell]
    store: Store
    limits: Limits
    display: Display
    threads: int
    again: bool = False
    target: str = CELL_TARGET


class Executor(BaseModel, ABC):
    """One engine with its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def run(self, work: Work) -> list[Record]:
        """Run all cells; their records, in order of completion. A cell that cannot be had stays without a record.

        Raises KeyboardInterrupt, after it has ended what it started, and StoreError when records cannot be written.
        """


def handed_over() -> dict[str, str]:
    """Environment variables that workers take from here."""
    return {name: value for name, value in os.environ.items() if name.startswith(HANDED_OVER)}


def make_executor(text: str) -> Executor:
    """The executor that a name such as "ray(gpus=1)" stands for; UsageError where it is unknown or not installed."""
    name = parse_one(text)
    if name.id not in EXECUTORS:
        raise UsageError(f"unknown executor {name.id!r}: there are {', '.join(EXECUTORS)}")
    module, _, attribute = EXECUTORS[name.id].partition(":")
    try:
        kind: Any = getattr(import_module(f".{module}", __name__), attribute)
    except ModuleNotFoundError as error:
        raise UsageError(f"--executor {name.id} needs {error.name}: pip install 'peft-atlas[{name.id}]'") from None
    try:
        executor: Executor = kind(**name.arguments)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            near = did_you_mean(place, kind.model_fields) or f" It has {', '.join(kind.model_fields)}."
            raise UsageError(f"executor {name.id} has no argument {place!r}.{near}") from None
        raise UsageError(f"{name}: {place}: {first['msg']}") from None
    return executor
