"""Sublayers (an attention or a feed-forward with its residual connection) and the points around them.

A sublayer runs from the input of one module, `entry`, to the output of another, `exit` (they may be the same); its
output is what the residual connection adds. In a pre-norm block the residual stream is the input of the norm before
it, `stream`; in a post-norm block (BERT) it is the sublayer's own input, and `stream` is None.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from .calling import hidden_of, output_of, with_hidden, with_output
from .chain import Chain, Handle, any_op, around
from .edits import Edits

Function = Callable[[Tensor], Tensor]


class _Captured:
    """The values of one pass that a later module of the same sublayer needs.

    Copies and pickles without them: a checkpointed pass may stop between the two modules and leave them here.
    """

    def __init__(self) -> None:
        self.inputs: Tensor | None = None
        self.stream: Tensor | None = None
        self.length: int | None = None  # of the sequence, where the sublayer's modules see tokens as rows

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def run(self, function: Function, x: Tensor | None) -> Tensor:
        """function(x), which is shown (B, L, width) also where the modules pass (B * L, width)."""
        assert x is not None, "a sublayer's values are captured before they are used"
        if self.length is None:
            return function(x)
        return function(x.unflatten(0, (-1, self.length))).flatten(0, 1)


class _Length:
    def __init__(self, seen: _Captured) -> None:
        self.seen = seen

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.seen.length = hidden_of(args, kwargs).shape[1]
        return next(*args, **kwargs)


class _Entry:
    def __init__(self, seen: _Captured, post_norm: bool) -> None:
        self.seen, self.post_norm = seen, post_norm
        self.functions: list[Function] = []

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        x = hidden_of(args, kwargs)
        if self.post_norm:
            self.seen.stream = x
        if self.functions:
            for function in self.functions:
                x = self.seen.run(function, x)
            args, kwargs = with_hidden(args, kwargs, x)
        self.seen.inputs = x
        return next(*args, **kwargs)


class _Stream:
    def __init__(self, seen: _Captured) -> None:
        self.seen = seen

    def __call__(self, next: Callable[..., Any], x: Tensor) -> Any:
        self.seen.stream = x
        return next(x)


class _Exit:
    def __init__(self, seen: _Captured) -> None:
        self.seen = seen
        self.edits: list[tuple[str, Function]] = []

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = next(*args, **kwargs)
        y = output_of(output)
        seen = self.seen
        inputs, stream = _grouped_as(y, seen.inputs), _grouped_as(y, seen.stream)
        for verb, function in self.edits:
            if verb == "after":
                y = seen.run(function, y)
            elif verb == "beside":
                y = y + seen.run(function, inputs).to(y.dtype)
            elif verb == "beside_stream":
                y = y + seen.run(function, stream).to(y.dtype)
            else:
                y = y + seen.run(function, stream + y).to(y.dtype)  # type: ignore[operator]
        seen.inputs = seen.stream = None
        return with_output(output, y)


def _grouped_as(y: Tensor, x: Tensor | None) -> Tensor | None:
    """x with its tokens in the sequences of y: TimeSformer's temporal attention makes one of each patch's frames."""
    return x if x is None or x.shape == y.shape else x.reshape(y.shape)


class Sublayer:
    """The verbs of one sublayer. Functions map (B, L, width) to (B, L, width).

    Where the sublayer's own modules see tokens as rows (OPT's feed-forward), `rows_of` is the module whose hidden
    states have all three dimensions.
    """

    def __init__(
        self,
        edits: Edits,
        name: str,
        width: int,
        entry: nn.Module,
        exit: nn.Module,
        stream: nn.Module | None,
        outputs: int = 1,
        rows_of: nn.Module | None = None,
    ) -> None:
        self.record, self.name, self.width, self.outputs = edits, name, width, outputs
        self.entry_module, self.exit_module, self.stream_module, self.length_module = entry, exit, stream, rows_of
        self._entry: _Entry | None = None
        self._exit: _Exit | None = None
        self._stream: _Stream | None = None
        self._length: _Length | None = None

    def before(self, f: Function) -> Handle:
        """Replace the sublayer's input x (after the norm, in a pre-norm block) by f(x)."""
        self._install()
        assert self._entry is not None
        functions = self._entry.functions
        functions.append(f)
        return self._remember(partial(_remove, functions, f), "before")

    def after(self, f: Function) -> Handle:
        """Replace the sublayer's output y, before the residual sum, by f(y)."""
        return self._edit("after", f)

    def beside(self, f: Function, source: Literal["in", "residual"] = "in") -> Handle:
        """Add f(x) to the output, where x is the sublayer's input or the residual stream that reaches it."""
        return self._edit("beside" if source == "in" else "beside_stream", f)

    def residual(self, f: Function) -> Handle:
        """Change the residual sum h = stream + y into h + f(h), before any norm that follows."""
        return self._edit("residual", f)

    def around(self, op: Callable[..., Tensor]) -> Handle:
        """Wrap the sublayer in `op(next, x) -> y`. Only where one module is the whole sublayer."""
        if not self.is_one_module:
            raise ValueError(f"{self.name} spans several modules and cannot be wrapped as a whole")
        wrapped = AroundHidden(op, partial(first_of_tuple, self.outputs))
        handle = around(self.entry_module, wrapped)
        return self.record.add(handle, unmergeable=f"an op around {self.name}")

    @property
    def is_one_module(self) -> bool:
        """Whether `around` is possible."""
        return self.entry_module is self.exit_module

    # the ops are put in place together, so that entry is inside exit where they share a module

    def _install(self) -> None:
        if self._entry is not None:
            return
        seen = _Captured()
        self._entry, self._exit = _Entry(seen, post_norm=self.stream_module is None), _Exit(seen)
        around(self.entry_module, self._entry)
        around(self.exit_module, self._exit)
        if self.stream_module is not None:
            self._stream = _Stream(seen)
            around(self.stream_module, self._stream)
        if self.length_module is not None:
            self._length = _Length(seen)
            around(self.length_module, self._length, inside=any_op)  # extra tokens of the block count too

    def _edit(self, verb: str, f: Function) -> Handle:
        self._install()
        assert self._exit is not None
        entry = (verb, f)
        self._exit.edits.append(entry)
        return self._remember(partial(_remove, self._exit.edits, entry), verb)

    def _remember(self, undo: Callable[[], None], verb: str) -> Handle:
        return self.record.add(Handle(partial(self._undo, undo)), unmergeable=f"{verb} of {self.name}")

    def _undo(self, undo: Callable[[], None]) -> None:
        undo()
        self._uninstall()

    def _uninstall(self) -> None:
        if self._entry is None or self._exit is None or self._entry.functions or self._exit.edits:
            return
        places: list[tuple[nn.Module | None, Any]] = [
            (self.entry_module, self._entry),
            (self.exit_module, self._exit),
            (self.stream_module, self._stream),
            (self.length_module, self._length),
        ]
        for module, op in places:
            chain = None if module is None else module.__dict__.get("forward")
            if isinstance(chain, Chain) and op is not None:
                chain.drop(op)
        self._entry = self._exit = self._stream = self._length = None


class AroundHidden:
    """Presents a module's call as a function of the hidden states alone; `skipped` makes the return value when the op
    never called the module."""

    def __init__(self, op: Callable[..., Tensor], skipped: Callable[..., Any]) -> None:
        self.op, self.skipped = op, skipped

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        last: list[Any] = []

        def run(x: Tensor) -> Tensor:
            new_args, new_kwargs = with_hidden(args, kwargs, x)
            output = next(*new_args, **new_kwargs)
            last[:] = [output]
            return output_of(output)

        y = self.op(run, hidden_of(args, kwargs))
        return with_output(last[0], y) if last else self.skipped(y, args, kwargs)


def first_of_tuple(outputs: int, y: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a module that was skipped returns: the hidden states, and None for its other outputs."""
    return y if outputs == 1 else (y, *[None] * (outputs - 1))


def _remove(entries: list[Any], entry: Any) -> None:
    entries[:] = [other for other in entries if other is not entry]
