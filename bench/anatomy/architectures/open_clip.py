"""open_clip's towers: pre-norm blocks around torch's `nn.MultiheadAttention`; the text tower is causal as a rule.

A `CLIP` holds the parts of its text tower itself; its image tower, and both towers of a `CustomTextCLIP`, are modules
of their own. Towers that come from timm or transformers are described by those libraries' files. What enters a tower
passes the model's own call: `CLIP.encode_text` reads the position table outside any call of a module, so that edits of
that table act only in `CLIP.forward`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ...errors import UsageError
from ..builder import Builder
from ..multihead import core, projections
from ..tokens import Tokens, Widening, same_output, widen_mask
from ..tower import Block, Tower
from .block import Parts, block


def tower(builder: Builder, stack: Any) -> Tower:
    """The image tower of a `VisionTransformer`, or the text tower of a `TextTransformer` or a `CLIP`."""
    if hasattr(stack, "token_embedding"):
        return _text(builder, stack)
    transformer, width, (rows, columns) = stack.transformer, stack.transformer.width, stack.grid_size
    before = [] if isinstance(stack.ln_pre, nn.Identity) else [builder.op(stack.ln_pre, width)]
    pools_first = stack.attn_pool is not None or stack.final_ln_after_pool
    return Tower(
        edits=builder.edits,
        name="vision",
        module=stack,
        width=width,
        blocks=_blocks(builder, "vision", transformer, is_causal=False),
        tokens=Tokens(
            builder.edits, list(transformer.resblocks), width, 1, Widening(partial(_widen, False), same_output)
        ),
        output=builder.op(stack.ln_post, stack.ln_post.normalized_shape[0]),
        patch_embedding=None,  # the convolution's output has channels first
        other_ops=before,
        grid=(1, rows, columns),
        special=1,
        readers=_readers(stack),
        exit=transformer if pools_first else None,
    )


def _text(builder: Builder, stack: Any) -> Tower:
    """The text tower; it takes ids only, hence no prompt: use `embedding.overwrite`."""
    transformer, width, is_causal = stack.transformer, stack.transformer.width, stack.attn_mask is not None
    widening = Widening(partial(_widen, is_causal), same_output)
    return Tower(
        edits=builder.edits,
        name="text",
        module=transformer if hasattr(stack, "visual") else stack,
        width=width,
        blocks=_blocks(builder, "text", transformer, is_causal),
        tokens=Tokens(builder.edits, list(transformer.resblocks), width, 1, widening),
        output=builder.op(stack.ln_final, width),
        embedding=builder.embedding(stack.token_embedding),
        special=1,
        is_causal=is_causal,
        readers=_readers(transformer),
    )


def _readers(stack: nn.Module) -> dict[nn.Module, nn.Module]:
    return {module.out_proj: module for module in stack.modules() if isinstance(module, nn.MultiheadAttention)}


def _widen(
    causal: bool, args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Blocks called as block(x, attn_mask=mask), or as block(x, None, None, mask) under checkpointing.

    A mask of three dimensions has those of one text after the other, a mask for each head.
    """
    if len(args) > 3:
        return (*args[:3], widen_mask(args[3], n, at, causal), *args[4:]), kwargs
    return args, {**kwargs, "attn_mask": widen_mask(kwargs.get("attn_mask"), n, at, causal)}


def _blocks(builder: Builder, name: str, transformer: Any, is_causal: bool) -> list[Block]:
    return [
        _block(builder, f"{name}.blocks.{i}", i, module, transformer.width, is_causal)
        for i, module in enumerate(transformer.resblocks)
    ]


def _block(builder: Builder, name: str, index: int, module: Any, width: int, is_causal: bool) -> Block:
    if type(module).__name__ != "ResidualAttentionBlock":
        raise UsageError(f"blocks of open_clip's class {type(module).__name__} are unknown")
    attention = module.attn
    parts = Parts(
        attention=attention,
        feedforward=module.mlp,
        ends=(module.ls_1, module.ls_2),
        norms=(module.ln_1, module.ln_2),
        projections=projections(builder, attention),
        up=builder.linear(module.mlp.c_fc),
        down=builder.linear(module.mlp.c_proj),
        core=core(attention),
        heads=attention.num_heads,
        kv_heads=attention.num_heads,
        head_dim=attention.head_dim,
        is_causal=is_causal,
    )
    scales = [builder.op(scale, width) for scale in (module.ls_1, module.ls_2) if hasattr(scale, "gamma")]
    return block(builder, name, index, module, width, parts, scales=scales)
