"""OPT of transformers: decoder with learned positions; pre-norm blocks, post-norm ones in OPT-350m.

The feed-forward is no module of its own, and its matrices see tokens as rows. Where the embedding is narrower than the
blocks (OPT-350m, 512 and 1,024), a prompt has the width of the embedding: it is projected as the text is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..attention import transformers_core
from ..builder import Builder
from ..tokens import Tokens, Widening, same_output
from ..tower import Tower
from .bert import widen
from .block import Parts, blocks


def _widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if kwargs.get("past_key_values") is not None:
        raise ValueError("extra tokens inside blocks need use_cache=False")
    return widen(True, args, kwargs, n, at)


def tower(builder: Builder, stack: Any) -> Tower:
    """The decoder stack."""
    config, modules = stack.config, list(stack.layers)
    width, final = config.hidden_size, stack.final_layer_norm
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=width,
        blocks=blocks(builder, "text", modules, width, partial(_parts, builder, config=config)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(_widen, same_output)),
        output=None if final is None else builder.op(final, width),
        embedding=builder.embedding(stack.embed_tokens),
        takes_prompt=True,
        is_causal=True,
    )


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    attention = module.self_attn
    q, k, v, o = (builder.linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj))
    return Parts(
        attention=attention,
        feedforward=module.fc1,
        ends=(None, module.fc2),
        norms=(module.self_attn_layer_norm, module.final_layer_norm),
        post_norm=not config.do_layer_norm_before,
        flat_feedforward=True,
        projections=(q, k, v, o),
        up=builder.linear(module.fc1),
        down=builder.linear(module.fc2),
        core=transformers_core(attention),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=attention.head_dim,
        is_causal=True,
    )
