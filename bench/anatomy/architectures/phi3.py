"""Phi-3 of transformers: Llama's places, with q, k, v in one matrix and gate and up in another."""

from __future__ import annotations

from typing import Any

from ..attention import transformers_core
from ..builder import Builder
from ..tower import Tower
from .block import Parts
from .llama import decoder


def tower(builder: Builder, stack: Any) -> Tower:
    """The decoder stack."""
    return decoder(builder, stack, _parts)


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    attention, mlp = module.self_attn, module.mlp
    gate, up = builder.halves(mlp.gate_up_proj)
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, attention.head_dim
    last_q, last_k, last_v = heads * dim, (heads + kv_heads) * dim, (heads + 2 * kv_heads) * dim
    rows = (slice(0, last_q), slice(last_q, last_k), slice(last_k, last_v))
    q, k, v = (builder.linear(attention.qkv_proj, part) for part in rows)
    return Parts(
        attention=attention,
        feedforward=mlp,
        ends=(module.resid_attn_dropout, module.resid_mlp_dropout),
        norms=(module.input_layernorm, module.post_attention_layernorm),
        projections=(q, k, v, builder.linear(attention.o_proj)),
        gate=gate,
        up=up,
        down=builder.linear(mlp.down_proj),
        core=transformers_core(attention),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        is_causal=True,
    )
