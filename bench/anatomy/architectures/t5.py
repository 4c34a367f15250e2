"""T5 of transformers: encoder and decoder stacks, RMS norms, relative position biases handed from block to block."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import Attention, transformers_core
from ..builder import Builder
from ..op_place import OpPlace
from ..tokens import Tokens, Widening, widen_mask
from ..tower import Block, Tower
from .block import block_of_attentions


def _widen(
    first: Any, causal: bool, args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Blocks called as block(hidden, mask, position_bias, encoder_hidden, encoder_mask, cross_bias, ...).

    The bias is computed for the original length and padded with zeros: new tokens sit at no position. The cross
    bias has a row per query, hence gets rows of zeros.
    """
    if kwargs.get("past_key_values") is not None:
        raise ValueError("extra tokens inside blocks need use_cache=False")
    hidden, mask, bias, encoder, encoder_mask, cross, *rest = args
    if bias is None:
        length = hidden.shape[1] - n
        bias = first.compute_bias(length, length, device=hidden.device)
    if cross is not None:
        cross = _rows(cross, n, at)
    bias = _columns(_rows(bias, n, at), n, at)
    if encoder_mask is not None and encoder_mask.shape[-2] > 1:
        row = encoder_mask[..., :1, :].expand(*encoder_mask.shape[:-2], n, encoder_mask.shape[-1])
        encoder_mask = torch.cat([encoder_mask[..., :at, :], row, encoder_mask[..., at:, :]], dim=-2)
    return (hidden, widen_mask(mask, n, at, causal), bias, encoder, encoder_mask, cross, *rest), kwargs


def _rows(bias: Tensor, n: int, at: int) -> Tensor:
    new = bias.new_zeros((*bias.shape[:-2], n, bias.shape[-1]))
    return torch.cat([bias[..., :at, :], new, bias[..., at:, :]], dim=-2)


def _columns(bias: Tensor, n: int, at: int) -> Tensor:
    return _rows(bias.transpose(-1, -2), n, at).transpose(-1, -2)


def _without(bias: Tensor, n: int, at: int) -> Tensor:
    return torch.cat([bias[..., :at, :], bias[..., at + n :, :]], dim=-2)


def _narrow(output: tuple[Any, ...], n: int, at: int) -> tuple[Any, ...]:
    hidden, bias, cross = output
    bias = _without(_without(bias, n, at).transpose(-1, -2), n, at).transpose(-1, -2)
    return hidden, bias, None if cross is None else _without(cross, n, at)


def _skipped(y: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """A skipped block passes the biases on; the first one has none to pass, so the next computes nothing wrong."""
    if args[2] is None:
        raise ValueError("the first T5 block computes the position bias and cannot be skipped")
    return y, args[2], args[5]


def tower(builder: Builder, stack: Any) -> Tower:
    """One stack: encoder or decoder."""
    config, modules = stack.config, list(stack.block)
    name = "decoder" if config.is_decoder else "encoder"
    widening = Widening(partial(_widen, modules[0].layer[0].SelfAttention, bool(config.is_decoder)), _narrow)
    return Tower(
        edits=builder.edits,
        name=name,
        module=stack,
        width=config.d_model,
        blocks=[_block(builder, f"{name}.blocks.{i}", i, module, config) for i, module in enumerate(modules)],
        tokens=Tokens(builder.edits, modules, config.d_model, 0, widening),
        output=builder.op(stack.final_layer_norm, config.d_model),
        embedding=builder.embedding(stack.embed_tokens),
        takes_prompt=not config.is_decoder,
        is_causal=bool(config.is_decoder),
    )


def _block(builder: Builder, name: str, index: int, module: Any, config: Any) -> Block:
    width = config.d_model
    self_attention, self_norm = _attention(builder, f"{name}.attention", module.layer[0], "SelfAttention", config)
    attentions, norms = [self_attention], [self_norm]
    if config.is_decoder:
        cross, cross_norm = _attention(builder, f"{name}.cross", module.layer[1], "EncDecAttention", config)
        attentions.append(cross)
        norms.append(cross_norm)
    layer = module.layer[-1]
    dense = layer.DenseReluDense
    gated = hasattr(dense, "wi_0")
    gate = builder.linear(dense.wi_0) if gated else None
    up = builder.linear(dense.wi_1 if gated else dense.wi)
    feedforward = (dense, layer.dropout, layer.layer_norm)
    matrices = (up, builder.linear(dense.wo), gate)
    return block_of_attentions(
        builder, name, index, module, width, attentions, norms, feedforward, matrices, skipped=_skipped
    )


def _attention(builder: Builder, name: str, layer: nn.Module, attribute: str, config: Any) -> tuple[Attention, OpPlace]:
    module: Any = getattr(layer, attribute)
    q, k, v, o = (builder.linear(m) for m in (module.q, module.k, module.v, module.o))
    is_cross = attribute == "EncDecAttention"
    attention = builder.attention(
        name,
        (q, k, v, o),
        transformers_core(module),
        sublayer=builder.sublayer(name, config.d_model, module, layer.dropout, layer.layer_norm),
        heads=config.num_heads,
        kv_heads=config.num_heads,
        head_dim=config.d_kv,
        is_cross=is_cross,
        is_causal=bool(config.is_decoder) and not is_cross,
    )
    return attention, builder.op(layer.layer_norm, config.d_model, followers=(q,) if is_cross else (q, k, v))
