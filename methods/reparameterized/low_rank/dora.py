"""DoRA: W' = m (W + s B A) / ||W + s B A||, magnitudes m and directions apart (Liu et al. 2024, arXiv 2402.09353).

The norm is taken over each output row (equation 5; the paper's columns are our rows) and is a constant for the gradient
(section 4.3); m starts at ||W||, so the start is exact. Dropout, where used, acts on the input of A alone: the
authors' code drops the input of W as well, which would cost a second product with W.

Neither W + s B A nor its norm needs a dense sum: y = W x + s B A x is scaled row by row, and the norm needs W A^T, of r
columns, only (`kernels/dora_rownorm`).

Trainable parameters: r * (d_in + d_out) + d_out for each matrix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....bench.anatomy.linear import LinearPlace
from ....kernels.dora_rownorm.apply import dora_rownorm
from ....kernels.dora_rownorm.reference import row_squares
from ....kernels.lowrank_epilogue.apply import lowrank_epilogue
from ...parts.row_scale import shift_behind
from .lora import LoRA, LoRAConfig, LowRank


class Decomposed(LowRank):
    """(y, x) -> m / ||W + s B A|| * (y - b + s B A x) + b, for y = W x + b."""

    squares: Tensor

    def __init__(self, place: LinearPlace, config: LoRAConfig) -> None:
        weight = place.weight().detach()
        super().__init__(weight, config.r, config.scale, config.dropout, config.init)
        self.place = place
        squares = row_squares(weight).to(self.a.dtype)
        self.register_buffer("squares", squares, persistent=False)  # of the frozen rows' norms
        self.m = nn.Parameter(squares.sqrt())

    def forward(self, y: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        dtype = y.dtype
        if not torch.is_autocast_enabled(x.device.type):
            x, y = x.to(self.a.dtype), y.to(self.a.dtype)
        gain = self.m / self.norms()
        hidden = F.linear(self.dropped(x), self.a)
        shift = shift_behind(gain, self.place)
        return lowrank_epilogue(y, hidden, self.b, self.scale, gain=gain, shift=shift).to(dtype)

    @torch.no_grad()
    def norms(self) -> Tensor:
        """||W + s B A|| of each row, (d_out,)."""
        return dora_rownorm(self.place.weight(), self.a, self.b, self.scale, self.squares)

    def merged(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The new matrix (d_out, d_in); the bias stays."""
        return (self.m / self.norms())[:, None] * (weight + self.weight_delta()), bias


class DoRA(LoRA):
    """One `Decomposed` at each chosen matrix."""

    def put(self, place: LinearPlace) -> LowRank:
        factor = Decomposed(place, self.config)
        place.revise(factor)
        return factor
