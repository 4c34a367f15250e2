"""The measured thresholds of the dispatcher. Loads torch's compiler, so only where there is a GPU to ask about."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path

import torch

MEASURED = Path(__file__).with_name("measured.csv")  # what the thresholds are derived from
THRESHOLDS = Path(__file__).with_name("thresholds.json")
KEYS = ("gpu", "kernel", "dtype", "mode", "fallback")
NEVER = sys.maxsize


@torch.compiler.assume_constant_result  # read once while a graph is traced: asking for a GPU's name would break it
def least_work(kernel: str, device: int, dtype: str, mode: str, fallback: str) -> int:
    """The least work from which on the kernel is used on this CUDA device; `NEVER` where nothing says so."""
    return entries().get((torch.cuda.get_device_name(device), kernel, dtype, mode, fallback), NEVER)


@lru_cache(1)
def entries() -> dict[tuple[str, ...], int]:
    """(GPU, kernel, dtype, mode, fallback) -> least work, as committed."""
    committed = json.loads(THRESHOLDS.read_text(encoding="utf-8"))
    return {tuple(entry[key] for key in KEYS): entry["work"] for entry in committed}
