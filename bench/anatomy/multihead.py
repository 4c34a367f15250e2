"""torch's `nn.MultiheadAttention`, whose forward reads its projections and calls none of them.

While one of its places is in use, the forward here takes the place of the class's own. It computes the same from the
same parameters, bit for bit where torch's fast path is off (`torch.backends.mha.set_fastpath_enabled(False)`): that
path, which only inference without gradients takes, rounds in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .attention import Context, Core, attend
from .builder import Builder
from .chain import replace_forward
from .linear import LinearPlace
from .matrix_site import Reading


def projections(builder: Builder, module: Any) -> tuple[LinearPlace, LinearPlace, LinearPlace, LinearPlace]:
    """q, k, v (slices of one matrix) and o of a self-attention.

    Raises UsageError where the module has keys and values of another width, or extra ones of its own.
    """
    if not module.batch_first or module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn:
        raise UsageError(f"{builder.paths[module]}: only self-attention with the batch first is known")
    fused = Reading("in_proj_weight", "in_proj_bias", reader=module, forward=_forward)
    width = module.embed_dim
    q, k, v = (builder.linear(module, slice(i * width, (i + 1) * width), reading=fused) for i in range(3))
    return q, k, v, builder.linear(module.out_proj, reading=Reading(reader=module, forward=_forward))


def core(module: nn.Module) -> Core:
    """The core of a self-attention."""
    return Core(module, _install)


def _install(core: Core) -> Any:
    return replace_forward(core.module, _forward)


def _forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, None]:
    if need_weights or query is not key or key is not value:
        raise NotImplementedError("an adapted MultiheadAttention does self-attention, and returns no weights")
    batch, length, width = query.shape
    shape = (length, batch, module.num_heads, module.head_dim)
    projected = _multiplied(module, partial(_in_projection, module), query)
    parts = projected.transpose(0, 1).unflatten(-1, (3, width)).movedim(-2, 0).contiguous()
    q, k, v = (part.view(shape).permute(1, 2, 0, 3) for part in parts)  # in memory as torch's own lie
    is_causal = is_causal and key_padding_mask is None
    context = Context(
        mask=None if is_causal else _mask(module, query, attn_mask, key_padding_mask),
        causal=is_causal,
        dropout=module.dropout if module.training else 0.0,
    )
    own: Core | None = module.__dict__.get("_atlas_core")
    y = (attend if own is None else own)(q, k, v, context)
    y = y.transpose(1, 2).reshape(batch, length, width)
    return _multiplied(module.out_proj, partial(_out_projection, module.out_proj), y), None


def _multiplied(owner: nn.Module, product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The product with a matrix, and what its edits make of it."""
    site = owner.__dict__.get("_atlas_site")
    y: Tensor = product(x) if site is None else site(product, x)
    return y


# Both products have the length first, and in the same memory as torch's own: rounding depends on the order of rows, and
# on whether bias and product are computed in one step.


def _in_projection(module: Any, x: Tensor) -> Tensor:
    return F.linear(x.transpose(0, 1), module.in_proj_weight, module.in_proj_bias).transpose(0, 1)


def _out_projection(module: Any, x: Tensor) -> Tensor:
    return F.linear(x.transpose(0, 1).contiguous(), module.weight, module.bias).transpose(0, 1)


def _mask(module: Any, x: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """One additive mask that broadcasts to (B, heads, L, L). In a bool mask of torch's attention True means hidden."""
    mask, padding = _additive(mask, x), _additive(padding, x)
    if mask is not None and mask.dim() == 3:
        mask = mask.view(x.shape[0], module.num_heads, *mask.shape[1:])
    if padding is None:
        return mask
    padding = padding[:, None, None, :]
    return padding if mask is None else mask + padding


def _additive(mask: Tensor | None, x: Tensor) -> Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask, -torch.inf)
