"""Extra tokens among the tokens of chosen blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .calling import hidden_of, output_of, with_hidden, with_output
from .chain import Chain, Handle, Op, around, remove_all
from .edits import Edits
from .ladder import RungOp

Source = Tensor | Callable[[Tensor], Tensor]  # (n, width), or f(hidden (B, L, width)) -> (B, n, width)
Carry = Callable[[Tensor, Tensor, int], Tensor]  # f(before, after, block): tokens (B, n, width) that leave the block
Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Widening:
    """How a family's blocks take `n` more tokens at position `at`.

    `widen(args, kwargs, n, at)` returns the arguments other than the hidden states for the longer sequence (the hidden
    states are already longer); `narrow(output, n, at)` shortens outputs other than the hidden states.
    """

    widen: Callable[[tuple[Any, ...], dict[str, Any], int, int], Call]
    narrow: Callable[[Any, int, int], Any]


def same_call(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> Call:
    """For blocks whose other arguments do not depend on the length."""
    return args, kwargs


def same_output(output: Any, n: int, at: int) -> Any:
    """For blocks whose other outputs do not depend on the length."""
    return output


def widen_mask(mask: Tensor | None, n: int, at: int, causal: bool) -> Tensor | None:
    """Put `n` rows and columns at `at` into a self-attention mask (..., L, L), bool (True = attend) or additive.

    Everyone sees the new tokens, except the rows before them in a causal model; the new tokens see one another
    (causally, in a causal model), what stands before them and, where not causal, what the row behind them sees.
    """
    if mask is None:
        return None
    if mask.shape[-2] == 1:  # the same row for every query
        visible = mask.new_full((*mask.shape[:-1], n), _visible(mask))
        return torch.cat([mask[..., :at], visible, mask[..., at:]], dim=-1)
    length, hidden = mask.shape[-1], _hidden(mask)
    columns = mask.new_full((*mask.shape[:-1], n), _visible(mask))
    if causal and at:
        columns[..., :at, :] = hidden
    wide = torch.cat([mask[..., :at], columns, mask[..., at:]], dim=-1)
    rows = wide[..., min(at, length - 1), :].unsqueeze(-2).expand(*wide.shape[:-2], n, length + n).clone()
    if causal:
        rows[..., at:] = hidden
        triangle = torch.ones(n, n, dtype=torch.bool, device=mask.device).tril()
        rows[..., at : at + n] = rows[..., at : at + n].masked_fill(triangle, _visible(mask))
    return torch.cat([wide[..., :at, :], rows, wide[..., at:, :]], dim=-2)


def _visible(mask: Tensor) -> float | bool:
    return True if mask.dtype == torch.bool else 0.0


def _hidden(mask: Tensor) -> float | bool:
    return False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min


class _BlockOp:
    """Carries `n` extra tokens at position `at` through block `index`, one of the range `blocks`."""

    def __init__(
        self, widening: Widening, source: Source, n: int, at: int, blocks: range, index: int, carry: Carry | None
    ) -> None:
        self.widening, self.source, self.n, self.at, self.blocks = widening, source, n, at, blocks
        self.index, self.carry = index, carry
        self.first, self.last = index == blocks[0], index == blocks[-1]
        self.carried = 0 if self.last else n  # tokens that the block's output still has, behind position `at`

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        x = hidden_of(args, kwargs)
        if self.first:
            tokens = self.source(x) if callable(self.source) else self.source
            if tokens.dim() == 2:
                tokens = tokens.expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, : self.at], tokens.to(x.dtype), x[:, self.at :]], dim=1)
            args, kwargs = with_hidden(args, kwargs, x)
        args, kwargs = self.widening.widen(args, kwargs, self.n, self.at)
        output = self.widening.narrow(next(*args, **kwargs), self.n, self.at)
        if self.last:
            return with_output(output, self._with_tokens(output_of(output), None))
        if self.carry is not None:
            before, after = (z[:, self.at : self.at + self.n] for z in (x, output_of(output)))
            output = with_output(output, self._with_tokens(output_of(output), self.carry(before, after, self.index)))
        return output

    def _with_tokens(self, y: Tensor, tokens: Tensor | None) -> Tensor:
        """The sequence with other extra tokens, or without any."""
        middle = [] if tokens is None else [tokens.to(y.dtype)]
        return torch.cat([y[:, : self.at], *middle, y[:, self.at + self.n :]], dim=1)


def _encloses(blocks: range, op: Op) -> bool:
    """Whether `op` carries tokens through all of `blocks` (what is put in later must be taken out earlier), or reads
    the sequence without extra tokens."""
    if isinstance(op, RungOp):
        return True
    return isinstance(op, _BlockOp) and op.blocks[0] <= blocks[0] and blocks[-1] <= op.blocks[-1]


class Tokens:
    """Extra tokens of the blocks of one tower. Ranges of several insertions must nest; others are a ValueError."""

    def __init__(
        self,
        edits: Edits,
        blocks: list[nn.Module],
        width: int,
        special: int,
        widening: Widening,
        available: bool = True,
    ) -> None:
        self.edits, self.blocks, self.width, self.special, self.widening = edits, blocks, width, special, widening
        self.available = available

    def insert(
        self, source: Source, n: int, at: int = 0, until: int | None = None, carry: Carry | None = None
    ) -> Handle:
        """Put `n` tokens behind the special tokens at block `at`, and take them out behind block `until` - 1.

        `source` is (n, width), or a function of the hidden states that enter block `at`. The tokens get no position
        of their own. With `until` = `at` + 1 every block sees fresh tokens (VPT-Deep). `carry(before, after, block)`
        makes the tokens that go on to the next block from those that entered and left a block, both (B, n, width).
        """
        until = len(self.blocks) if until is None else until
        if not 0 <= at < until <= len(self.blocks):
            raise ValueError(f"blocks {at}..{until} are not within 0..{len(self.blocks)}")
        blocks = range(at, until)
        self._check_nesting(blocks)
        handles = []
        for i in blocks:
            op = _BlockOp(self.widening, source, n, self.special, blocks, i, carry)
            handles.append(around(self.blocks[i], op, inside=partial(_encloses, blocks)))
        return self.edits.add(Handle(partial(remove_all, handles)), unmergeable="extra tokens")

    def _check_nesting(self, blocks: range) -> None:
        for i in blocks:
            chain = self.blocks[i].__dict__.get("forward")
            for op in chain.ops if isinstance(chain, Chain) else []:
                if not isinstance(op, _BlockOp) or _encloses(blocks, op):
                    continue
                if op.blocks[0] < blocks[0] or op.blocks[-1] > blocks[-1]:
                    raise ValueError(f"tokens in blocks {blocks} would cross those in blocks {op.blocks}")
