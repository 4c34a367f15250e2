"""TimeSformer of transformers (Bertasius et al. 2021, arXiv 2102.05095): attention over time, then over space, where
the two are divided.

A block's `attention` is the spatial one, which an image model's weights start; `temporal` comes second in the list
though it runs first, and ends behind a linear layer of its own, which has no short name. The temporal attention takes
each patch's frames as a sequence, the spatial one each frame's patches with the class token; what leaves the latter for
the class token is averaged over frames. Blocks find patches by their positions, hence take no extra tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from ..attention import Attention, Context, Core, ForwardWithCore
from ..builder import Builder
from ..frames import FrameLayout
from ..op_place import OpPlace
from ..sublayer import first_of_tuple
from ..tokens import Tokens, Widening, same_output
from ..tower import Block, Tower
from .block import block_of_attentions


def _attention_forward(
    core: Core, module: Any, hidden_states: Tensor, output_attentions: bool = False
) -> tuple[Tensor, ...]:
    """`TimesformerSelfAttention` on the same parameters, with our core between the projections."""
    batch, length, width = hidden_states.shape
    qkv = module.qkv(hidden_states).reshape(batch, length, 3, module.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    dropout = module.attn_drop.p if module.training else 0.0
    y = core(q, k, v, Context(scale=module.scale, dropout=dropout, stepwise=True))
    return (y.transpose(1, 2).reshape(batch, length, width),)


def _widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    raise NotImplementedError("TimeSformer's blocks have no place for tokens without a patch")


def tower(builder: Builder, stack: Any) -> Tower:
    """The encoder."""
    config, modules, patches = stack.config, list(stack.encoder.layer), stack.embeddings.patch_embeddings
    width, (patch_rows, patch_columns) = config.hidden_size, patches.patch_size
    rows, columns = patches.image_size
    grid = (config.num_frames, rows // patch_rows, columns // patch_columns)
    return Tower(
        edits=builder.edits,
        name="vision",
        module=stack,
        width=width,
        blocks=[_block(builder, f"vision.blocks.{i}", i, module, config) for i, module in enumerate(modules)],
        tokens=Tokens(builder.edits, modules, width, 1, Widening(_widen, same_output), available=False),
        output=builder.op(stack.layernorm, width),
        patch_embedding=builder.op(patches, width, carrier=patches.projection),
        grid=grid,
        frames=FrameLayout(*grid, order="items" if config.attention_type == "space_only" else "patches-first"),
        special=1,
    )


def _block(builder: Builder, name: str, index: int, module: Any, config: Any) -> Block:
    width, spatial = config.hidden_size, module.attention
    attention, norm = _attention(builder, f"{name}.attention", config, spatial, spatial, module.layernorm_before)
    attentions, norms = [attention], [norm]
    if config.attention_type == "divided_space_time":
        parts = (module.temporal_attention, module.temporal_dense, module.temporal_layernorm)
        temporal, temporal_norm = _attention(builder, f"{name}.temporal", config, *parts)
        attentions, norms = [attention, temporal], [temporal_norm, norm]
    feedforward = (module.intermediate, module.output.dropout, module.layernorm_after)
    matrices = (builder.linear(module.intermediate.dense), builder.linear(module.output.dense), None)
    skipped = partial(first_of_tuple, 2)
    return block_of_attentions(
        builder, name, index, module, width, attentions, norms, feedforward, matrices, skipped=skipped
    )


def _attention(
    builder: Builder, name: str, config: Any, module: Any, end: nn.Module, norm: nn.Module
) -> tuple[Attention, OpPlace]:
    """One attention, whose sublayer runs from `norm`'s output to the output of `end`, and its norm."""
    inner, width = module.attention, config.hidden_size
    q, k, v = builder.thirds(inner.qkv)
    attention = builder.attention(
        name,
        (q, k, v, builder.linear(module.output.dense)),
        ForwardWithCore(_attention_forward).core(inner),
        sublayer=builder.sublayer(name, width, module, end, norm, outputs=2),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=width // config.num_attention_heads,
    )
    return attention, builder.op(norm, width, followers=(q, k, v))
