"""The bottleneck that adapters are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.dispatch import prefers_kernel
from ...kernels.lowrank_epilogue.apply import lowrank_epilogue, variant

Activation = Literal["relu", "gelu", "silu", "tanh", "linear"]
Init = Literal["normal", "kaiming", "near-zero"]


def _same(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": F.tanh,
    "linear": _same,  # a named function, because adapters must pickle
}


class Bottleneck(nn.Module):
    """x -> scale * (W_up s(W_down x + b_down) + b_up).

    `init` draws W_down: "normal", N(0, 0.02^2), or "kaiming", uniform in +-1/sqrt(width); both set W_up and the biases
    to zero, so that the map starts at zero. "near-zero" draws both matrices from N(0, 0.01^2), cut off at two
    deviations (Houlsby et al. 2019, section 3.6).

    Trainable parameters: 2 * width * bottleneck + bottleneck + width (the last two without `bias` not), and one for a
    scale that is learned.
    """

    def __init__(
        self,
        like: Tensor,
        width: int,
        bottleneck: int,
        activation: str,
        scale: float = 1.0,
        init: Init = "normal",
        learned_scale: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck, bias, device=like.device)
        self.up = nn.Linear(bottleneck, width, bias, device=like.device)
        draw(self.down.weight, self.up.weight, init)
        for layer in (self.down, self.up) if bias else ():
            nn.init.zeros_(layer.bias)
        self.activation, self.scale = ACTIVATIONS[activation], scale
        self.activation_name = activation
        self.learned = nn.Parameter(like.new_full((), scale).float()) if learned_scale else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.down(x.to(self.down.weight.dtype)))
        return (self.up(hidden) * (self.scale if self.learned is None else self.learned)).to(x.dtype)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y + self(x), in one pass over y where the kernel was measured to be faster."""
        up = self.up
        alike = x.dtype == y.dtype == up.weight.dtype and not torch.is_autocast_enabled(x.device.type)
        if not alike or self.learned is not None:
            return y + self(x)
        if not prefers_kernel(variant(None, up.bias), y.numel(), y, x, up.weight):
            return y + self(x)
        shift = None if up.bias is None else self.scale * up.bias
        return lowrank_epilogue(y, self.down(x), up.weight, self.scale, self.activation_name, shift=shift)


def draw(down: Tensor, up: Tensor, init: Init) -> None:
    """Draw a bottleneck's two matrices, see `Bottleneck`."""
    if init == "near-zero":
        for matrix in (down, up):
            nn.init.trunc_normal_(matrix, std=0.01, a=-0.02, b=0.02)
        return
    if init == "kaiming":
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    else:
        nn.init.normal_(down, std=0.02)
    nn.init.zeros_(up)


class WithResidual(nn.Module):
    """y -> y + f(y)."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, y: Tensor) -> Tensor:
        if isinstance(self.f, Bottleneck):
            return self.f.add_to(y, y)
        residual: Tensor = self.f(y)
        return y + residual
