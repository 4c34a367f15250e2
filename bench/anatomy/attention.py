"""Attention: projections as linear places, and the core between them as something that can be wrapped.

A core op is `op(next, q, k, v, context)` with q (B, heads, L, D) and k, v (B, kv_heads, S, D) after any rotary
embedding; it returns what `next` does, (B, heads, L, D).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .chain import Handle, replace_forward
from .edits import Edits
from .linear import LinearPlace
from .sublayer import Sublayer


@dataclass(frozen=True)
class Context:
    """How an attention is masked and scaled.

    mask: True = may attend, or additive float, broadcastable to (B, heads, L, S), or None. bias: additive position
    bias (T5) or None. causal: mask out the future; only read where mask is None. scale: of q k^T, None for 1/sqrt(D).
    softcap: bound c of the scaled scores s, which become c * tanh(s / c) before bias and mask (Gemma 2, arXiv
    2408.00118, section 2), or None. stepwise: scores and weights are tensors of their own, as in a library that uses no
    fused kernel; the same function, in another order of rounding.
    """

    mask: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False
    scale: float | None = None
    dropout: float = 0.0
    softcap: float | None = None
    stepwise: bool = False

    def widen(self, n: int, length: int, keys: int, device: torch.device) -> Context:
        """The context after `n` key columns that everyone sees were put at the left of (length, keys)."""
        mask, bias = self.mask, self.bias
        if mask is None and self.causal:
            mask = torch.ones(length, keys, dtype=torch.bool, device=device).tril(keys - length)
        if mask is not None:
            visible = True if mask.dtype == torch.bool else 0.0
            mask = torch.cat([mask.new_full((*mask.shape[:-1], n), visible), mask], dim=-1)
        if bias is not None:
            bias = torch.cat([bias.new_zeros((*bias.shape[:-1], n)), bias], dim=-1)
        return replace(self, mask=mask, bias=bias, causal=False)


def attend(q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
    """Scaled dot-product attention; grouped key/value heads are repeated."""
    if k.shape[1] != q.shape[1]:
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    mask, causal = context.mask, context.causal and context.mask is None and q.shape[2] > 1
    in_steps = context.stepwise or context.softcap is not None
    if causal and (context.bias is not None or in_steps):
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
        causal = False
    if context.bias is not None:
        mask = _biased(mask, context.bias.to(q.dtype))
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)
    if in_steps:
        return _attend_in_steps(q, k, v, mask, context)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=context.dropout, is_causal=causal, scale=context.scale
    )


def _biased(mask: Tensor | None, bias: Tensor) -> Tensor:
    """The mask and the bias as one additive mask."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, torch.finfo(bias.dtype).min)
    return mask + bias


def _attend_in_steps(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    """Attention without torch's fused kernels, which know no bounded scores."""
    scale, cap = q.shape[-1] ** -0.5 if context.scale is None else context.scale, context.softcap
    scores = q @ k.transpose(2, 3) * scale
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    # with bounded scores in single precision, as the library's own: half precision loses the small weights
    weights = scores.softmax(-1, dtype=None if cap is None else torch.float32).to(q.dtype)
    return F.dropout(weights, context.dropout) @ v


class Core:
    """The attention core of one module, with its ops innermost first."""

    def __init__(self, module: nn.Module, install: Callable[[Core], Handle]) -> None:
        self.module, self.install = module, install
        self.installed: Handle | None = None
        self.ops: list[Callable[..., Tensor]] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        call: Callable[..., Tensor] = attend
        for op in self.ops:
            call = partial(op, call)
        return call(q, k, v, context)

    def add(self, op: Callable[..., Tensor]) -> None:
        """Put `op` outside the present ones; the first one takes over the library's own core."""
        self.ops.append(op)
        if self.installed is None:
            self.module.__dict__["_atlas_core"] = self
            self.installed = self.install(self)

    def drop(self, op: Callable[..., Tensor]) -> None:
        """Take `op` out; the library's core comes back when nothing is left."""
        self.ops = [other for other in self.ops if other is not op]
        if not self.ops and self.installed is not None:
            self.installed.remove()
            self.installed = None
            self.module.__dict__.pop("_atlas_core", None)

    def shared(self) -> Core:
        """The core that already holds the module, which another anatomy of the model may have put there, or this."""
        return self.module.__dict__.get("_atlas_core", self)


class CorePlace:
    """Where a method wraps an attention core."""

    def __init__(self, edits: Edits, core: Core) -> None:
        self.edits, self.core = edits, core

    def around(self, op: Callable[..., Tensor]) -> Handle:
        """Wrap the core in `op(next, q, k, v, context)`."""
        core = self.core.shared()
        core.add(op)
        return self.edits.add(Handle(partial(core.drop, op)), unmergeable="an op around the attention core")


@dataclass
class Attention:
    """One attention of a block. `core` is None where the module's class is unknown: a place absent, never a guess."""

    name: str
    q: LinearPlace
    k: LinearPlace
    v: LinearPlace
    o: LinearPlace
    sublayer: Sublayer
    core: CorePlace | None
    heads: int
    kv_heads: int
    head_dim: int
    is_cross: bool = False
    is_causal: bool = False

    @property
    def linears(self) -> dict[str, LinearPlace]:
        """The projections by their short names."""
        return {"q": self.q, "k": self.k, "v": self.v, "o": self.o}


# how a core is taken over, by library ------------------------------------------------------------------------------


class ForwardWithCore:
    """Replaces a module's innermost forward by one that calls our core; `forward(core, module, *args)`."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def core(self, module: nn.Module) -> Core:
        return Core(module, partial(self._install, module))

    def _install(self, module: nn.Module, core: Core) -> Handle:
        return replace_forward(module, partial(self.forward, core))


IMPLEMENTATION = "peft_atlas"  # our name in the attention registry of transformers


def transformers_core(module: nn.Module) -> Core:
    """The core of an attention module of transformers, through its public attention interface."""
    return Core(module, partial(_install_in_transformers, module))


class _Borrowed(str):
    """Our name, as the value of a config's attention implementation: with what stood there, and how many cores use it.

    Kept in the value itself, so that the config, which is printed, compared and saved, gets no field of ours.
    """

    previous: str | None
    users: int


def _install_in_transformers(module: Any, core: Core) -> Handle:
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

    AttentionInterface.register(IMPLEMENTATION, _transformers_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, sdpa_mask)
    config = module.config
    if not isinstance(config._attn_implementation, _Borrowed):
        ours = _Borrowed(IMPLEMENTATION)
        ours.previous, ours.users = config._attn_implementation, 0
        config._attn_implementation = ours
    config._attn_implementation.users += 1
    return Handle(partial(_give_back, config))


def _give_back(config: Any) -> None:
    ours = config._attn_implementation
    if isinstance(ours, _Borrowed):
        ours.users -= 1
        if not ours.users:
            config._attn_implementation = ours.previous


def _transformers_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    core: Core | None = module.__dict__.get("_atlas_core")
    causal = options.get("is_causal")
    context = Context(
        mask=attention_mask,
        bias=options.get("position_bias"),
        causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
        scale=options.get("scaling"),
        dropout=options.get("dropout") or 0.0,
        softcap=options.get("softcap"),
    )
    output = (attend if core is None else core)(query, key, value, context)
    return output.transpose(1, 2).contiguous(), None
