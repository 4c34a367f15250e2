"""GPT-2 of transformers: pre-norm decoder with fused q-k-v, matrices stored as (in, out)."""

from __future__ import annotations

from typing import Any

from ..attention import transformers_core
from ..builder import Builder
from ..tokens import Tokens, Widening, same_output, widen_mask
from ..tower import Block, Tower


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
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=config.hidden_size,
        blocks=[_block(builder, i, module, config) for i, module in enumerate(modules)],
        tokens=Tokens(builder.edits, modules, config.hidden_size, 0, Widening(_widen, same_output)),
        output=builder.op(stack.ln_f, config.hidden_size),
        embedding=builder.embedding(stack.wte),
        takes_prompt=True,
        is_causal=True,
    )


def _block(builder: Builder, index: int, module: Any, config: Any) -> Block:
    name, width = f"text.blocks.{index}", config.hidden_size
    attention, mlp = module.attn, module.mlp
    q, k, v = builder.thirds(attention.c_attn, transposed=True)
    up, down = builder.linear(mlp.c_fc, transposed=True), builder.linear(mlp.c_proj, transposed=True)
    return Block(
        edits=builder.edits,
        name=name,
        index=index,
        module=module,
        width=width,
        attentions=[
            builder.attention(
                f"{name}.attention",
                (q, k, v, builder.linear(attention.c_proj, transposed=True)),
                transformers_core(attention),
                sublayer=builder.sublayer(f"{name}.attention", width, attention, attention, module.ln_1, outputs=2),
                heads=config.num_attention_heads,
                kv_heads=config.num_attention_heads,
                head_dim=attention.head_dim,
                is_causal=True,
            )
        ],
        feedforward=builder.feedforward(
            f"{name}.feedforward", up, down, builder.sublayer(f"{name}.feedforward", width, mlp, mlp, module.ln_2)
        ),
        norms=[
            builder.op(module.ln_1, width, followers=(q, k, v)),
            builder.op(module.ln_2, width, followers=(up,)),
        ],
    )
