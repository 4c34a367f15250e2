"""The place of a token embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .chain import Chain, Handle, around
from .edits import Edits
from .tensors import TensorPlace


@dataclass(frozen=True)
class Concept:
    """What a new word is to mean: the ids of words that say what it is, and the id of a word that hardly occurs."""

    noun: tuple[int, ...]
    rare: int


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

    @property
    def added(self) -> int:
        """How many ids behind the vocabulary have rows."""
        return added_rows(self.module)

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

    def rewrite(self, f: Callable[[Tensor, Tensor], Tensor]) -> Handle:
        """Replace the embeddings y (B, L, width) of ids (B, L) by f(ids, y)."""
        return self._around(_Rewritten(f), "rewritten embeddings")

    def _around(self, op: Any, what: str) -> Handle:
        return self.edits.add(around(self.module, op), unmergeable=what)


def added_rows(module: nn.Module) -> int:
    """Rows that a token embedding has for ids behind its vocabulary."""
    chain = module.__dict__.get("forward")
    ops = chain.ops if isinstance(chain, Chain) else []
    return sum(len(op.new) for op in ops if isinstance(op, _NewRows))


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


class _Rewritten:
    def __init__(self, f: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.f = f

    def __call__(self, next: Callable[..., Tensor], ids: Tensor) -> Tensor:
        y = next(ids)
        return self.f(ids, y).to(y.dtype)


class _Overwrite:
    def __init__(self, slots: slice, f: Callable[[Tensor], Tensor]) -> None:
        self.slots, self.f = slots, f

    def __call__(self, next: Callable[..., Tensor], ids: Tensor) -> Tensor:
        y = next(ids)
        new = self.f(y).to(y.dtype).expand(y.shape[0], -1, -1)
        start, stop, _ = self.slots.indices(y.shape[1])
        return torch.cat([y[:, :start], new, y[:, stop:]], dim=1)
