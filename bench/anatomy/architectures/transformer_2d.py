"""Transformer stacks of diffusers' UNets (Stable Diffusion 1, 2 and XL): self-attention over the latent's positions,
cross-attention to the condition, gated feed-forward.

A UNet has many such stacks, between which the hidden states are images of other sizes and widths; so each stack is a
tower of its own, named after its path in the model, and extra tokens live within one stack. The convolutional parts
between the stacks have no places, except that `Anatomy.tensors` and `biases` hold their parameters as all others.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ...errors import UsageError
from ..attention import Attention, Context, Core, attend
from ..builder import Builder
from ..chain import Handle
from ..linear import LinearPlace
from ..op_place import OpPlace
from ..tokens import Tokens, Widening, same_output
from ..tower import Block, Tower
from .block import block_of_attentions


class _Processor:
    """diffusers' processor for torch's fused attention, with our core in it; a plain object, which adds no keys."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, keys, _ = source.shape
        mask = attn.prepare_attention_mask(attention_mask, keys, batch)
        if mask is not None:
            mask = mask.view(batch, attn.heads, -1, mask.shape[-1])
        shape = (batch, -1, attn.heads, attn.inner_dim // attn.heads)
        projected = (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        q, k, v = (part.view(shape).transpose(1, 2) for part in projected)
        own: Core | None = attn.__dict__.get("_atlas_core")
        y = (attend if own is None else own)(q, k, v, Context(mask=mask))
        y = y.transpose(1, 2).reshape(batch, -1, attn.inner_dim).to(q.dtype)
        return attn.to_out[1](attn.to_out[0](y)) / attn.rescale_output_factor


def _core(module: Any) -> Core | None:
    """None where another processor computes the attention, or where the module does more than a UNet's."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    more = (module.spatial_norm, module.group_norm, module.norm_cross, module.norm_q, module.norm_k)
    is_plain = not module.residual_connection and all(part is None for part in more)
    return Core(module, _install) if is_plain and type(module.processor) in (AttnProcessor2_0, _Processor) else None


def _install(core: Core) -> Handle:
    module: Any = core.module
    handle = Handle(partial(module.set_processor, module.processor))
    module.set_processor(_Processor())
    return handle


def _widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if (args[1] if len(args) > 1 else kwargs.get("attention_mask")) is not None:
        raise NotImplementedError("extra tokens in a block of diffusers whose self-attention is masked")
    return args, kwargs


def tower(builder: Builder, stack: Any) -> Tower:
    """One stack. Raises UsageError where its blocks are modulated by the time step, as those of other models are."""
    name, modules = builder.paths[stack] or "stack", list(stack.transformer_blocks)
    for module in modules:
        if module.norm_type != "layer_norm" or hasattr(module, "fuser") or module.attn1.fused_projections:
            raise UsageError(f"{name}: blocks with modulated norms, fusers or fused projections are unknown")
    return Tower(
        edits=builder.edits,
        name=name,
        module=stack,
        width=stack.inner_dim,
        blocks=[_block(builder, f"{name}.blocks.{i}", i, module) for i, module in enumerate(modules)],
        tokens=Tokens(builder.edits, modules, stack.inner_dim, 0, Widening(_widen, same_output)),
        output=None,
    )


def _block(builder: Builder, name: str, index: int, module: Any) -> Block:
    width = module.dim
    attention, norm = _attention(builder, f"{name}.attention", width, module.attn1, module.norm1)
    attentions, norms = [attention], [norm]
    if module.attn2 is not None:
        cross, cross_norm = _attention(builder, f"{name}.cross", width, module.attn2, module.norm2)
        attentions, norms = [attention, cross], [norm, cross_norm]
    up, gate = _up_and_gate(builder, module.ff.net[0])
    feedforward = (module.ff, module.ff, module.norm3)
    matrices = (up, builder.linear(module.ff.net[2]), gate)
    return block_of_attentions(builder, name, index, module, width, attentions, norms, feedforward, matrices)


def _up_and_gate(builder: Builder, activation: Any) -> tuple[LinearPlace, LinearPlace | None]:
    """The matrix before the activation; in diffusers' gated ones its second half is what is activated."""
    if type(activation).__name__ in ("GEGLU", "SwiGLU"):
        return builder.halves(activation.proj)
    return builder.linear(activation.proj), None


def _attention(builder: Builder, name: str, width: int, module: Any, norm: Any) -> tuple[Attention, OpPlace]:
    q, k, v, o = (builder.linear(m) for m in (module.to_q, module.to_k, module.to_v, module.to_out[0]))
    is_cross = bool(module.is_cross_attention)
    attention = builder.attention(
        name,
        (q, k, v, o),
        _core(module),
        sublayer=builder.sublayer(name, width, module, module, norm),
        heads=module.heads,
        kv_heads=module.heads,
        head_dim=module.inner_dim // module.heads,
        is_cross=is_cross,
    )
    return attention, builder.op(norm, width, followers=(q,) if is_cross else (q, k, v))
