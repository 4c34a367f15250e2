"""A narrow transformer beside a tower, which reads what leaves the tower's blocks (Sung et al. 2022, arXiv 2206.06522).

Its blocks have the backbone's heads, each narrower, and start as the backbone's weights, pruned (see `pruned`). They
are pre-norm with LayerNorms of their own, whatever the backbone has, and see its masks and T5's position bias; they
rotate nothing, since the hidden states they read already know their positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...bench.anatomy.attention import Attention, Context, attend
from ...bench.anatomy.ladder import Pass, Rung
from ...bench.anatomy.tower import Block, FeedForward, Tower
from .bottleneck import ACTIVATIONS
from .pruned import head_dimensions, pruned, units


class SideAttention(nn.Module):
    """(B, L, s) and the states to attend to (B, S, s) -> (B, L, s). `stream` and `memory` say which channels it has."""

    def __init__(self, attention: Attention, r: int, stream: Tensor, memory: Tensor) -> None:
        super().__init__()
        kept = head_dimensions(attention, max(1, attention.head_dim // r))
        self.q_proj = pruned(attention.q, kept["q"], stream)
        self.k_proj = pruned(attention.k, kept["k"], memory)
        self.v_proj = pruned(attention.v, kept["v"], memory)
        self.o_proj = pruned(attention.o, stream, kept["o"])
        self.heads, self.kv_heads, self.is_causal = attention.heads, attention.kv_heads, attention.is_causal

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            layer(memory).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for layer in (self.k_proj, self.v_proj)
        )
        y = attend(q, k, v, Context(mask=mask, bias=bias, causal=self.is_causal))
        return self.o_proj(y.transpose(1, 2).flatten(-2))


class SideFeedForward(nn.Module):
    """down(s(up(x))), or down(s(gate(x)) * up(x)) where the backbone has a gate."""

    def __init__(self, feedforward: FeedForward, r: int, stream: Tensor, activation: str) -> None:
        super().__init__()
        kept = units(feedforward, max(1, feedforward.up.d_out // r))
        self.up, self.down = pruned(feedforward.up, kept, stream), pruned(feedforward.down, stream, kept)
        self.gate = None if feedforward.gate is None else pruned(feedforward.gate, kept, stream)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class SideBlock(nn.Module):
    """Self-attention, cross-attention where the block has one, and feed-forward, r times narrower.

    The self-attention is the block's first one, over all tokens, also where the block divides space and time.
    """

    def __init__(self, block: Block, r: int, stream: Tensor, memory: Tensor | None, activation: str) -> None:
        super().__init__()
        self.attentions = nn.ModuleList()
        for attention in (block.attention, *(other for other in block.attentions if other.is_cross)):
            reads = memory if attention.is_cross and memory is not None else stream
            self.attentions.append(SideAttention(attention, r, stream, reads))
        self.feedforward = SideFeedForward(block.feedforward, r, stream, activation)
        norms = [nn.LayerNorm(len(stream), device=stream.device) for _ in range(len(self.attentions) + 1)]
        self.norms = nn.ModuleList(norms)

    def forward(self, h: Tensor, rung: Rung, bias: Tensor | None, memory: Tensor | None) -> Tensor:
        x = self.norms[0](h)
        h = h + self.attentions[0](x, x, rung.mask, bias)
        if len(self.attentions) > 1:
            assert memory is not None, "a decoder's pass follows its encoder's"
            h = h + self.attentions[1](self.norms[1](h), memory, rung.memory_mask, None)
        return h + self.feedforward(self.norms[-1](h))


@dataclass(frozen=True)
class SideShape:
    """Size and parts of a side network: it is `r` times narrower and has a block for each of the blocks `read`."""

    r: int
    read: tuple[int, ...]
    temperature: float
    activation: str


class SideNetwork(nn.Module):
    """(pass) -> (B, L, s): h = ladder_0(what enters the blocks); for each block that is read, with hidden states f,

        h = block(mu * ladder(f) + (1 - mu) * h),  mu = sigmoid(alpha / temperature);

    and a norm at the end. It has the channels `stream` of the tower; `memory` are those of an encoder's side network,
    for a decoder's.
    """

    def __init__(self, tower: Tower, shape: SideShape, stream: Tensor, memory: Tensor | None = None) -> None:
        super().__init__()
        device, self.width, self.shape = stream.device, len(stream), shape
        self.ladders = nn.ModuleList(
            nn.Linear(tower.width, self.width, device=device) for _ in range(len(shape.read) + 1)
        )
        self.blocks = nn.ModuleList(
            SideBlock(tower.blocks[i], shape.r, stream, memory, shape.activation) for i in shape.read
        )
        self.alpha = nn.Parameter(torch.zeros(len(shape.read), device=device))
        self.norm = nn.LayerNorm(self.width, device=device)

    def forward(self, running: Pass, memory: Tensor | None) -> Tensor:
        dtype = self.alpha.dtype
        h = self.ladders[0](running.start.to(dtype))
        gates = (self.alpha / self.shape.temperature).sigmoid()
        for number, i in enumerate(self.shape.read):
            rung = running.rungs[i]
            seen = self.ladders[number + 1](rung.hidden.to(dtype))
            h = self.blocks[number](h.lerp(seen, gates[number]), rung, running.bias, memory)
        return self.norm(h)


class Memory:
    """The last states (B, S, s) of an encoder's side network, until the decoder's takes them; no part of a copy."""

    def __init__(self) -> None:
        self.states: Tensor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def take(self) -> Tensor:
        """The states of this pass. Raises ValueError where the encoder did not run."""
        states, self.states = self.states, None
        if states is None:
            raise ValueError("the decoder's side network follows the encoder's: run both in one call")
        return states


class SideEncoder(nn.Module):
    """The ladder's function of an encoder with a decoder: its output stays, its side network's goes to the memory."""

    def __init__(self, side: SideNetwork, memory: Memory) -> None:
        super().__init__()
        self.side, self.memory = side, memory

    def forward(self, y: Tensor, running: Pass) -> Tensor:
        self.memory.states = self.side(running, None)
        return y


class SideOutput(nn.Module):
    """The ladder's function of other towers: the side network's output, spread to the tower's width.

    With `keeps_output` it is mixed with the backbone's, y -> mu * y + (1 - mu) * output, by a gate like the ladders'.
    """

    def __init__(self, side: SideNetwork, width: int, keeps_output: bool, memory: Memory | None = None) -> None:
        super().__init__()
        self.side, self.memory = side, memory
        device = side.alpha.device
        self.up = nn.Linear(side.width, width, device=device)
        self.alpha = nn.Parameter(torch.zeros((), device=device)) if keeps_output else None

    def forward(self, y: Tensor, running: Pass) -> Tensor:
        output: Tensor = self.up(self.side(running, None if self.memory is None else self.memory.take()))
        if self.alpha is None:
            return output
        return output.lerp(y.to(output.dtype), (self.alpha / self.side.shape.temperature).sigmoid())
