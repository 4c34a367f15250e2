"""How much the loss depends on each weight of the backbone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .sparse import Weights, flat, parameters_of

if TYPE_CHECKING:
    from ...bench.trainer import Fit


def squared_gradients(fit: Fit, weights: Weights, batches: Iterable[dict[str, Tensor]]) -> Tensor:
    """The sum over batches of the squared gradient of each batch's loss, for all weights laid end to end, (N,).

    With batches of one item this is the diagonal of the empirical Fisher information, but for a factor. A weight that
    the loss does not use has zero.
    """
    parameters = parameters_of(weights)
    total = torch.zeros_like(flat(weights))
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        for batch in batches:
            found = torch.autograd.grad(fit.loss(batch), parameters, allow_unused=True, materialize_grads=True)
            gradients = flat(weights, dict(zip(parameters, found, strict=True)))
            total.addcmul_(gradients, gradients)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
    return total


def single_items(fit: Fit, count: int) -> Iterator[dict[str, Tensor]]:
    """The first `count` training items in the order of training, one by one."""
    left = count
    for batch in fit.batches(count):
        for i in range(min(left, len(next(iter(batch.values()))))):
            yield {name: tensor[i : i + 1] for name, tensor in batch.items()}
            left -= 1
        if not left:
            return
