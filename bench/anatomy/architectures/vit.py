"""ViT of transformers: pre-norm blocks with separate projections. (timm's is described in `timm_vit`.)

One dropout serves both sublayers, so their outputs are taken before it.
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


def tower(builder: Builder, stack: Any) -> Tower:
    """The one tower."""
    config, modules, patches = stack.config, list(stack.layers), stack.embeddings.patch_embeddings
    width, (patch_rows, patch_columns) = config.hidden_size, patches.patch_size
    rows, columns = patches.image_size
    return Tower(
        edits=builder.edits,
        name="vision",
        module=stack,
        width=width,
        blocks=blocks(builder, "vision", modules, width, partial(_parts, builder, config=config)),
        tokens=Tokens(builder.edits, modules, width, 1, Widening(partial(widen, False), same_output)),
        output=builder.op(stack.layernorm, width),
        patch_embedding=builder.op(patches, width, carrier=patches.projection),
        grid=(1, rows // patch_rows, columns // patch_columns),
        special=1,
    )


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    attention, mlp = module.attention, module.mlp
    q, k, v, o = (builder.linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj))
    return Parts(
        attention=attention,
        feedforward=mlp,
        norms=(module.layernorm_before, module.layernorm_after),
        projections=(q, k, v, o),
        up=builder.linear(mlp.fc1),
        down=builder.linear(mlp.fc2),
        core=transformers_core(attention),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=attention.head_dim,
        is_causal=False,
    )
