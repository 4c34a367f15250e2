"""Towers and blocks: the places of one stack of transformer blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from . import prompt as front
from . import tokens as extra
from .attention import Attention
from .calling import output_of
from .chain import Handle, around, remove_all
from .edits import Edits
from .embedding import Embedding
from .frames import FrameLayout
from .ladder import ExitOp, Function, Ladder, RungOp
from .linear import LinearPlace
from .op_place import OpPlace
from .sublayer import AroundHidden, Sublayer, first_of_tuple


@dataclass
class FeedForward:
    """The feed-forward of a block; `gate` where it is gated (SwiGLU, GEGLU)."""

    name: str
    up: LinearPlace
    down: LinearPlace
    gate: LinearPlace | None
    sublayer: Sublayer

    @property
    def linears(self) -> dict[str, LinearPlace]:
        """The matrices by their short names."""
        gate = {} if self.gate is None else {"gate": self.gate}
        return {**gate, "up": self.up, "down": self.down}


@dataclass
class Block:
    """One transformer block."""

    edits: Edits
    name: str
    index: int
    module: nn.Module
    width: int
    attentions: list[Attention]
    feedforward: FeedForward
    norms: list[OpPlace]
    scales: list[OpPlace] = field(default_factory=list)  # layer scales
    skipped: Callable[..., Any] = field(default_factory=lambda: partial(first_of_tuple, 1))

    @property
    def attention(self) -> Attention:
        """The self-attention."""
        return self.attentions[0]

    @property
    def sublayers(self) -> list[Sublayer]:
        """Attention sublayers, then the feed-forward."""
        return [*(attention.sublayer for attention in self.attentions), self.feedforward.sublayer]

    def linears(self) -> Iterator[tuple[str, LinearPlace]]:
        """(short name, place) of every matrix; cross-attention has the same short names as self-attention."""
        for attention in self.attentions:
            yield from attention.linears.items()
        yield from self.feedforward.linears.items()

    def around(self, op: Callable[..., Tensor]) -> Handle:
        """Wrap the block in `op(next, x) -> y`, all (B, L, width); `next` may be skipped."""
        handle = around(self.module, AroundHidden(op, self.skipped))
        return self.edits.add(handle, unmergeable=f"an op around {self.name}")

    def tap(self, f: Callable[[Tensor], None]) -> Handle:
        """Show the block's output to f, which must not change it."""
        return self.edits.add(around(self.module, _Tap(f)))


class _Tap:
    def __init__(self, f: Callable[[Tensor], None]) -> None:
        self.f = f

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = next(*args, **kwargs)
        self.f(output_of(output))
        return output


@dataclass
class Tower:
    """One stack of blocks with its input and output."""

    edits: Edits
    name: str  # vision, text, encoder, decoder; in a UNet, where the stack stands
    module: nn.Module  # the stack itself; what enters it must go through its own call
    width: int
    blocks: list[Block]
    tokens: extra.Tokens
    output: OpPlace | None  # the final norm
    embedding: Embedding | None = None
    patch_embedding: OpPlace | None = None
    other_ops: list[OpPlace] = field(default_factory=list)  # norms before the blocks
    grid: tuple[int, int, int] | None = None  # of the patches in one sequence: frames, rows, columns
    frames: FrameLayout | None = None  # where the frames of clips are; None where it sees no clips
    special: int = 0  # tokens before the patches
    takes_prompt: bool = False
    is_causal: bool = False
    readers: dict[nn.Module, nn.Module] = field(default_factory=dict)  # owners that are never called: who reads them
    exit: nn.Module | None = None  # returns the last hidden states of all tokens; the final norm, if not given

    def __post_init__(self) -> None:
        if self.exit is None and self.output is not None:
            self.exit = self.output.module

    def rename(self, name: str) -> None:
        """Give the tower and all its places another name: places of one model must not share names."""
        for block in self.blocks:
            parts: list[Any] = [block, *block.attentions, block.feedforward, *block.sublayers]
            for part in parts:
                part.name = name + part.name.removeprefix(self.name)
        self.name = name

    def prompt(self, source: extra.Source, n: int, text: Callable[[Tensor], Tensor] | None = None) -> Handle:
        """`n` virtual tokens before the input text, which `text` may change, see `prompt.prompt`."""
        if not self.takes_prompt:
            raise ValueError(f"the {self.name} tower takes no prompt")
        scale = 1.0 if self.embedding is None else self.embedding.scale
        return front.prompt(self.edits, self.module, source, n, text, scale)

    def ladder(self, f: Function) -> Handle:
        """Run the blocks without gradient, and replace the last hidden states y (B, L, width) by f(y, pass).

        The pass holds what entered the blocks and what left each of them. Raises ValueError where no module returns
        the last hidden states, and in a call that continues from a key/value cache.
        """
        if self.exit is None:
            raise ValueError(f"no module returns the last hidden states of the {self.name} tower")
        ladder = Ladder(f)
        rungs = [RungOp(ladder, block.module, is_first=block is self.blocks[0]) for block in self.blocks]
        handles = [around(block.module, op) for block, op in zip(self.blocks, rungs, strict=True)]
        handles.append(around(self.exit, ExitOp(ladder)))
        return self.edits.add(Handle(partial(remove_all, handles)), unmergeable="a ladder")

    def shift_positions(self, n: int) -> Handle | None:
        """Number positions from `n` on; None where the stack has no explicit positions."""
        if not front.bind_positions(self.module):
            return None
        return front.shift_positions(self.edits, self.module, n)

    @property
    def norms(self) -> list[OpPlace]:
        """Norms of the blocks, then the final one."""
        norms = [norm for block in self.blocks for norm in block.norms]
        return norms if self.output is None else [*norms, self.output]
