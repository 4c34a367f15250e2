"""One edit of a matrix: what it does to input and output, and to the weight that does the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...kernels.scale_shift.apply import scale_shift
from .edits import Unmergeable
from .tensors import Rows, rows_index


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

    def on_output(self, y: Tensor, x: Tensor) -> Tensor:
        """What an edit that is not inner makes of the output y (..., all rows), given its input x (..., d_in)."""
        if self.verb == "delta":
            return _add(y, self.rows, self.function, x)
        if self.verb == "affine":
            return _affine(y, self)
        return _revise(y, self, x)

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (d_out, d_in) and bias (d_out,) of these rows with the edit in them, or `Unmergeable`."""
        if self.verb == "reparam":
            return self.function(weight), bias
        if self.is_inner:
            return self.on_weight(weight), bias
        if self.verb == "revise":
            return _folded_revision(self.function, weight, bias)
        if self.verb == "affine":
            scale = 1.0 if self.scale is None else self.scale
            weight = weight if self.scale is None else self.scale[:, None] * weight
            return weight, bias * scale + (0.0 if self.shift is None else self.shift)
        if not hasattr(self.function, "weight_delta"):
            raise Unmergeable(f"{type(self.function).__name__} is not a linear map")
        return weight + self.function.weight_delta().to(weight.dtype), bias


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


def _folded_revision(function: Any, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    if not hasattr(function, "merged"):
        raise Unmergeable(f"{type(function).__name__} is not a linear map")
    new_weight, new_bias = function.merged(weight, bias)
    return new_weight.to(weight.dtype), new_bias.to(bias.dtype)


def _given(scale: Tensor | None) -> Tensor:
    assert scale is not None, "scale_in always has a scale"
    return scale
