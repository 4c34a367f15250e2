"""GPT-2 of transformers: pre-norm decoder with fused q-k-v, matrices stored as (in, out)."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..attention import transformers_core
from ..builder import Builder
from ..tokens import Tokens, Widening, same_output, widen_mask
from ..tower import Tower
from .block import Parts, blocks


def _widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Blocks called as block(hidden, past_key_values, causal_mask, ...)."""
    past = args[1] if len(args) > 1 else kwargs.get("past_key_values")
    if past is not None:
        raise ValueError("extra tokens inside blocks need use_cache=False")
    if len(args) > 2:
        return (*args[:2], widen_mask(args[2], n, at, causal=True), *args[3:]), kwargs
    return args, {**kwargs, "attention_mask": widen_mask(kwargs.get("attention_mask"), n, at, causal=True)}


def tower(builder: Builder, stack: Any) -> Tower:
    """The decoder stack."""
    config, modules = stack.config, list(stack.h)
    width = config.hidden_size
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=width,
        blocks=blocks(builder, "text", modules, width, partial(_parts, builder, config=config)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(_widen, same_output)),
        output=builder.op(stack.ln_f, width),
        embedding=builder.embedding(stack.wte),
        takes_prompt=True,
        is_causal=True,
    )


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    attention, mlp = module.attn, module.mlp
    q, k, v = builder.thirds(attention.c_attn, transposed=True)
    return Parts(
        attention=attention,
        feedforward=mlp,
        norms=(module.ln_1, module.ln_2),
        projections=(q, k, v, builder.linear(attention.c_proj, transposed=True)),
        up=builder.linear(mlp.c_fc, transposed=True),
        down=builder.linear(mlp.c_proj, transposed=True),
        core=transformers_core(attention),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=attention.head_dim,
        is_causal=True,
    )
