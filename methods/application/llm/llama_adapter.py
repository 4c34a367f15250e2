"""LLaMA-Adapter: gated attention to learned prompts in the upper layers (Zhang et al. 2023, arXiv 2303.16199).

In each of the upper blocks the attention's result y becomes y + g * softmax(q K_p^T / sqrt(D)) V_p, where K_p and V_p
are the block's own projections of a learned prompt (tokens, width) and q carries its positions while K_p has none. The
two softmaxes are separate, and the gate g, one number for each block, starts at zero (section 3.2, equations 6 to 8).
The authors' later code takes tanh(g) for each head; the paper's form, which HF PEFT follows too, is taken here.

Trainable parameters: tokens * width + 1 for each adapted block.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.attention import Attention, Context
from ...contract import GradientConfig, Method, parameter_name


class LLaMAAdapterConfig(GradientConfig):
    """Length of the prompts, and which blocks get one."""

    size: ClassVar[str | None] = "tokens"

    tokens: int = Field(gt=0, description="prompt vectors in each adapted block")
    upper: float = Field(gt=0, le=1, description="share of the blocks that are adapted, from the last one down")


class GatedPrompt(nn.Module):
    """The prompt and the gate of one block."""

    def __init__(self, like: Tensor, tokens: int, width: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.empty(tokens, width, device=like.device))
        nn.init.normal_(self.prompt)
        self.gate = nn.Parameter(torch.zeros((), device=like.device))


class GatedPromptOp:
    """Adds the gated attention to a prompt to what an attention core returns."""

    def __init__(self, adapter: GatedPrompt, attention: Attention) -> None:
        self.adapter, self.attention = adapter, attention

    def __call__(self, next: Any, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        y: Tensor = next(q, k, v, context)
        return y + self.attended(q, context.scale).to(y.dtype)

    def attended(self, q: Tensor, scale: float | None) -> Tensor:
        """g * softmax(q K_p^T * scale) V_p for q (B, H, L, D).

        A prompt is short: its (L, tokens) weights are kept for the backward pass, which are less than the (L, D) result
        that a fused kernel keeps. The gate goes to the values, so that it needs nothing kept.
        """
        batch, heads, length, dim = q.shape
        prompt = self.adapter.prompt.to(q.dtype)
        keys, values = (self._heads(place.linear(prompt), heads) for place in (self.attention.k, self.attention.v))
        rows = q.transpose(0, 1).reshape(heads, batch * length, dim)
        keys = keys * (dim**-0.5 if scale is None else scale)
        single = torch.promote_types(q.dtype, torch.float32)
        weights = torch.bmm(rows, keys.mT).softmax(-1, dtype=single).to(q.dtype)
        result = torch.bmm(weights, self.adapter.gate.to(q.dtype) * values)
        return result.unflatten(1, (batch, length)).transpose(0, 1)

    def _heads(self, projected: Tensor, heads: int) -> Tensor:
        """(tokens, kv_heads * D) -> (heads, tokens, D), each key/value head repeated for the heads that share it."""
        shape = (len(projected), self.attention.kv_heads, self.attention.head_dim)
        return projected.view(shape).transpose(0, 1).repeat_interleave(heads // self.attention.kv_heads, dim=0)


class LLaMAAdapter(Method):
    """A prompt and a gate for the self-attention of each upper block."""

    Config = LLaMAAdapterConfig
    starts_as_backbone = True
    config: LLaMAAdapterConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "core")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        blocks = []
        for tower in anatomy.towers.values():
            adapted = max(1, round(self.config.upper * len(tower.blocks)))
            blocks += tower.blocks[-adapted:]
        for block in self.sized(blocks):
            adapter = GatedPrompt(block.attention.q.weight(), self.config.tokens, block.width)
            self.adapters[parameter_name(block.name)] = adapter
            assert block.attention.core is not None
            block.attention.core.around(GatedPromptOp(adapter, block.attention))
