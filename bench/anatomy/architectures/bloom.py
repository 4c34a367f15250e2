"""BLOOM of transformers: pre-norm decoder with ALiBi; q, k and v are interleaved head by head in one matrix.

Its attention computes the scores itself, so the core is absent (no key/value prefix), and ALiBi ties every token to a
position, so blocks take no extra tokens; prompts at the input work.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ..builder import Builder
from ..sublayer import first_of_tuple
from ..tokens import Tokens, Widening, same_output
from ..tower import Block, Tower


def _widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    raise NotImplementedError("BLOOM's ALiBi has no place for tokens without a position")


def tower(builder: Builder, stack: Any) -> Tower:
    """The decoder stack."""
    config, modules = stack.config, list(stack.h)
    width = config.hidden_size
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=width,
        blocks=[_block(builder, i, module, width) for i, module in enumerate(modules)],
        tokens=Tokens(builder.edits, modules, width, 0, Widening(_widen, same_output), available=False),
        output=builder.op(stack.ln_f, width),
        embedding=builder.embedding(stack.word_embeddings),
        other_ops=[builder.op(stack.word_embeddings_layernorm, width)],
        takes_prompt=True,
        is_causal=True,
    )


def _block(builder: Builder, index: int, module: Any, width: int) -> Block:
    name = f"text.blocks.{index}"
    attention, mlp = module.self_attention, module.mlp
    heads, dim = attention.num_heads, attention.head_dim
    rows = torch.arange(3 * width).view(heads, 3, dim)
    q, k, v = (builder.linear(attention.query_key_value, rows[:, i].reshape(-1)) for i in range(3))
    up, down = builder.linear(mlp.dense_h_to_4h), builder.linear(mlp.dense_4h_to_h)
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
                (q, k, v, builder.linear(attention.dense)),
                None,
                sublayer=builder.sublayer(f"{name}.attention", width, attention, attention.dense, first),
                heads=heads,
                kv_heads=heads,
                head_dim=dim,
                is_causal=True,
            )
        ],
        feedforward=builder.feedforward(
            f"{name}.feedforward",
            up,
            down,
            builder.sublayer(f"{name}.feedforward", width, mlp, mlp.dense_4h_to_h, second),
        ),
        norms=[builder.op(first, width, followers=(q, k, v)), builder.op(second, width, followers=(up,))],
        skipped=partial(first_of_tuple, 2),
    )
