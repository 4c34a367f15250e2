"""GPT-NeoX and Pythia of transformers: pre-norm decoder; q, k and v are interleaved head by head in one matrix.

With `use_parallel_residual`, the default, both sublayers read the block's input and their outputs are added to it
together: the residual stream of the feed-forward is the block's input, without what the attention adds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..attention import transformers_core
from ..builder import Builder
from ..tokens import Tokens, Widening, same_output
from ..tower import Tower
from .block import Parts, blocks
from .llama import widen


def tower(builder: Builder, stack: Any) -> Tower:
    """The decoder stack."""
    config, modules = stack.config, list(stack.layers)
    width = config.hidden_size
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=width,
        blocks=blocks(builder, "text", modules, width, partial(_parts, builder, config=config)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(widen, same_output)),
        output=builder.op(stack.final_layer_norm, width),
        embedding=builder.embedding(stack.embed_in),
        takes_prompt=True,
        is_causal=True,
    )


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    attention, mlp = module.attention, module.mlp
    q, k, v = builder.interleaved(attention.query_key_value, config.num_attention_heads)
    return Parts(
        attention=attention,
        feedforward=mlp,
        ends=(module.post_attention_dropout, module.post_mlp_dropout),
        norms=(module.input_layernorm, module.post_attention_layernorm),
        projections=(q, k, v, builder.linear(attention.dense)),
        up=builder.linear(mlp.dense_h_to_4h),
        down=builder.linear(mlp.dense_4h_to_h),
        core=transformers_core(attention),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=attention.head_size,
        is_causal=True,
    )
