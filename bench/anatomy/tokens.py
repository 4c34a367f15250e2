"""Extra tokens: in front of a text model's input, or among the tokens of chosen blocks."""

from __future__ import annotations

import inspect
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


class _PromptOp:
    """Around a text stack: ids to embeddings, the prompt in front, the mask longer; positions are the library's."""

    def __init__(self, stack: nn.Module, source: Source, n: int, text: Callable[[Tensor], Tensor] | None) -> None:
        self.stack, self.source, self.n, self.text = stack, source, n, text
        self.signature = inspect.signature(type(stack).forward)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "signature"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.signature = inspect.signature(type(self.stack).forward)

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = dict(self.signature.bind_partial(self.stack, *args, **kwargs).arguments)
        call.pop("self")
        call.update(call.pop("kwargs", {}))
        past = call.get("past_key_values")
        mask = call.get("attention_mask")
        if past is not None and past.get_seq_length() > 0:  # the cache already holds the prompt
            if mask is not None and mask.dim() == 2:
                call["attention_mask"] = _pad_left(mask, self.n, 1)
            call.pop("position_ids", None)  # a caller counts the text alone; the library counts on from the cache
            return next(**call)
        ids, embeds = call.pop("input_ids", None), call.get("inputs_embeds")
        if embeds is None:
            embeds = self.stack.get_input_embeddings()(ids)  # type: ignore[operator]
        if self.text is not None:
            embeds = self.text(embeds)
        prompt = self.source(embeds) if callable(self.source) else self.source
        if prompt.dim() == 2:
            prompt = prompt.expand(embeds.shape[0], -1, -1)
        call["inputs_embeds"] = torch.cat([prompt.to(embeds.dtype), embeds], dim=1)
        if mask is not None:
            call["attention_mask"] = _pad_left(mask, self.n, 1)
        if call.get("token_type_ids") is not None:
            call["token_type_ids"] = _pad_left(call["token_type_ids"], self.n, 0)
        call["position_ids"] = None
        call = {name: value for name, value in call.items() if value is not None}
        output = next(**call)
        return with_output(output, output_of(output)[:, self.n :])


def _pad_left(ids: Tensor, n: int, value: int) -> Tensor:
    return torch.cat([ids.new_full((ids.shape[0], n), value), ids], dim=1)


def prompt(
    edits: Edits, stack: nn.Module, source: Source, n: int, text: Callable[[Tensor], Tensor] | None = None
) -> Handle:
    """Put `n` virtual tokens before the input of a text stack and strip them from its output.

    `text` replaces the embedded text (B, L, width) that follows them.

    A pooler inside the stack sees the first virtual token, as it does in HF PEFT. Raises in the stack itself when the
    longer sequence has no positions left.
    """
    return edits.add(around(stack, _PromptOp(stack, source, n, text)), unmergeable="a prompt")


class _ShiftPositions:
    def __init__(self, stack: nn.Module, n: int) -> None:
        self.stack, self.n = stack, n

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("position_ids") is None:
            ids = args[0] if args else kwargs.get("input_ids")
            kwargs = {**kwargs, "position_ids": self._positions(ids, kwargs)}
        return next(*args, **kwargs)

    def _positions(self, ids: Tensor | None, kwargs: dict[str, Any]) -> Tensor:
        past = kwargs.get("past_key_values")
        start = self.n + (0 if past is None else past.get_seq_length())
        embeddings: Any = getattr(self.stack, "embeddings", None)
        if ids is not None and hasattr(embeddings, "create_position_ids_from_input_ids"):  # RoBERTa skips padding
            return embeddings.create_position_ids_from_input_ids(ids, embeddings.padding_idx, start)
        reference: Tensor = kwargs["inputs_embeds"] if ids is None else ids
        if hasattr(embeddings, "create_position_ids_from_inputs_embeds"):
            return start + embeddings.create_position_ids_from_inputs_embeds(reference, embeddings.padding_idx)
        return torch.arange(start, start + reference.shape[1], device=reference.device).unsqueeze(0)


def shift_positions(edits: Edits, stack: nn.Module, n: int) -> Handle:
    """Number the input's positions from `n`, as a library does that hands a prefix over as a key/value cache."""
    return edits.add(around(stack, _ShiftPositions(stack, n)), unmergeable="shifted positions")


def bind_positions(stack: nn.Module) -> bool:
    """Whether the stack takes `position_ids`."""
    return "position_ids" in inspect.signature(type(stack).forward).parameters
