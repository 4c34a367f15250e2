"""BERT and RoBERTa of transformers: post-norm blocks whose feed-forward is two modules."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..attention import transformers_core
from ..builder import Builder
from ..tokens import Tokens, Widening, same_output, widen_mask
from ..tower import Tower
from .block import Parts, blocks


def widen(
    causal: bool, args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Blocks called as block(hidden, attention_mask, ...)."""
    if len(args) > 1:
        return (args[0], widen_mask(args[1], n, at, causal), *args[2:]), kwargs
    return args, {**kwargs, "attention_mask": widen_mask(kwargs.get("attention_mask"), n, at, causal)}


def tower(builder: Builder, stack: Any) -> Tower:
    """The encoder (or decoder, where the config says so) of a BERT."""
    config = stack.config
    width, modules = config.hidden_size, list(stack.encoder.layer)
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=width,
        blocks=blocks(builder, "text", modules, width, partial(_parts, builder, config=config)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(partial(widen, bool(config.is_decoder)), same_output)),
        output=None,
        exit=stack.encoder,
        embedding=builder.embedding(stack.embeddings.word_embeddings),
        other_ops=[builder.op(stack.embeddings.LayerNorm, width)],
        takes_prompt=True,
        is_causal=bool(config.is_decoder),
    )


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    outer, inner = module.attention, module.attention.self
    matrices = (inner.query, inner.key, inner.value, outer.output.dense)
    q, k, v, o = (builder.linear(m) for m in matrices)
    return Parts(
        attention=inner,
        feedforward=module.intermediate,
        ends=(outer.output.dropout, module.output.dropout),
        norms=(outer.output.LayerNorm, module.output.LayerNorm),
        post_norm=True,
        projections=(q, k, v, o),
        up=builder.linear(module.intermediate.dense),
        down=builder.linear(module.output.dense),
        core=transformers_core(inner),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=inner.attention_head_size,
        is_causal=bool(config.is_decoder),
    )
