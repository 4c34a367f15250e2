"""Ladders: what leaves each block goes to a network beside the stack, which makes the stack's last hidden states."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from .calling import hidden_of, output_of, with_output


@dataclass(frozen=True)
class Rung:
    """What one block hands over: its output (B, L, width), and the masks it was called with (see `Context`)."""

    hidden: Tensor
    mask: Tensor | None
    memory_mask: Tensor | None  # of a cross-attention


@dataclass
class Pass:
    """One run of a stack: the hidden states that enter the blocks, a rung for each block, a position bias (T5)."""

    start: Tensor
    rungs: list[Rung] = field(default_factory=list)
    bias: Tensor | None = None


Function = Callable[[Tensor, Pass], Tensor]  # f(hidden states (B, L, width) of the backbone, pass) -> (B, L, width)


class Ladder:
    """The function, and the pass that is under way; copies and pickles without the latter."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.running: Pass | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function,)

    def finish(self, y: Tensor) -> Tensor:
        """The function's value for the pass that ends with `y`."""
        running, self.running = self.running, None
        assert running is not None, "the blocks run before what follows them"
        return self.function(y, running)


class RungOp:
    """Around one block: runs it without gradient and keeps what leaves it.

    It stays outside ops that put tokens into the block, and leaves out tokens on their way to the next one, so that all
    rungs have the sequence that the library passes.
    Nothing of the block is recorded, hence checkpointing never runs it twice.
    """

    def __init__(self, ladder: Ladder, module: nn.Module, is_first: bool) -> None:
        self.ladder, self.module, self.is_first = ladder, module, is_first

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = _named(self.module, args, kwargs)
        if self.is_first:
            past = call.get("past_key_values")
            if past is not None and past.get_seq_length() > 0:
                raise ValueError("a ladder beside the blocks needs use_cache=False")
            self.ladder.running = Pass(hidden_of(args, kwargs).detach())
        with torch.no_grad():
            output = next(*args, **kwargs)
        running = self.ladder.running
        assert running is not None, "the first block runs first"
        mask = call.get("attention_mask", call.get("attn_mask"))
        hidden = self._without_carried(output_of(output).detach())
        running.rungs.append(Rung(hidden, mask, call.get("encoder_attention_mask")))
        running.bias = call.get("position_bias", running.bias)
        return output

    def _without_carried(self, y: Tensor) -> Tensor:
        """The block's output (B, L + extra, width) without extra tokens; several insertions put them at one place."""
        for op in self.module.__dict__["forward"].ops:
            if n := getattr(op, "carried", 0):
                y = torch.cat([y[:, : op.at], y[:, op.at + n :]], dim=1)
        return y


class ExitOp:
    """Around the module that all final hidden states leave: replaces them."""

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = next(*args, **kwargs)
        y = output_of(output)
        return with_output(output, self.ladder.finish(y).to(y.dtype))


def _named(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by the names of the module's class."""
    kind: Any = type(module)
    return dict(zip(_names(kind), args, strict=False)) | kwargs


@lru_cache
def _names(kind: type[nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)[1:]
