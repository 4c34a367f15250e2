"""Towers and blocks: the places of one stack of transformer blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import prompt as front
from . import tokens as extra
from .attention import Attention
from .calling import output_of, with_output
from .chain import Chain, Handle, any_op, around, remove_all
from .edits import Edits, Mergeable, Unmergeable
from .ladder import ExitOp, Function, Ladder, RungOp
from .linear import LinearPlace
from .sublayer import AroundHidden, Sublayer, first_of_tuple
from .tensors import TensorPlace


class _OutputOp:
    """Applies functions to a module's output, in order."""

    def __init__(self) -> None:
        self.functions: list[Any] = []
        self.merged = False

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = next(*args, **kwargs)
        if self.merged:
            return output
        y = output_of(output)
        for function in self.functions:
            y = function(y)
        return with_output(output, y)


class Affine:
    """y -> scale * y + shift on the last dimension."""

    def __init__(self, scale: Tensor | None, shift: Tensor | None) -> None:
        self.scale, self.shift = scale, shift

    def __call__(self, y: Tensor) -> Tensor:
        y = y if self.scale is None else y * self.scale.to(y.dtype)
        return y if self.shift is None else y + self.shift.to(y.dtype)


class OpPlace(Mergeable):
    """A norm, patch embedding or layer scale: an op whose output a method may scale and shift.

    `carrier` is the module whose weight (and bias) take the affine in a merge, where it multiplies by weight + `offset`
    (Gemma's norms add one); `followers` are the linears that read the output, which take a shift where the carrier has
    no bias (RMSNorm); hence it merges behind them.
    """

    merge_rank = 2

    def __init__(
        self,
        edits: Edits,
        name: str,
        module: nn.Module,
        width: int,
        carrier: nn.Module | None = None,
        followers: tuple[LinearPlace, ...] = (),
        offset: float = 0.0,
    ) -> None:
        self.edits, self.name, self.module, self.width = edits, name, module, width
        self.carrier = module if carrier is None else carrier
        self.followers, self.offset = followers, offset
        self._op: _OutputOp | None = None

    @property
    def tensors(self) -> dict[str, TensorPlace]:
        """The parameters of the carrier ("weight", "bias" ...)."""
        prefix = self.name
        return {
            attribute: TensorPlace(self.edits, self.carrier, attribute, f"{prefix}.{attribute}")
            for attribute, parameter in self.carrier._parameters.items()
            if parameter is not None
        }

    def affine(self, scale: Tensor | None = None, shift: Tensor | None = None) -> Handle:
        """Scale and shift the output, both (width,)."""
        self.edits.can_merge(self)
        return self._add(Affine(scale, shift), unmergeable="")

    def after(self, f: Callable[[Tensor], Tensor]) -> Handle:
        """Replace the output y (B, L, width) by f(y)."""
        return self._add(f, unmergeable=f"a function after {self.name}")

    def _add(self, function: Any, unmergeable: str) -> Handle:
        if self._op is None:
            self._op = _OutputOp()
            around(self.module, self._op, inside=any_op)
        self._op.functions.append(function)
        return self.edits.add(Handle(partial(self._remove, self._op, function)), unmergeable)

    def _remove(self, op: _OutputOp, function: Any) -> None:
        op.functions[:] = [other for other in op.functions if other is not function]
        if not op.functions:
            chain = self.module.__dict__.get("forward")
            if isinstance(chain, Chain):
                chain.drop(op)
            self._op = None

    @torch.no_grad()
    def merge(self) -> Handle:
        """Fold the affines into the carrier's weight and bias, or into the linears that follow; all or nothing."""
        op = self._op
        if op is None or op.merged:
            return Handle(_nothing)
        scale, shift = _composed(op.functions)
        parameters = self.carrier._parameters
        weight = "gamma" if "gamma" in parameters else "weight"
        takes_bias = parameters.get("bias") is not None or isinstance(
            self.carrier, nn.LayerNorm | nn.Linear | nn.Conv2d
        )
        if scale is not None and parameters.get(weight) is None:
            raise Unmergeable(f"a scale after {self.name} has no weight to go to")
        if shift is not None and not takes_bias and not self.followers:
            raise Unmergeable(f"a shift after {self.name} has no bias to go to")
        steps: list[Handle] = []
        if scale is not None:
            steps.append(_change(self.carrier, weight, partial(_scale_rows, scale, self.offset)))
            if parameters.get("bias") is not None:
                steps.append(_change(self.carrier, "bias", partial(torch.mul, scale)))
        if shift is not None and takes_bias:
            steps.append(_change(self.carrier, "bias", partial(_shifted, shift)))
        elif shift is not None:
            for place in self.followers:
                moved = F.linear(shift.to(place.weight().dtype), place.weight())
                steps.append(_change(place.module, "bias", partial(_add_rows, moved, place)))
        op.merged = True
        steps.append(Handle(partial(setattr, op, "merged", False)))
        return Handle(partial(remove_all, steps))


