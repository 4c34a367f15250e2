"""The bottleneck that adapters are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": F.tanh,
    "linear": lambda x: x,
}


class Bottleneck(nn.Module):
    """x -> scale * (W_up s(W_down x + b_down) + b_up), zero at the start because W_up and b_up are.

    Trainable parameters: 2 * width * bottleneck + bottleneck + width.
    """

    def __init__(self, like: Tensor, width: int, bottleneck: int, activation: str, scale: float = 1.0) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck, device=like.device)
        self.up = nn.Linear(bottleneck, width, device=like.device)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.activation, self.scale = ACTIVATIONS[activation], scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.down(x.to(self.down.weight.dtype)))
        return (self.up(hidden) * self.scale).to(x.dtype)
