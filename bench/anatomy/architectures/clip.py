"""CLIP's two towers in transformers: pre-norm blocks; the text tower is causal and pools at the end token."""

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
    """The image or the text tower. The text stack takes ids only, hence no prompt: use `embedding.overwrite`."""
    config, modules = stack.config, list(stack.encoder.layers)
    is_vision = hasattr(config, "patch_size")
    name, width, special = ("vision" if is_vision else "text"), config.hidden_size, 1
    tokens = Tokens(builder.edits, modules, width, special, Widening(partial(widen, not is_vision), same_output))
    side = config.image_size // config.patch_size if is_vision else 0
    return Tower(
        edits=builder.edits,
        name=name,
        module=stack,
        width=width,
        blocks=blocks(builder, name, modules, width, partial(_parts, builder, config=config, causal=not is_vision)),
        tokens=tokens,
        output=builder.op(stack.post_layernorm if is_vision else stack.final_layer_norm, width),
        embedding=None if is_vision else builder.embedding(stack.embeddings.token_embedding),
        patch_embedding=None,  # the convolution's output has channels first
        other_ops=[builder.op(stack.pre_layrnorm, width)] if is_vision else [],
        grid=(1, side, side) if is_vision else None,
        special=special,
        exit=stack.encoder if is_vision else None,
        is_causal=not is_vision,
    )


def _parts(builder: Builder, module: Any, config: Any, causal: bool) -> Parts:
    attention, mlp = module.self_attn, module.mlp
    q, k, v, o = (builder.linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj))
    return Parts(
        attention=attention,
        feedforward=mlp,
        norms=(module.layer_norm1, module.layer_norm2),
        projections=(q, k, v, o),
        up=builder.linear(mlp.fc1),
        down=builder.linear(mlp.fc2),
        core=transformers_core(attention),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=attention.head_dim,
        is_causal=causal,
    )
