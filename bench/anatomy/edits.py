"""The record of everything that methods have done to one anatomy, so that all of it can be undone or merged."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from .chain import Handle


class Mergeable(Protocol):
    """Something whose edits can be folded into weights."""

    def merge(self) -> Handle: ...


class Unmergeable(RuntimeError):
    """An edit that no change of weights can express."""


class Edits:
    """Handles in the order they were made, and the backbone tensors that were declared trainable."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.trained: dict[str, nn.Parameter] = {}
        self.originals: dict[str, Tensor] = {}
        self.keeps_originals = True  # a measured run turns this off: the copies are no part of a method's memory
        self.mergeable: list[Mergeable] = []
        self.unmergeable: list[str] = []

    def add(self, handle: Handle, unmergeable: str = "") -> Handle:
        """Remember `handle`; `unmergeable` names the verb where its effect cannot become a weight."""
        self.handles.append(handle)
        if unmergeable:
            self.unmergeable.append(unmergeable)
        return handle

    def can_merge(self, site: Mergeable) -> None:
        """Remember a site whose edits `merge` folds."""
        if site not in self.mergeable:
            self.mergeable.append(site)

    def merge(self) -> Handle:
        """Fold every edit into the weights, or raise `Unmergeable` and change nothing."""
        if self.unmergeable:
            raise Unmergeable(f"{self.unmergeable[0]} cannot be merged into weights")
        handles: list[Handle] = []
        try:
            for site in self.mergeable:
                handles.append(site.merge())
        except Unmergeable:
            for handle in reversed(handles):
                handle.remove()
            raise
        return self.add(Handle(lambda: [handle.remove() for handle in reversed(handles)] and None))

    def undo(self) -> None:
        """Remove every handle, newest first, and forget all."""
        for handle in reversed(self.handles):
            handle.remove()
        self.handles.clear()
        self.mergeable.clear()
        self.unmergeable.clear()
