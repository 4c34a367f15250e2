"""Kernel or plain torch: measured thresholds decide, and where nothing was measured it is plain torch.

`thresholds.json` is written by `bench kernels report --accept` from measured rows, never by hand. An entry says
from how much work on (a number that each op defines) a kernel was no more than 3% slower than what it would replace,
and at every larger shape that was measured too: plain torch ("algebra"), or, inside a compiled model, what the compiler
makes of plain torch ("compile"). So results never depend on a GPU, only times do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

THRESHOLDS = Path(__file__).with_name("thresholds.json")
MEASURED = Path(__file__).with_name("measured.csv")  # what the thresholds are derived from
KEYS = ("gpu", "kernel", "dtype", "mode", "fallback")
NEVER = sys.maxsize
_forced: bool | None = None


@contextmanager
def forced(kernels: bool | None) -> Iterator[None]:
    """Always (True) or never (False) use the ops of this folder, whatever was measured; for tests and measurements.

    Where Triton cannot run, an op computes what plain torch does, with its own backward pass.
    """
    global _forced
    before, _forced = _forced, kernels
    try:
        yield
    finally:
        _forced = before


def prefers_kernel(kernel: str, work: int, x: Tensor, *others: Tensor | None) -> bool:
    """Whether to use a kernel: asked for, or measured to be no slower on this GPU for tensors like `x`."""
    if _forced is not None:
        return _forced
    if not x.is_cuda:
        return False
    trains = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *others))
    fallback = "compile" if torch.compiler.is_compiling() else "algebra"
    mode = "both" if trains else "forward"
    return work >= least_work(kernel, x.device.index or 0, str(x.dtype).removeprefix("torch."), mode, fallback)


@torch.compiler.assume_constant_result  # read once while a graph is traced: asking for a GPU's name would break it
def least_work(kernel: str, device: int, dtype: str, mode: str, fallback: str) -> int:
    """The least work from which on the kernel is used on this CUDA device; `NEVER` where nothing says so."""
    return thresholds().get((torch.cuda.get_device_name(device), kernel, dtype, mode, fallback), NEVER)


@lru_cache(1)
def thresholds() -> dict[tuple[str, ...], int]:
    """(GPU, kernel, dtype, mode, fallback) -> least work, as committed."""
    entries = json.loads(THRESHOLDS.read_text(encoding="utf-8"))
    return {tuple(entry[key] for key in KEYS): entry["work"] for entry in entries}
