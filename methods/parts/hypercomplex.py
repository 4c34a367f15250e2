"""The bottleneck whose matrices are sums of Kronecker products (Mahabadi et al. 2021, arXiv 2106.04647)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bottleneck import ACTIVATIONS
from .kronecker import Borrowed, KroneckerSum


class HypercomplexLinear(nn.Module):
    """x -> (sum_i A_i (x) U_i V_i) x + b, with square A_i that the method shares between all layers (equation 5).

    U_i and V_i are drawn uniformly as Glorot does, b is zero.

    Trainable parameters: rank * (d_in + d_out) + d_out; the rule A is its owner's.
    """

    def __init__(self, rule: nn.Parameter, d_in: int, d_out: int, rank: int) -> None:
        super().__init__()
        terms, device = rule.shape[0], rule.device
        if d_in % terms or d_out % terms:
            raise ValueError(f"a layer from {d_in} to {d_out} cannot be divided by the {terms} Kronecker terms")
        u = nn.Parameter(torch.empty(terms, d_out // terms, rank, device=device))
        v = nn.Parameter(torch.empty(terms, rank, d_in // terms, device=device))
        for factor in (u, v):
            bound = (6 / (factor.shape[1] + factor.shape[2])) ** 0.5
            nn.init.uniform_(factor, -bound, bound)
        self.matrix = KroneckerSum(Borrowed(rule), u, v)
        self.bias = nn.Parameter(torch.zeros(d_out, device=device))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.matrix(x)
        return y + self.bias


class HypercomplexBottleneck(nn.Module):
    """x -> up(s(down(x))), both `HypercomplexLinear`."""

    def __init__(self, rule: nn.Parameter, width: int, bottleneck: int, rank: int, activation: str) -> None:
        super().__init__()
        self.down = HypercomplexLinear(rule, width, bottleneck, rank)
        self.up = HypercomplexLinear(rule, bottleneck, width, rank)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.down(x.to(self.down.bias.dtype)))
        y: Tensor = self.up(hidden)
        return y.to(x.dtype)
