"""VideoMAE of transformers: a ViT over tubes of pixels, without a class token; all tubes of a clip attend together."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..attention import transformers_core
from ..builder import Builder
from ..frames import FrameLayout
from ..tokens import Tokens, Widening, same_call, same_output
from ..tower import Tower
from .block import Parts, blocks


def tower(builder: Builder, stack: Any) -> Tower:
    """The encoder."""
    config, modules, patches = stack.config, list(stack.encoder.layer), stack.embeddings.patch_embeddings
    width, (patch_rows, patch_columns) = config.hidden_size, patches.patch_size
    rows, columns = patches.image_size
    grid = (config.num_frames // patches.tubelet_size, rows // patch_rows, columns // patch_columns)
    return Tower(
        edits=builder.edits,
        name="vision",
        module=stack,
        width=width,
        blocks=blocks(builder, "vision", modules, width, partial(_parts, builder, config=config)),
        tokens=Tokens(builder.edits, modules, width, 0, Widening(same_call, same_output)),
        output=None if stack.layernorm is None else builder.op(stack.layernorm, width),
        exit=stack.encoder if stack.layernorm is None else None,
        patch_embedding=builder.op(patches, width, carrier=patches.projection),
        grid=grid,
        frames=FrameLayout(*grid, order="frames-first"),
    )


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    inner = module.attention.attention
    q, k, v, o = (builder.linear(m) for m in (inner.query, inner.key, inner.value, module.attention.output.dense))
    return Parts(
        attention=module.attention,
        feedforward=module.intermediate,
        ends=(None, module.output.dropout),  # the module around it adds the residual stream
        norms=(module.layernorm_before, module.layernorm_after),
        projections=(q, k, v, o),
        up=builder.linear(module.intermediate.dense),
        down=builder.linear(module.output.dense),
        core=transformers_core(inner),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=inner.attention_head_size,
        is_causal=False,
        outputs=1,
    )
