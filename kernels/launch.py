"""Whether Triton can take some tensors, and how a kernel is launched from the body of an op.

Nothing here imports Triton. An op imports its `triton.py` when a kernel is about to run and not before, so that a
machine without a GPU neither needs Triton nor waits for it.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor, nn

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WAVE = 512  # programs that keep a large GPU (132 multiprocessors) busy; how many parts a reduction is cut into
HAS_TRITON = importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU; it has to be set before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def runs_triton(*tensors: Tensor) -> bool:
    """Whether a kernel can take these tensors, whose dtypes are alike: on a GPU, or real ones under the interpreter.

    Empty tensors are left to plain torch, whose answers for them are right and free.
    """
    first = tensors[0]
    if not HAS_TRITON or first.dtype not in DTYPES or any(tensor.numel() == 0 for tensor in tensors):
        return False
    return first.is_cuda or (interpreting() and type(first) in (Tensor, nn.Parameter))


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel on a grid; inside a compiled model the launch becomes a node of its graph."""
    if interpreting():
        kernel[grid](*arguments, **constants)
        return
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(device):  # Triton launches on the current device, whatever the tensors are on
        torch.library.wrap_triton(kernel)[grid](*arguments, **constants)


def widened(dtype: torch.dtype) -> bool:
    """Whether matrix products must be fed fp32: the interpreter multiplies bf16 as bit patterns (triton#11584)."""
    return interpreting() and dtype == torch.bfloat16


def rows_of(x: Tensor, width: int) -> Tensor:
    """x (..., width) as (n, width), neighbours in a row next to each other; a view where the strides allow it."""
    flat = x.reshape(-1, width)
    return flat if flat.stride(-1) == 1 else flat.contiguous()


def packed(tensor: Tensor | None, instead: Tensor) -> Tensor:
    """A tensor without gaps, or, where there is none, something to point at that is not read."""
    return instead if tensor is None else tensor.contiguous()


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is no less than n and `least`: tiles have such sizes."""
    return max(least, 1 << max(n - 1, 0).bit_length())


def parts_and_steps(rows: int, tile: int, beside: int) -> tuple[int, int]:
    """(parts, steps): rows cut into parts of `steps` tiles each, so that parts * `beside` programs fill a GPU once."""
    tiles = ceil_div(rows, tile)
    steps = ceil_div(tiles, max(1, min(tiles, WAVE // max(beside, 1))))
    return ceil_div(tiles, steps), steps
