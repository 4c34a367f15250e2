"""DeBERTa-v2 and v3 of transformers: post-norm blocks with disentangled attention (He et al. 2021, arXiv 2006.03654).

Scores add content-to-position and position-to-content terms that the attention computes itself, so the core is absent
(no key/value prefix), and every token stands at a relative position, so blocks take no extra tokens; prompts at the
input work. With `share_att_key`, as in v3, query and key also project the relative positions: what changes these
matrices changes both uses.
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
    raise NotImplementedError("DeBERTa's relative positions have no place for tokens without a position")


def tower(builder: Builder, stack: Any) -> Tower:
    """The encoder."""
    config, modules = stack.config, list(stack.encoder.layer)
    width, positions = config.hidden_size, getattr(stack.encoder, "LayerNorm", None)
    before = [stack.embeddings.LayerNorm, *([] if positions is None else [positions])]
    return Tower(
        edits=builder.edits,
        name="text",
        module=stack,
        width=width,
        blocks=blocks(builder, "text", modules, width, partial(_parts, builder), skipped=partial(first_of_tuple, 2)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(_widen, same_output), available=False),
        output=None,
        embedding=builder.embedding(stack.embeddings.word_embeddings),
        other_ops=[builder.op(norm, width) for norm in before],
        takes_prompt=True,
        readers={stack.encoder.rel_embeddings: stack.encoder} if stack.encoder.relative_attention else {},
    )


def _parts(builder: Builder, module: Any) -> Parts:
    outer, inner = module.attention, module.attention.self
    matrices = (inner.query_proj, inner.key_proj, inner.value_proj, outer.output.dense)
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
        core=None,
        heads=inner.num_attention_heads,
        kv_heads=inner.num_attention_heads,
        head_dim=inner.attention_head_size,
        is_causal=False,
    )
