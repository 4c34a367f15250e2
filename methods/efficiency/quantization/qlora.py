"""QLoRA: LoRA beside weights that are frozen in NF4 with double quantisation (Dettmers et al. 2023, arXiv 2305.14314).

y = dequantise(W) x + (alpha / r) B A x (equation 5). Every matrix of the blocks is quantised, whatever the targets of
LoRA; embeddings, norms, biases and the head are not. `parts.nf4` has the format.

Here the matrices that were quantised stay in memory, since detaching gives them back bit for bit, and the restored ones
are kept for the backward pass: what this shows is how a quantised backbone learns, not yet what it saves. The paged
optimiser of the paper has no counterpart.

Trainable parameters: r * (d_in + d_out) for each target matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import parameter_name
from ...parts.nf4 import NormalFloat
from ...reparameterized.low_rank.lora import LoRA


class Quantised(nn.Module):
    """W -> the same matrix out of NF4."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.stored = NormalFloat(weight)

    def forward(self, weight: Tensor) -> Tensor:
        restored: Tensor = self.stored()
        return restored.to(weight.dtype)


class QLoRA(LoRA):
    """LoRA on a backbone whose matrices are replaced by `Quantised` ones."""

    starts_as_backbone = False

    def attach(self, anatomy: Anatomy) -> None:
        self.quantised = nn.ModuleDict()
        for name, place in anatomy.linears("all").items():
            with torch.no_grad():
                stored = Quantised(place.weight())
            self.quantised[parameter_name(name)] = stored
            place.reparam(stored)
        super().attach(anatomy)
