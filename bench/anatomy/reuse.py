"""A block's attention on another sequence than the one that its block sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .attention import Attention
from .calling import output_of
from .chain import bare


def added_by(attention: Attention, stream: Tensor, before: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """What a self-attention would add to a residual stream (B, L, width), of any batch and length.

    Its norm and its matrices act with their edits, as does its core; what methods put around the sublayer takes no
    part. There is no mask. `before` changes what leaves the norm. Raises ValueError for an attention behind which its
    norm stands (BERT).
    """
    sublayer = attention.sublayer
    if sublayer.stream_module is None or attention.is_causal or attention.is_cross:
        raise ValueError(f"{attention.name} cannot be used for another sequence")
    x = sublayer.stream_module(stream)
    y = output_of(_call(sublayer.entry_module, x if before is None else before(x)))
    return y if sublayer.is_one_module else output_of(bare(sublayer.exit_module)(y))


def _call(module: nn.Module, x: Tensor) -> Any:
    if isinstance(module, nn.MultiheadAttention):
        return bare(module)(x, x, x, need_weights=False)
    return bare(module)(x)
