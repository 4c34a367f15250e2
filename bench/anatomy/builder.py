"""What the architecture files share: places made from modules, under the names that the model gives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .attention import Attention, Core, CorePlace
from .edits import Edits
from .embedding import Embedding
from .linear import LinearPlace
from .matrix_site import PLAIN, Reading
from .op_place import OpPlace
from .sublayer import Sublayer
from .tensors import Rows
from .tower import FeedForward


class Builder:
    """Makes the places of one model; all of them share one record of edits."""

    def __init__(self, model: nn.Module, edits: Edits) -> None:
        self.model, self.edits = model, edits
        self.paths: dict[nn.Module, str] = {module: path for path, module in model.named_modules()}

    def linear(self, module: Any, rows: Rows = None, transposed: bool = False, reading: Reading = PLAIN) -> LinearPlace:
        """A weight matrix, or `rows` of its output."""
        return LinearPlace(self.edits, module, f"{self.paths[module]}.{reading.weight}", rows, transposed, reading)

    def thirds(self, module: Any, transposed: bool = False) -> tuple[LinearPlace, LinearPlace, LinearPlace]:
        """Query, key and value of a matrix that holds them one after the other."""
        rows = module.weight.shape[1 if transposed else 0] // 3
        q, k, v = (self.linear(module, slice(i * rows, (i + 1) * rows), transposed) for i in range(3))
        return q, k, v

    def halves(self, module: Any) -> tuple[LinearPlace, LinearPlace]:
        """Two matrices that one holds one after the other: those of a gated feed-forward."""
        rows = module.weight.shape[0] // 2
        return self.linear(module, slice(0, rows)), self.linear(module, slice(rows, 2 * rows))

    def interleaved(self, module: Any, heads: int) -> tuple[LinearPlace, LinearPlace, LinearPlace]:
        """Query, key and value of a matrix that holds those of the first head, then those of the second, and so on."""
        rows = torch.arange(module.weight.shape[0]).view(heads, 3, -1)
        q, k, v = (self.linear(module, rows[:, i].reshape(-1)) for i in range(3))
        return q, k, v

    def op(
        self,
        module: Any,
        width: int,
        carrier: Any = None,
        followers: tuple[LinearPlace, ...] = (),
        offset: float = 0.0,
    ) -> OpPlace:
        """A norm, patch embedding or layer scale."""
        path = self.paths[module if carrier is None else carrier]
        return OpPlace(self.edits, path, module, width, carrier, followers, offset)

    def sublayer(
        self, name: str, width: int, entry: Any, exit: Any, stream: Any, outputs: int = 1, rows_of: Any = None
    ) -> Sublayer:
        """A sublayer, see `Sublayer`."""
        return Sublayer(self.edits, name, width, entry, exit, stream, outputs, rows_of)

    def core(self, core: Core | None) -> CorePlace | None:
        """An attention core, or None where the class is unknown."""
        return None if core is None else CorePlace(self.edits, core)

    def embedding(self, module: nn.Embedding) -> Embedding:
        """A token embedding."""
        return Embedding(self.edits, self.paths[module], module)

    def attention(self, name: str, projections: tuple[LinearPlace, ...], core: Core | None, **facts: Any) -> Attention:
        """An attention from its q, k, v, o; `facts` are the remaining fields."""
        q, k, v, o = projections
        return Attention(name=name, q=q, k=k, v=v, o=o, core=self.core(core), **facts)

    def feedforward(
        self, name: str, up: LinearPlace, down: LinearPlace, sublayer: Sublayer, gate: LinearPlace | None = None
    ) -> FeedForward:
        """A feed-forward from its matrices."""
        return FeedForward(name=name, up=up, down=down, gate=gate, sublayer=sublayer)
