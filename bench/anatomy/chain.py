"""Ops around a module: the one mechanism by which methods change a forward pass.

A `Chain` sits in the instance's `forward` and calls its ops from the outside in. An op is an object
`op(next, *args, **kwargs)`; it may call `next` never, once or several times, with other arguments. Ops are objects and
not closures: they deep-copy with their parameters, pickle, and may skip or repeat what they wrap, none of which hooks
or wrapper modules do. The module's parameter names never change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

Op = Callable[..., Any]


class Handle:
    """Undoes one change. `remove` may be called in any order, and more than once."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    @property
    def is_active(self) -> bool:
        """Whether the change is still there."""
        return self._undo is not None

    def remove(self) -> None:
        """Undo the change; a second call does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()


def remove_all(handles: list[Handle]) -> None:
    """Undo several changes, newest first."""
    for handle in reversed(handles):
        handle.remove()


class Chain:
    """The ops around one module, innermost first."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.ops: list[Op] = []
        self.innermost: Op | None = None  # replaces the class's forward: called as innermost(module, *args, **kwargs)
        self.takers = 0  # how many want it replaced
        self.previous = module.__dict__.get("forward")  # somebody else's instance forward
        self._link()

    def _link(self) -> None:
        call = self.bare()
        for op in self.ops:
            call = partial(op, call)
        self.call = call

    def bare(self) -> Callable[..., Any]:
        """What the ops are around."""
        if self.innermost is not None:
            return partial(self.innermost, self.module)
        if self.previous is not None:
            return self.previous
        return partial(type(self.module).forward, self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "call"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._link()

    def add(self, op: Op, inside: Callable[[Op], bool] | None = None) -> None:
        """Put `op` outside the present ones, or inside the first (counted from within) for which `inside` is true."""
        found = (i for i, other in enumerate(self.ops) if inside is not None and inside(other))
        self.ops.insert(next(found, len(self.ops)), op)
        self._link()

    def drop(self, op: Op) -> None:
        """Take `op` out; the module gets its own forward back when nothing is left."""
        self.ops = [other for other in self.ops if other is not op]
        self._tidy()

    def take_over(self, innermost: Op) -> None:
        """Replace the innermost forward; whoever replaces one that is replaced already must bring the same."""
        self.innermost = innermost
        self.takers += 1
        self._tidy()

    def give_back(self) -> None:
        """Undo one `take_over`; the class's forward comes back with the last."""
        self.takers -= 1
        if not self.takers:
            self.innermost = None
        self._tidy()

    def _tidy(self) -> None:
        if self.ops or self.innermost is not None:
            self._link()
        elif self.module.__dict__.get("forward") is self:
            if self.previous is None:
                del self.module.__dict__["forward"]
            else:
                self.module.__dict__["forward"] = self.previous


def chain_of(module: nn.Module) -> Chain:
    """The module's chain, made on first use."""
    chain = module.__dict__.get("forward")
    if not isinstance(chain, Chain):
        chain = Chain(module)
        module.__dict__["forward"] = chain
    return chain


def bare(module: nn.Module) -> Callable[..., Any]:
    """The module's call without the ops around it; ops around the modules inside it act."""
    chain = module.__dict__.get("forward")
    return chain.bare() if isinstance(chain, Chain) else module


def around(module: nn.Module, op: Op, inside: Callable[[Op], bool] | None = None) -> Handle:
    """Wrap `module` in `op(next, *args, **kwargs)`, outside the ops already there (or see `Chain.add`)."""
    chain_of(module).add(op, inside)
    return Handle(partial(_drop, module, op))


def any_op(op: Op) -> bool:
    """As `inside`: an op that belongs to the module itself (its matrix, its output) goes inside all others."""
    return True


def replace_forward(module: nn.Module, forward: Op) -> Handle:
    """Use `forward(module, *args, **kwargs)` in place of the class's own, inside all ops.

    Several places of one module may ask for it, all with the same forward, which stays until the last handle is gone.
    """
    chain_of(module).take_over(forward)
    return Handle(partial(_give_back, module))


def _drop(module: nn.Module, op: Op) -> None:
    # looked up anew, because the module may have been deep-copied or restored since
    chain = module.__dict__.get("forward")
    if isinstance(chain, Chain):
        chain.drop(op)


def _give_back(module: nn.Module) -> None:
    chain = module.__dict__.get("forward")
    if isinstance(chain, Chain):
        chain.give_back()
