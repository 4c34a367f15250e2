"""BLOOM of transformers: pre-norm decoder with ALiBi; q, k and v are interleaved head by head in one matrix.

Its attention computes the scores itself, so the core is absent (no key/value prefix), and ALiBi ties every token to a
position, so blocks take no extra tokens; prompts at the input work.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..builder import Builder
from ..sublayer import first_of_tuple
from ..tokens import Tokens, Widening, same_output
from ..tower import Tower
from .block import Parts, blocks


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
        blocks=blocks(builder, "text", modules, width, partial(_parts, builder), skipped=partial(first_of_tuple, 2)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(_widen, same_output), available=False),
        output=builder.op(stack.ln_f, width),
        embedding=builder.embedding(stack.word_embeddings),
        other_ops=[builder.op(stack.word_embeddings_layernorm, width)],
        takes_prompt=True,
        is_causal=True,
    )


def _parts(builder: Builder, module: Any) -> Parts:
    attention, mlp = module.self_attention, module.mlp
    q, k, v = builder.interleaved(attention.query_key_value, attention.num_heads)
    return Parts(
        attention=attention,
        feedforward=mlp,
        ends=(attention.dense, mlp.dense_4h_to_h),  # the modules themselves return the residual sum
        norms=(module.input_layernorm, module.post_attention_layernorm),
        projections=(q, k, v, builder.linear(attention.dense)),
        up=builder.linear(mlp.dense_h_to_4h),
        down=builder.linear(mlp.dense_4h_to_h),
        core=None,
        heads=attention.num_heads,
        kv_heads=attention.num_heads,
        head_dim=attention.head_dim,
        is_causal=True,
    )
