"""What all blocks share: two sublayers with a norm before or behind each.

An architecture file names the modules in a `Parts`; the places that follow from their order are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..attention import Attention, Core
from ..builder import Builder
from ..linear import LinearPlace
from ..op_place import OpPlace
from ..tower import Block


@dataclass(frozen=True)
class Parts:
    """The modules and matrices of one block.

    `attention` and `feedforward` are the modules where the sublayers begin, `ends` those where they end: what leaves
    them is added to the residual stream. None says that the sublayer is one module. `norms` stand before the
    sublayers; with `post_norm` they stand behind the residual sums.
    """

    attention: Any
    feedforward: Any
    norms: tuple[Any, Any]
    projections: tuple[LinearPlace, LinearPlace, LinearPlace, LinearPlace]  # q, k, v, o
    up: LinearPlace
    down: LinearPlace
    core: Core | None
    heads: int
    kv_heads: int
    head_dim: int
    is_causal: bool
    gate: LinearPlace | None = None
    ends: tuple[Any, Any] = (None, None)
    end_norms: bool = False  # the ends are norms too (Gemma 2)
    post_norm: bool = False
    flat_feedforward: bool = False  # its modules see tokens as rows, (B * L, width)
    norm_offset: float = 0.0  # the norms multiply by weight + offset
    outputs: int = 2  # the attention returns so many values


def blocks(
    builder: Builder, tower: str, modules: Sequence[Any], width: int, parts_of: Callable[[Any], Parts], **facts: Any
) -> list[Block]:
    """All blocks of the tower of this name, whose modules have the parts `parts_of(module)`."""
    return [
        block(builder, f"{tower}.blocks.{i}", i, module, width, parts_of(module), **facts)
        for i, module in enumerate(modules)
    ]


def block(builder: Builder, name: str, index: int, module: Any, width: int, parts: Parts, **facts: Any) -> Block:
    """The places of one block; `facts` are fields of `Block` that this order of modules does not decide."""
    streams = (None, None) if parts.post_norm else parts.norms
    starts = (parts.attention, parts.feedforward)
    ends = [start if end is None else end for start, end in zip(starts, parts.ends, strict=True)]
    return Block(
        edits=builder.edits,
        name=name,
        index=index,
        module=module,
        width=width,
        attentions=[
            builder.attention(
                f"{name}.attention",
                parts.projections,
                parts.core,
                sublayer=builder.sublayer(
                    f"{name}.attention", width, parts.attention, ends[0], streams[0], parts.outputs
                ),
                heads=parts.heads,
                kv_heads=parts.kv_heads,
                head_dim=parts.head_dim,
                is_causal=parts.is_causal,
            )
        ],
        feedforward=builder.feedforward(
            f"{name}.feedforward",
            parts.up,
            parts.down,
            builder.sublayer(
                f"{name}.feedforward",
                width,
                parts.feedforward,
                ends[1],
                streams[1],
                rows_of=module if parts.flat_feedforward else None,
            ),
            parts.gate,
        ),
        norms=_norms(builder, width, parts),
        **facts,
    )


def block_of_attentions(
    builder: Builder,
    name: str,
    index: int,
    module: Any,
    width: int,
    attentions: list[Attention],
    norms: list[OpPlace],
    feedforward: tuple[Any, Any, Any],
    matrices: tuple[LinearPlace, LinearPlace, LinearPlace | None],
    **facts: Any,
) -> Block:
    """A block with several attentions, each behind a norm of `norms` (in the order of the hidden states).

    `feedforward`: the module where that sublayer begins, the one where it ends, and the norm before it; `matrices`: its
    up, down and gate.
    """
    start, end, norm = feedforward
    up, down, gate = matrices
    sublayer = builder.sublayer(f"{name}.feedforward", width, start, end, norm)
    return Block(
        edits=builder.edits,
        name=name,
        index=index,
        module=module,
        width=width,
        attentions=attentions,
        feedforward=builder.feedforward(f"{name}.feedforward", up, down, sublayer, gate),
        norms=[*norms, builder.op(norm, width, followers=_entered(up, gate))],
        **facts,
    )


def _entered(up: LinearPlace, gate: LinearPlace | None) -> tuple[LinearPlace, ...]:
    """The matrices that the feed-forward's input meets."""
    return (up,) if gate is None else (gate, up)


def _norms(builder: Builder, width: int, parts: Parts) -> list[OpPlace]:
    """All norms in the order in which the hidden states pass them."""
    to_feedforward = _entered(parts.up, parts.gate)
    followers = (to_feedforward, ()) if parts.post_norm else (parts.projections[:3], to_feedforward)
    places = []
    for norm, linears, end in zip(parts.norms, followers, parts.ends, strict=True):
        places.append(builder.op(norm, width, followers=linears, offset=parts.norm_offset))
        if parts.end_norms:
            places.append(builder.op(end, width, offset=parts.norm_offset))
    return places
