"""PiSSA: LoRA that starts from the principal singular triplets of W (Meng et al. 2024, arXiv 2404.02948, section 3).

With W = U S V^T and the r largest singular values first, s B0 = U_r S_r^(1/2), A0 = S_r^(1/2) V_r^T (the scale
s = alpha / r, 1 in the paper, is divided out of S_r), and the rest W - s B0 A0 is frozen: W' = (W - s B0 A0) + s B A.

The rest is never formed: W stays as it is, and the frozen pair A0, B0 is subtracted beside it. That costs r more
columns a layer, keeps the backbone's bits, makes the start exact, and is how HF PEFT ships PiSSA as a LoRA of rank 2r.

Trainable parameters: r * (d_in + d_out) for each matrix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..reparameterized.low_rank.lora import LoRA, LoRAConfig, LowRank


class PiSSAConfig(LoRAConfig):
    """`init` plays no part: the start is the decomposition."""

    iterations: int = Field(ge=0, description="subspace iterations of a randomised decomposition; 0: the exact one")


class Principal(LowRank):
    """x -> scale * (B A - B0 A0) x, with A0 and B0 the start of A and B."""

    a0: Tensor
    b0: Tensor

    def __init__(self, like: Tensor, config: PiSSAConfig) -> None:
        super().__init__(like, config.r, config.scale, config.dropout, config.init)
        if not like.is_meta:
            u, s, vt = _leading(like.detach().to(self.a.dtype), config.r, config.iterations)
            root = (s / self.scale).sqrt()
            self.a.data.copy_(root[:, None] * vt)
            self.b.data.copy_(u * root)
        self.register_buffer("a0", self.a.detach().clone())
        self.register_buffer("b0", self.b.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self._difference(x)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y + self(x), the difference first: at the start it is exactly zero."""
        return torch.add(y, self._difference(x), alpha=self.scale)

    def _difference(self, x: Tensor) -> Tensor:
        """(B A - B0 A0) x, of which the second product needs nothing kept for the backward pass."""
        return F.linear(F.linear(self.dropped(x), self.a), self.b) - F.linear(F.linear(x, self.a0), self.b0)

    def weight_delta(self) -> Tensor:
        """(d_out, d_in)."""
        return super().weight_delta() - self.scale * self.b0 @ self.a0


def _leading(weight: Tensor, r: int, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (d_out, r), S (r,) and V^T (r, d_in) of the `r` largest singular values."""
    if iterations:
        u, s, v = torch.svd_lowrank(weight, q=r, niter=iterations)
        return u, s, v.t()
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :r], s[:r], vt[:r]


class PiSSA(LoRA):
    """One `Principal` beside each chosen matrix."""

    Config = PiSSAConfig
    config: PiSSAConfig

    def factor(self, like: Tensor) -> LowRank:
        return Principal(like, self.config)
