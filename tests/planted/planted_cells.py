"""Cells with planted faults. The runner runs them in real child processes, as it runs any cell."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np
from peft_atlas.bench.attempt import Attempt
from peft_atlas.bench.records import ParameterCounts


def by_task(attempt: Attempt) -> None:
    """The fault that the cell's task names."""
    globals()[attempt.cell.task.id](attempt)


def good(attempt: Attempt) -> None:
    with attempt.phase("fit"):
        attempt.parameters = ParameterCounts(backbone=10, adapter=2, head=1, total_trainable=3, shipped_bytes=8)
        attempt.curve = [{"step": 0, "loss": 2.0, "lr": 0.1}, {"step": 1, "loss": 1.0, "lr": 0.05}]
        attempt.step_seconds = [0.5, 0.2, 0.1]
        attempt.report({"step": 1, "steps": 2, "loss": 2.0})
    with attempt.phase("evaluate"):
        attempt.score({"accuracy": 0.75}, "accuracy", higher_is_better=True)
        attempt.arrays = {"items": np.array(["a", "b", "c", "d"]), "per_item": np.array([1.0, 1.0, 1.0, 0.0])}


def raising(attempt: Attempt) -> None:
    with attempt.phase("attach"):
        raise KeyError("blocks.7")


def not_finite(attempt: Attempt) -> None:
    with attempt.phase("fit"):
        attempt.curve = [{"step": 0, "loss": 2.0, "lr": 0.1}, {"step": 1, "loss": float("nan"), "lr": 0.1}]
    with attempt.phase("evaluate"):
        attempt.score({"accuracy": 0.5, "nll": float("inf")}, "accuracy", higher_is_better=True)


def hungry(attempt: Attempt) -> None:
    import torch

    with attempt.phase("load"):
        kept = torch.ones(1000)
    with attempt.phase("fit"):
        while True:
            kept = torch.cat([kept, torch.ones(32_000_000)])


def asleep(attempt: Attempt) -> None:
    with attempt.phase("fit"):
        _mark("asleep")
        time.sleep(600)


def asleep_at_first(attempt: Attempt) -> None:
    """Hangs when it is run for the first time, and is good when it is run again."""
    again = any(Path(os.environ["PLANTED_MARKS"]).glob("asleep_at_first-*"))
    with attempt.phase("fit"):
        _mark("asleep_at_first")
        time.sleep(0 if again else 600)
    good(attempt)


def endless(attempt: Attempt) -> None:
    """Alive and never done."""
    with attempt.phase("fit"):
        for step in range(10**9):
            attempt.report({"step": step, "steps": 10**9})
            time.sleep(0.02)


def shot(attempt: Attempt) -> None:
    with attempt.phase("fit"):
        os.kill(os.getpid(), signal.SIGKILL)


def segfault(attempt: Attempt) -> None:
    with attempt.phase("data"):
        ctypes.string_at(0)


def leaving(attempt: Attempt) -> None:
    with attempt.phase("load"):
        os._exit(7)


def bulky(attempt: Attempt) -> None:
    """A good cell with predictions that do not compress: 8 MB."""
    good(attempt)
    attempt.arrays = {"noise": np.random.default_rng(0).integers(0, 2**62, 1_000_000)}


def slow(attempt: Attempt) -> None:
    _mark("slow")
    time.sleep(1.0)
    good(attempt)


def _mark(name: str) -> None:
    """Tell a test that this cell has begun: a file <name>-<pid>."""
    folder = os.environ.get("PLANTED_MARKS")
    if folder:
        Path(folder, f"{name}-{os.getpid()}").touch()
