"""Places that are weight matrices, whole or as slices of a fused matrix.

All edits of one matrix live in one op, see `matrix_site`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .cast import in_own_dtype
from .chain import Handle
from .edits import Edits
from .matrix_edit import Edit
from .matrix_site import PLAIN, MatrixSite, Reading
from .tensors import Rows, TensorPlace


class LinearPlace(TensorPlace):
    """A linear map (B, ..., d_in) -> (B, ..., d_out): a module's matrix, or some of its output rows."""

    def __init__(
        self,
        edits: Edits,
        module: nn.Module,
        name: str,
        rows: Rows = None,
        transposed: bool = False,
        reading: Reading = PLAIN,
    ) -> None:
        super().__init__(edits, module, reading.weight, name, rows, reading.reader)
        self.transposed, self.reading = transposed, reading
        weight: Any = module._parameters[reading.weight]
        out_features, in_features = reversed(weight.shape) if transposed else weight.shape
        self.d_in = int(getattr(module, "in_features", in_features))
        if isinstance(rows, Tensor):
            self.d_out = len(rows)
        else:
            total = int(getattr(module, "out_features", out_features))
            self.d_out = total if rows is None else len(range(*rows.indices(total)))

    # reading ---------------------------------------------------------------------------------------------------

    def weight(self) -> Tensor:
        """(d_out, d_in), a view where the storage allows; restored where the base is quantised."""
        weight = self.whole()
        return weight if self.rows is None else weight[self.rows]

    value = weight

    def whole(self) -> Tensor:
        """The fused matrix that these rows are of, all its rows."""
        return MatrixSite(self.module, self.transposed, self.reading).weight()

    def part_of(self, whole: Tensor) -> Tensor:
        return super().part_of(whole.t() if self.transposed else whole)

    def bias(self) -> TensorPlace | None:
        """The bias of these rows, as a place of its own."""
        attribute = self.reading.bias
        if self.module._parameters.get(attribute) is None:
            return None
        name = self.name.removesuffix(self.reading.weight) + attribute
        return TensorPlace(self.edits, self.module, attribute, name, self.rows, self.reader)

    def linear(self, x: Tensor) -> Tensor:
        """This map, as it was pretrained, on other input."""
        bias = self.bias()
        return F.linear(x, self.weight(), None if bias is None else bias.value())

    # verbs -----------------------------------------------------------------------------------------------------

    def delta(self, f: Callable[[Tensor], Tensor]) -> Handle:
        """Add `f(x)`, (..., d_in) -> (..., d_out).

        With `f.weight_delta()` of (d_out, d_in) it can be merged; with `f.add_to(y, x)` the sum is computed in one go.
        """
        return self._edit(Edit("delta", self.rows, function=in_own_dtype(f)))

    def affine(self, scale: Tensor | None = None, shift: Tensor | None = None) -> Handle:
        """Scale and shift the output, both (d_out,)."""
        return self._edit(Edit("affine", self.rows, scale=scale, shift=shift))

    def scale_in(self, scale: Tensor) -> Handle:
        """Scale the input, (d_in,)."""
        return self._edit(Edit("scale_in", self.rows, scale=scale))

    def map_in(self, f: Callable[[Tensor], Tensor]) -> Handle:
        """Use `f(x)` as input, both (..., d_in).

        With `f.on_weight(W)`, the matrix that does the same to x, it can be merged; a slice of a fused matrix needs it.
        """
        return self._edit(Edit("map_in", self.rows, function=in_own_dtype(f)))

    def revise(self, f: Callable[[Tensor, Tensor], Tensor]) -> Handle:
        """Replace the output y by `f(y, x)`, (..., d_out) and (..., d_in) -> (..., d_out).

        With `f.merged(W, b)`, which gives the new matrix and bias, it can be merged.
        """
        return self._edit(Edit("revise", self.rows, function=f))

    def reparam(self, function: Callable[[Tensor], Tensor]) -> Handle:
        """Use `function(W)` in place of W, both (d_out, d_in)."""
        return self._edit(Edit("reparam", self.rows, function=function))

    def merge(self) -> Handle:
        """Fold all edits of the whole matrix into its weights."""
        return self._site().merge()

    def _site(self) -> MatrixSite:
        site = self.module.__dict__.get("_atlas_site")
        if site is None:
            site = MatrixSite(self.module, self.transposed, self.reading)
            site.install()
        return site

    def _edit(self, edit: Edit) -> Handle:
        site = self._site()
        site.add(edit)
        self.edits.can_merge(site)
        return self.edits.add(Handle(partial(site.drop, edit)))
