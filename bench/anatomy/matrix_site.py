"""The op around one weight matrix, whole or fused.

It holds all edits of the matrix, because stacked wrappers would lose the order between the slices. For edits in the
order of registration it computes F0(x) = W'x + b (W' after all reparameterisations) and

    delta(f):      F(x) -> F(x) + f(x)            affine(s, t):  F(x) -> s * F(x) + t
    scale_in(v):   F(x) -> F(v * x)               map_in(f):     F(x) -> F(f(x))
    revise(f):     F(x) -> f(F(x), x)             each on its own rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .chain import Handle, Op, any_op, around, replace_forward
from .matrix_edit import Edit
from .tensors import Rows, RowsOf, rows_index


@dataclass(frozen=True)
class Reading:
    """How a matrix is read that is not simply the weight of a module called for it.

    `weight` and `bias` are its names in its module. Where no call of that module multiplies by it and nothing else,
    `reader` is the module whose forward reads it, and `forward` takes the place of that forward while the matrix has
    edits: it must compute the same, and multiply through the matrix's `MatrixSite`.
    """

    weight: str = "weight"
    bias: str = "bias"
    reader: nn.Module | None = None
    forward: Op | None = None


PLAIN = Reading()


class MatrixSite:
    """The op around one linear module. `transposed` where the module stores (in, out), as GPT-2's Conv1D does."""

    merge_rank = 1

    def __init__(self, module: nn.Module, transposed: bool, reading: Reading = PLAIN) -> None:
        self.module, self.transposed, self.reading = module, transposed, reading
        self.handle: Handle | None = None
        self.edits: list[Edit] = []
        self.merged = False
        self._sort()

    def _sort(self) -> None:
        self.reparams = [edit for edit in self.edits if edit.verb == "reparam"]
        self.others = [edit for edit in self.edits if edit.verb != "reparam"]
        self.changes_input = any(edit.is_inner for edit in self.others)

    def install(self) -> None:
        """Take part in the forward pass; a matrix without edits does not."""
        self.module.__dict__["_atlas_site"] = self
        reader, forward = self.reading.reader, self.reading.forward
        if reader is None or forward is None:
            self.handle = around(self.module, self, inside=any_op)
        else:
            self.handle = replace_forward(reader, forward)

    def add(self, edit: Edit) -> None:
        """Register an edit, outside those already there; a merged matrix takes none."""
        if self.merged:
            raise RuntimeError("the matrix is merged: remove the merge's handle before adding to it")
        self.edits.append(edit)
        self._sort()

    def drop(self, edit: Edit) -> None:
        """Take an edit out."""
        self.edits = [other for other in self.edits if other is not edit]
        self._sort()
        if not self.edits and self.handle is not None:
            self.handle.remove()
            self.module.__dict__.pop("_atlas_site", None)

    # forward ---------------------------------------------------------------------------------------------------

    def __call__(self, next: Callable[..., Tensor], x: Tensor) -> Tensor:
        if self.merged:
            return next(x)
        inputs, base_input, columns = self._inputs(x) if self.changes_input else (None, x, [])
        y = self._base(next, base_input, columns)
        for i, edit in enumerate(self.others):
            if not edit.is_inner:
                y = edit.on_output(y, x if inputs is None else inputs[i])
        return y

    def _base(self, next: Callable[..., Tensor], x: Tensor, columns: list[Edit]) -> Tensor:
        if not self.reparams and not columns:
            return next(x)
        weight = self.weight()
        for edit in self.reparams:
            weight = RowsOf(edit.rows, edit.function)(weight)
        for edit in reversed(columns):  # the last one registered sees the input first
            weight = RowsOf(edit.rows, edit.on_weight)(weight)
        self.module.__dict__[self.reading.weight] = weight.t() if self.transposed else weight
        try:
            return next(x)
        finally:
            del self.module.__dict__[self.reading.weight]

    def _inputs(self, x: Tensor) -> tuple[list[Tensor], Tensor, list[Edit]]:
        """What each edit sees as its input, what the matrix sees, and edits of slices that must go into its columns."""
        inputs: list[Tensor] = [x] * len(self.others)
        whole = x
        columns: list[Edit] = []
        for i in range(len(self.others) - 1, -1, -1):
            edit = self.others[i]
            if edit.is_inner and edit.rows is None:
                whole = edit.on_input(whole)
            elif edit.is_inner:
                columns.append(edit)
            else:
                inputs[i] = whole
                for later in columns:
                    if _same_rows(later.rows, edit.rows):
                        inputs[i] = later.on_input(inputs[i])
        return inputs, whole, columns

    # weights ---------------------------------------------------------------------------------------------------

    def weight(self) -> Tensor:
        """The frozen matrix as (out, in), restored where it is stored quantised."""
        weight: Any = self.module._parameters[self.reading.weight]
        if hasattr(weight, "dequantize_weight"):
            weight = weight.dequantize_weight()
        return weight.t() if self.transposed else weight

    @torch.no_grad()
    def merge(self) -> Handle:
        """Fold all edits into weight and bias. A copy is kept; a bias is created where a shift needs one."""
        if self.merged:
            return Handle(_nothing)
        parameters, names = self.module._parameters, self.reading
        weight, bias = self.weight().clone(), parameters.get(names.bias)
        kept = (parameters[names.weight].detach().clone(), bias)  # type: ignore[union-attr]
        new_bias = weight.new_zeros(weight.shape[0]) if bias is None else bias.clone()
        for edit in self.reparams + self.others:
            rows = torch.arange(weight.shape[0]) if edit.rows is None else rows_index(edit.rows, weight)
            weight[rows], new_bias[rows] = edit.folded(weight[rows], new_bias[rows])
        parameters[names.weight].data.copy_(weight.t() if self.transposed else weight)  # type: ignore[union-attr]
        if bias is not None or bool(new_bias.any()):
            parameters[names.bias] = nn.Parameter(new_bias, requires_grad=False)
        self.merged = True
        return Handle(partial(self._unmerge, *kept))

    def _unmerge(self, weight: Tensor, bias: nn.Parameter | None) -> None:
        self.module._parameters[self.reading.weight].data.copy_(weight)  # type: ignore[union-attr]
        self.module._parameters[self.reading.bias] = bias
        self.merged = False


def _nothing() -> None:
    """The undoing of a merge that was already done by another."""


def _same_rows(a: Rows, b: Rows) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or torch.equal(a, b)
    return type(a) is type(b) and a == b
