"""The record of everything that methods have done to one anatomy, so that all of it can be undone or merged."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from torch import Tensor, nn

from .chain import Chain, Handle, remove_all


class Mergeable(Protocol):
    """Something whose edits can be folded into weights. Sites of a lower rank merge first: what an op computes from a
    tensor is folded behind that tensor's own changes, and what others read is folded last.
    """

    merge_rank: int  # 0: single tensors, 1: matrices, 2: ops that linears follow

    def merge(self) -> Handle: ...


class Unmergeable(RuntimeError):
    """An edit that no change of weights can express."""


class Edits:
    """Handles in the order they were made, and the backbone tensors that were declared trainable. `changes` grows with
    every edit and every undoing of all.
    """

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.trained: dict[str, nn.Parameter] = {}
        self.originals: dict[str, Tensor] = {}
        self.keeps_originals = True  # a measured run turns this off: the copies are no part of a method's memory
        self.mergeable: list[Mergeable] = []
        self.unmergeable: list[tuple[Handle, str]] = []
        self.changes = 0

    def add(self, handle: Handle, unmergeable: str = "") -> Handle:
        """Remember `handle`; `unmergeable` names the verb where its effect cannot become a weight."""
        self.changes += 1
        self.handles.append(handle)
        if unmergeable:
            self.unmergeable.append((handle, unmergeable))
        return handle

    def touches(self, module: nn.Module) -> bool:
        """Whether what `module` computes may change from call to call: it holds an op, a core of ours, or a tensor that
        trains."""
        if any(parameter.requires_grad for parameter in module.parameters()):
            return True
        return any(map(_is_edited, module.modules()))

    def can_merge(self, site: Mergeable) -> None:
        """Remember a site whose edits `merge` folds."""
        if site not in self.mergeable:
            self.mergeable.append(site)

    def merge(self) -> Handle:
        """Fold every edit into the weights, or raise `Unmergeable` and change nothing."""
        for handle, verb in self.unmergeable:
            if handle.is_active:
                raise Unmergeable(f"{verb} cannot be merged into weights")
        handles: list[Handle] = []
        try:
            for site in sorted(self.mergeable, key=lambda site: site.merge_rank):
                handles.append(site.merge())
        except Unmergeable:
            remove_all(handles)
            raise
        return self.add(Handle(partial(remove_all, handles)))

    def undo(self) -> None:
        """Remove every handle, newest first, and forget all."""
        self.changes += 1
        remove_all(self.handles)
        self.handles.clear()
        self.mergeable.clear()
        self.unmergeable.clear()


def _is_edited(module: nn.Module) -> bool:
    own = module.__dict__
    return isinstance(own.get("forward"), Chain) or any(name.startswith("_atlas") for name in own)
