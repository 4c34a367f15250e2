"""How a protocol has a training step computed: precision, parts of a batch, checkpointing, compilation.

- `dtype: bfloat16`: torch's autocast around each forward pass through backbone, method and head. Products are computed
  in bfloat16 and, by autocast's lists, norms, softmax and losses in float32; weights, the method's included, their
  gradients and the optimiser's state are and stay float32.
- `accumulate`: a step's batch goes through the model in parts, and their gradients are added, each weighted by its
  share of what the loss is a mean over. The step is the whole batch's but for rounding, and for what is drawn in a
  pass, such as dropout. A method that estimates a step without gradients takes the batch whole.
- `checkpointing`: what enters a block is kept for the backward pass, which computes the inside again; always without
  reentrance, so that operations of methods may run twice, and frozen inputs do.
- `compile`: the backbone with the method on it is compiled, loss, head and optimiser are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .errors import UnsupportedError

if TYPE_CHECKING:
    from ..tasks.contract import Task

Batch = dict[str, Tensor]


def products(dtype: str, device: torch.device) -> AbstractContextManager[Any]:
    """Around a forward pass: products in `dtype`, "float32" or "bfloat16"."""
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, torch.bfloat16)


def parts(batch: Batch, count: int, task: Task) -> Iterator[tuple[Batch, float]]:
    """The batch in at most `count` parts of consecutive items, each with its share of the loss's mean."""
    pieces = {name: tensor.tensor_split(min(count, len(tensor))) for name, tensor in batch.items()}
    whole = task.terms(batch)
    for number in range(len(next(iter(pieces.values())))):
        part = {name: piece[number] for name, piece in pieces.items()}
        if terms := task.terms(part):  # a mean over nothing is not a number
            yield part, terms / whole


def checkpoint_blocks(model: nn.Module) -> None:
    """Compute blocks again in the backward pass. UnsupportedError for a model whose library has no switch for it."""
    switch: Any = model
    if hasattr(model, "set_grad_checkpointing"):  # timm and open_clip
        switch.set_grad_checkpointing(True)
    elif getattr(model, "supports_gradient_checkpointing", False):  # transformers, whose switch was renamed
        enable = getattr(model, "activation_checkpointing_enable", None) or switch.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        if getattr(model, "_require_grads_hook", None) is not None:
            # without reentrance nobody needs embeddings that ask for gradients, and methods that want none would pay
            switch.disable_input_require_grads()
    else:
        raise UnsupportedError(f"{type(model).__name__} has no switch for activation checkpointing")
