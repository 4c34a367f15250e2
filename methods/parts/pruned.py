"""Smaller matrices cut out of the backbone's: structured pruning by magnitude (Li et al. 2017, arXiv 1608.08710).

What is kept is a set of indices in ascending order; a unit scores by the L1 norms of the rows and columns that belong
to it in all matrices that share it. Nothing here reads a value on the meta device, where indices have only shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...bench.anatomy.attention import Attention
from ...bench.anatomy.linear import LinearPlace
from ...bench.anatomy.tower import FeedForward, Tower

WRITES = ("o", "down")  # matrices whose rows, not columns, belong to the residual stream


def channels(tower: Tower, count: int) -> Tensor:
    """The `count` dimensions of the residual stream with the largest weights in all blocks, (count,)."""
    device = tower.blocks[0].feedforward.up.weight().device
    score = torch.zeros(tower.width, device=device)
    for block in tower.blocks:
        for attention in block.attentions:
            names = ("q", "o") if attention.is_cross else ("q", "k", "v", "o")
            for name in names:  # a cross-attention's keys and values read another stream
                score += _magnitude(attention.linears[name], 0 if name not in WRITES else 1)
        for name, place in block.feedforward.linears.items():
            score += _magnitude(place, 0 if name not in WRITES else 1)
    return _largest(score, count)


def units(feedforward: FeedForward, count: int) -> Tensor:
    """The hidden units with the largest product of norms in the matrices around them, (count,)."""
    score = _magnitude(feedforward.up, 1) * _magnitude(feedforward.down, 0)
    if feedforward.gate is not None:
        score = score * _magnitude(feedforward.gate, 1)
    return _largest(score, count)


def head_dimensions(attention: Attention, dim: int) -> dict[str, Tensor]:
    """`dim` dimensions of each head, as rows of q (heads * dim,), k and v (kv_heads * dim,) and columns of o.

    A query and its key keep the same ones, and so do a value and the output matrix; heads that share keys and values
    share the choice.
    """
    kv_heads, group, full = attention.kv_heads, attention.heads // attention.kv_heads, attention.head_dim
    queries, outputs = (
        _magnitude(place, side).view(kv_heads, group, full).sum(1)
        for place, side in ((attention.q, 1), (attention.o, 0))
    )
    in_keys = _largest(queries * _magnitude(attention.k, 1).view(kv_heads, full), dim)
    in_values = _largest(outputs * _magnitude(attention.v, 1).view(kv_heads, full), dim)
    return {
        "q": _in_matrix(in_keys, group, full),
        "k": _in_matrix(in_keys, 1, full),
        "v": _in_matrix(in_values, 1, full),
        "o": _in_matrix(in_values, group, full),
    }


@torch.no_grad()
def pruned(place: LinearPlace, rows: Tensor, columns: Tensor) -> nn.Linear:
    """A layer of its own with the chosen rows and columns of a matrix, and of its bias where it has one."""
    weight, bias = place.weight(), place.bias()
    layer = nn.Linear(len(columns), len(rows), bias is not None, device=weight.device)
    layer.weight.copy_(weight[rows][:, columns])
    if bias is not None:
        layer.bias.copy_(bias.value()[rows])
    return layer


def _magnitude(place: LinearPlace, dim: int) -> Tensor:
    """L1 norms of the columns (0) or rows (1)."""
    return place.weight().detach().float().abs().sum(dim)


def _largest(scores: Tensor, count: int) -> Tensor:
    return scores.topk(count, -1).indices.sort(-1).values


def _in_matrix(kept: Tensor, copies: int, full: int) -> Tensor:
    """Indices within heads (kv_heads, dim) as indices into a matrix that has `copies` heads of size `full` for each."""
    heads = torch.arange(len(kept) * copies, device=kept.device).view(len(kept), copies, 1)
    return (heads * full + kept[:, None]).flatten()