def _nothing() -> None:
    """The undoing of a merge that changed nothing."""


def _composed(affines: list[Any]) -> tuple[Tensor | None, Tensor | None]:
    """One scale and one shift that do what the affines do one after the other."""
    scale: Tensor | None = None
    shift: Tensor | None = None
    for affine in affines:
        if not isinstance(affine, Affine):
            raise Unmergeable(f"{type(affine).__name__} is not a scale and a shift")
        if affine.scale is not None:
            scale = affine.scale if scale is None else scale * affine.scale
            shift = None if shift is None else shift * affine.scale
        if affine.shift is not None:
            shift = affine.shift if shift is None else shift + affine.shift
    return scale, shift


def _shifted(shift: Tensor, bias: Tensor | None) -> Tensor:
    return shift.clone() if bias is None else bias + shift


def _scale_rows(scale: Tensor, offset: float, weight: Tensor) -> Tensor:
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight + offset) * scale - offset if offset else weight * scale


def _add_rows(moved: Tensor, place: LinearPlace, bias: Tensor | None) -> Tensor:
    total = place.module._parameters["weight"].shape[1 if place.transposed else 0]  # type: ignore[union-attr]
    new = moved.new_zeros(total) if bias is None else bias.clone()
    rows: Any = slice(None) if place.rows is None else place.rows
    new[rows] += moved
    return new


def _change(module: nn.Module, name: str, function: Callable[[Any], Tensor]) -> Handle:
    """Set a parameter to function(old); the handle gives the very old object back."""
    old = module._parameters.get(name)
    dtype = next(parameter for parameter in module._parameters.values() if parameter is not None).dtype
    new = function(None if old is None else old.detach()).to(dtype)
    module._parameters[name] = nn.Parameter(new, requires_grad=False)
    return Handle(partial(module._parameters.__setitem__, name, old))


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


class Embedding:
    """A token embedding: V rows of `width`, which the module multiplies by `scale` (Gemma)."""

    def __init__(self, edits: Edits, name: str, module: nn.Embedding) -> None:
        self.edits, self.name, self.module = edits, name, module
        self.vocabulary, self.width = int(module.num_embeddings), int(module.embedding_dim)
        self.scale = 1.0

    @property
    def weight(self) -> TensorPlace:
        """The table (V, width)."""
        return TensorPlace(self.edits, self.module, "weight", f"{self.name}.weight")

    def rows(self, n: int) -> nn.Parameter:
        """`n` new rows, for the ids V .. V + n - 1, as a parameter (n, width) that the method must own."""
        weight = self.module.weight
        rows = nn.Parameter(torch.zeros(n, self.width, dtype=weight.dtype, device=weight.device))
        self._around(_NewRows(rows, self.vocabulary, self.scale), "new embedding rows")
        return rows

    def delta(self, f: Callable[[Tensor], Tensor]) -> Handle:
        """Add f(ids) to the embeddings, (B, L) -> (B, L, width)."""
        return self._around(_EmbeddingDelta(f), "an embedding delta")

    def overwrite(self, slots: slice, f: Callable[[Tensor], Tensor]) -> Handle:
        """Replace the embeddings at the positions `slots` by f(embeddings), (B, L, width) -> (B or 1, n, width)."""
        return self._around(_Overwrite(slots, f), "overwritten embeddings")

    def _around(self, op: Any, what: str) -> Handle:
        return self.edits.add(around(self.module, op), unmergeable=what)


class _NewRows:
    def __init__(self, rows: nn.Parameter, vocabulary: int, scale: float) -> None:
        self.new, self.vocabulary, self.scale = rows, vocabulary, scale

    def __call__(self, next: Callable[..., Tensor], ids: Tensor) -> Tensor:
        is_new = ids >= self.vocabulary
        old = next(ids.masked_fill(is_new, 0))
        new = F.embedding((ids - self.vocabulary).clamp(min=0), self.new.to(old.dtype))
        new = new if self.scale == 1 else new * self.scale
        return torch.where(is_new.unsqueeze(-1), new, old)


class _EmbeddingDelta:
    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self.f = f

    def __call__(self, next: Callable[..., Tensor], ids: Tensor) -> Tensor:
        y = next(ids)
        return y + self.f(ids).to(y.dtype)


class _Overwrite:
    def __init__(self, slots: slice, f: Callable[[Tensor], Tensor]) -> None:
        self.slots, self.f = slots, f

    def __call__(self, next: Callable[..., Tensor], ids: Tensor) -> Tensor:
        y = next(ids)
        new = self.f(y).to(y.dtype).expand(y.shape[0], -1, -1)
        start, stop, _ = self.slots.indices(y.shape[1])
        return torch.cat([y[:, :start], new, y[:, stop:]], dim=1)


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
    grid: tuple[int, int, int] | None = None  # frames, rows, columns of patches
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
