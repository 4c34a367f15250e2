"""Llama of transformers and its relatives (Mistral, Qwen2): pre-norm decoders, rotary positions, gated feed-forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..attention import transformers_core
from ..builder import Builder
from ..tokens import Tokens, Widening, same_output, widen_mask
from ..tower import Block, Tower


def _widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The new tokens are not rotated: they sit at no position."""
    if kwargs.get("past_key_values") is not None:
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
    config, modules = stack.config, list(stack.layers)
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=config.hidden_size,
        blocks=[_block(builder, i, module, config) for i, module in enumerate(modules)],
        tokens=Tokens(builder.edits, modules, config.hidden_size, 0, Widening(_widen, same_output)),
        output=builder.op(stack.norm, config.hidden_size),
        embedding=builder.embedding(stack.embed_tokens),
        takes_prompt=True,
        is_causal=True,
    )


def _block(builder: Builder, index: int, module: Any, config: Any) -> Block:
    name, width = f"text.blocks.{index}", config.hidden_size
    attention, mlp = module.self_attn, module.mlp
    q, k, v, o = (builder.linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj))
    gate, up, down = (builder.linear(m) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    first, second = module.input_layernorm, module.post_attention_layernorm
    return Block(
        edits=builder.edits,
        name=name,
        index=index,
        module=module,
        width=width,
        attentions=[
            builder.attention(
                f"{name}.attention",
                (q, k, v, o),
                transformers_core(attention),
                sublayer=builder.sublayer(f"{name}.attention", width, attention, attention, first, outputs=2),
                heads=config.num_attention_heads,
                kv_heads=config.num_key_value_heads,
                head_dim=attention.head_dim,
                is_causal=True,
            )
        ],
        feedforward=builder.feedforward(
            f"{name}.feedforward",
            up,
            down,
            builder.sublayer(f"{name}.feedforward", width, mlp, mlp, second),
            gate,
        ),
        norms=[
            builder.op(first, width, followers=(q, k, v)),
            builder.op(second, width, followers=(gate, up)),
        ],
    )
