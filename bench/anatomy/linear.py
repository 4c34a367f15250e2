"""Places that are weight matrices, whole or as slices of a fused matrix.

All edits of one matrix live in one op, its `MatrixSite`, because stacked wrappers would lose the order between the
slices. A site computes, for edits in the order of registration, F0(x) = W'x + b (W' after all reparameterisations) and

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
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.scale_shift.apply import scale_shift
from .chain import Handle, Op, any_op, around, replace_forward
from .edits import Edits, Unmergeable
from .tensors import Rows, RowsOf, TensorPlace, rows_index


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


@dataclass(eq=False)
class Edit:
    """One verb on some rows of a matrix."""

    verb: str  # delta, affine, scale_in, map_in, revise, reparam
    rows: Rows
    function: Any = None  # delta, map_in, revise, reparam
    scale: Tensor | None = None  # affine, scale_in
    shift: Tensor | None = None  # affine

    @property
    def is_inner(self) -> bool:
        """Whether it changes the input of the edits before it."""
        return self.verb in ("scale_in", "map_in")

    def on_input(self, x: Tensor) -> Tensor:
        """What an inner edit makes of the input (..., d_in)."""
        if self.verb == "scale_in":
            return scale_shift(x, _given(self.scale))
        mapped: Tensor = self.function(x).to(x.dtype)
        return mapped

    def on_weight(self, weight: Tensor) -> Tensor:
        """The matrix (d_out, d_in) that does to x what `weight` does to the inner edit's output."""
        if self.verb == "scale_in":
            return weight * _given(self.scale)
        if not hasattr(self.function, "on_weight"):
            raise Unmergeable(f"{type(self.function).__name__} is not a linear map of the input")
        mapped: Tensor = self.function.on_weight(weight)
        return mapped


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
            if edit.verb == "delta":
                y = _add(y, edit.rows, edit.function, x if inputs is None else inputs[i])
            elif edit.verb == "affine":
                y = _affine(y, edit)
            elif edit.verb == "revise":
                y = _revise(y, edit, x if inputs is None else inputs[i])
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
            weight[rows], new_bias[rows] = _merge_rows(edit, weight[rows], new_bias[rows])
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


def _add(y: Tensor, rows: Rows, f: Any, x: Tensor) -> Tensor:
    if rows is None:
        return f.add_to(y, x) if hasattr(f, "add_to") else y + f(x).to(y.dtype)
    dy = f(x)
    if isinstance(rows, slice):
        y[..., rows] += dy.to(y.dtype)  # the matrix product is fresh, and nothing has saved it for backward
        return y
    return y.index_add(-1, rows.to(y.device), dy.to(y.dtype))


def _affine(y: Tensor, edit: Edit) -> Tensor:
    part = y if edit.rows is None else y[..., edit.rows]
    new = scale_shift(part, edit.scale, edit.shift)
    if edit.rows is None:
        return new
    return y.index_copy(-1, rows_index(edit.rows, y, dim=-1), new)


def _revise(y: Tensor, edit: Edit, x: Tensor) -> Tensor:
    if edit.rows is None:
        new: Tensor = edit.function(y, x)
        return new
    return y.index_copy(-1, rows_index(edit.rows, y, dim=-1), edit.function(y[..., edit.rows], x))


def _merge_revision(function: Any, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    if not hasattr(function, "merged"):
        raise Unmergeable(f"{type(function).__name__} is not a linear map")
    new_weight, new_bias = function.merged(weight, bias)
    return new_weight.to(weight.dtype), new_bias.to(bias.dtype)


def _given(scale: Tensor | None) -> Tensor:
    assert scale is not None, "scale_in always has a scale"
    return scale


def _merge_rows(edit: Edit, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    if edit.verb == "reparam":
        return edit.function(weight), bias
    if edit.is_inner:
        return edit.on_weight(weight), bias
    if edit.verb == "revise":
        return _merge_revision(edit.function, weight, bias)
    if edit.verb == "affine":
        scale = 1.0 if edit.scale is None else edit.scale
        weight = weight if edit.scale is None else edit.scale[:, None] * weight
        return weight, bias * scale + (0.0 if edit.shift is None else edit.shift)
    if not hasattr(edit.function, "weight_delta"):
        raise Unmergeable(f"{type(edit.function).__name__} is not a linear map")
    return weight + edit.function.weight_delta().to(weight.dtype), bias


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
        return self._edit(Edit("delta", self.rows, function=_cast(f)))

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
        return self._edit(Edit("map_in", self.rows, function=_cast(f)))

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


class Cast:
    """Runs a function of x in the dtype of its own parameters: a half-precision backbone may carry an fp32 adapter."""

    def __init__(self, f: nn.Module, parameter: nn.Parameter) -> None:
        self.f, self.parameter = f, parameter  # its dtype is read at every call: a method may be cast after attaching

    def __call__(self, x: Tensor) -> Tensor:
        dtype = self.parameter.dtype
        return self.f(x if x.dtype == dtype or torch.is_autocast_enabled(x.device.type) else x.to(dtype))

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y + f(x), by the delta's own fused form where it has one and all dtypes agree."""
        same = x.dtype == y.dtype == self.parameter.dtype and not torch.is_autocast_enabled(x.device.type)
        if same and hasattr(self.f, "add_to"):
            total: Tensor = self.f.add_to(y, x)  # type: ignore[operator]
            return total
        return y + self(x).to(y.dtype)

    def weight_delta(self) -> Tensor:
        if not hasattr(self.f, "weight_delta"):
            raise Unmergeable(f"{type(self.f).__name__} is not a linear map")
        delta: Tensor = self.f.weight_delta()  # type: ignore[operator]
        return delta

    def on_weight(self, weight: Tensor) -> Tensor:
        if not hasattr(self.f, "on_weight"):
            raise Unmergeable(f"{type(self.f).__name__} is not a linear map of the input")
        mapped: Tensor = self.f.on_weight(weight.to(self.parameter.dtype))  # type: ignore[operator]
        return mapped.to(weight.dtype)


def _cast(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    if not isinstance(f, nn.Module):
        return f
    parameter = next(f.parameters(), None)
    return f if parameter is None else Cast(f, parameter)
