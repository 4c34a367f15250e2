"""LoRA-FA: LoRA with A frozen at its random start, so that only B trains (Zhang et al. 2023, arXiv 2308.03303).

W' = W + (alpha / r) B A. The gradient of B needs A x, of r values for each token, and nothing needs the layer's input x
of d_in values: autograd keeps the input of a product only where the other operand wants a gradient, and neither W nor A
does. What the paper saves follows from that and needs no code. The factor is LoRA's and the optimiser is AdamW, as in
the paper's first version; HF PEFT's optimiser of that name also projects the gradient, as in a later version.

Trainable parameters: r * d_out for each matrix.
"""

from __future__ import annotations

from torch import Tensor

from ...reparameterized.low_rank.lora import LoRA, LowRank


class LoRAFA(LoRA):
    """LoRA with A frozen; A is shipped, since nobody can draw it again."""

    def factor(self, like: Tensor) -> LowRank:
        factor = super().factor(like)
        factor.a.requires_grad_(False)
        return factor
