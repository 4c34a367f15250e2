"""Llama of transformers and its relatives (Mistral, Qwen2, Qwen3): pre-norm decoders, rotary positions, gated
feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..attention import transformers_core
from ..builder import Builder
from ..tokens import Tokens, Widening, same_output, widen_mask
from ..tower import Tower
from .block import Parts, blocks


def widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The new tokens are not rotated: they sit at no position."""
    if kwargs.get("past_key_values") is not None or kwargs.get("layer_past") is not None:
        raise ValueError("extra tokens inside blocks need use_cache=False")
    cos, sin = kwargs["position_embeddings"]
    changed = {
        "attention_mask": widen_mask(kwargs.get("attention_mask"), n, at, causal=True),
        "position_embeddings": (_insert(cos, n, at, 1.0), _insert(sin, n, at, 0.0)),
    }
    return args, {**kwargs, **changed}


def _insert(table: Tensor, n: int, at: int, value: float) -> Tensor:
    new = table.new_full((table.shape[0], n, table.shape[2]), value)
    return torch.cat([table[:, :at], new, table[:, at:]], dim=1)


def tower(builder: Builder, stack: Any) -> Tower:
    """The decoder stack."""
    return decoder(builder, stack, parts)


def decoder(builder: Builder, stack: Any, parts_of: Callable[..., Parts], offset: float = 0.0) -> Tower:
    """A stack with Llama's names, whose blocks have the parts `parts_of(builder, module, config)`.

    `offset` is what the final norm adds to its weight.
    """
    config, modules = stack.config, list(stack.layers)
    width, causal = config.hidden_size, bool(modules[0].self_attn.is_causal)
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=width,
        blocks=blocks(builder, "text", modules, width, partial(parts_of, builder, config=config)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(widen, same_output), available=causal),
        output=builder.op(stack.norm, width, offset=offset),
        embedding=builder.embedding(stack.embed_tokens),
        takes_prompt=True,
        is_causal=causal,
    )


def parts(builder: Builder, module: Any, config: Any) -> Parts:
    """One block. Norms of single heads (Qwen3) are no norms of the block: they see q and k, not the hidden states."""
    attention, mlp = module.self_attn, module.mlp
    q, k, v, o = (builder.linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj))
    return Parts(
        attention=attention,
        feedforward=mlp,
        norms=(module.input_layernorm, module.post_attention_layernorm),
        projections=(q, k, v, o),
        gate=builder.linear(mlp.gate_proj),
        up=builder.linear(mlp.up_proj),
        down=builder.linear(mlp.down_proj),
        core=transformers_core(attention),
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        is_causal=bool(attention.is_causal),
    )
