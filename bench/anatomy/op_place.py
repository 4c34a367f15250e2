"""Places that are modules whose output a method may scale and shift: norms, patch embeddings, layer scales."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .calling import output_of, with_output
from .chain import Chain, Handle, any_op, around, remove_all
from .edits import Edits, Mergeable, Unmergeable
from .linear import LinearPlace
from .tensors import TensorPlace


class _OutputOp:
    """Applies functions to a module's output, in order."""

    def __init__(self) -> None:
        self.functions: list[Any] = []
        self.merged = False

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = next(*args, **kwargs)
        if self.merged:
            return output
        y = output_of(output)
        for function in self.functions:
            y = function(y)
        return with_output(output, y)


class Affine:
    """y -> scale * y + shift on the last dimension."""

    def __init__(self, scale: Tensor | None, shift: Tensor | None) -> None:
        self.scale, self.shift = scale, shift

    def __call__(self, y: Tensor) -> Tensor:
        y = y if self.scale is None else y * self.scale.to(y.dtype)
        return y if self.shift is None else y + self.shift.to(y.dtype)


class OpPlace(Mergeable):
    """A norm, patch embedding or layer scale: an op whose output a method may scale and shift.

    `carrier` is the module whose weight (and bias) take the affine in a merge, where it multiplies by weight + `offset`
    (Gemma's norms add one); `followers` are the linears that read the output, which take a shift where the carrier has
    no bias (RMSNorm); hence it merges behind them.
    """

    merge_rank = 2

    def __init__(
        self,
        edits: Edits,
        name: str,
        module: nn.Module,
        width: int,
        carrier: nn.Module | None = None,
        followers: tuple[LinearPlace, ...] = (),
        offset: float = 0.0,
    ) -> None:
        self.edits, self.name, self.module, self.width = edits, name, module, width
        self.carrier = module if carrier is None else carrier
        self.followers, self.offset = followers, offset
        self._op: _OutputOp | None = None

    @property
    def tensors(self) -> dict[str, TensorPlace]:
        """The parameters of the carrier ("weight", "bias" ...)."""
        prefix = self.name
        return {
            attribute: TensorPlace(self.edits, self.carrier, attribute, f"{prefix}.{attribute}")
            for attribute, parameter in self.carrier._parameters.items()
            if parameter is not None
        }

    def affine(self, scale: Tensor | None = None, shift: Tensor | None = None) -> Handle:
        """Scale and shift the output, both (width,)."""
        self.edits.can_merge(self)
        return self._add(Affine(scale, shift), unmergeable="")

    def after(self, f: Callable[[Tensor], Tensor]) -> Handle:
        """Replace the output y (B, L, width) by f(y)."""
        return self._add(f, unmergeable=f"a function after {self.name}")

    def _add(self, function: Any, unmergeable: str) -> Handle:
        if self._op is None:
            self._op = _OutputOp()
            around(self.module, self._op, inside=any_op)
        self._op.functions.append(function)
        return self.edits.add(Handle(partial(self._remove, self._op, function)), unmergeable)

    def _remove(self, op: _OutputOp, function: Any) -> None:
        op.functions[:] = [other for other in op.functions if other is not function]
        if not op.functions:
            chain = self.module.__dict__.get("forward")
            if isinstance(chain, Chain):
                chain.drop(op)
            self._op = None

    @torch.no_grad()
    def merge(self) -> Handle:
        """Fold the affines into the carrier's weight and bias, or into the linears that follow; all or nothing."""
        op = self._op
        if op is None or op.merged:
            return Handle(_nothing)
        scale, shift = _composed(op.functions)
        parameters = self.carrier._parameters
        weight = "gamma" if "gamma" in parameters else "weight"
        takes_bias = parameters.get("bias") is not None or isinstance(
            self.carrier, nn.LayerNorm | nn.Linear | nn.Conv2d
        )
        if scale is not None and parameters.get(weight) is None:
            raise Unmergeable(f"a scale after {self.name} has no weight to go to")
        if shift is not None and not takes_bias and not self.followers:
            raise Unmergeable(f"a shift after {self.name} has no bias to go to")
        steps: list[Handle] = []
        if scale is not None:
            steps.append(_change(self.carrier, weight, partial(_scale_rows, scale, self.offset)))
            if parameters.get("bias") is not None:
                steps.append(_change(self.carrier, "bias", partial(torch.mul, scale)))
        if shift is not None and takes_bias:
            steps.append(_change(self.carrier, "bias", partial(_shifted, shift)))
        elif shift is not None:
            for place in self.followers:
                moved = F.linear(shift.to(place.weight().dtype), place.weight())
                steps.append(_change(place.module, "bias", partial(_add_rows, moved, place)))
        op.merged = True
        steps.append(Handle(partial(setattr, op, "merged", False)))
        return Handle(partial(remove_all, steps))


def _nothing() -> None:
    """The undoing of a merge that changed nothing."""


def _composed(affines: list[Any]) -> tuple[Tensor | None, Tensor | None]:
    """One scale and one shift that do what the affines do one after the other."""
    scale: Tensor | None = None
    shift: Tensor | None = None
    for affine in affines:
        if not isinstance(affine, Affine):
            raise Unmergeable(f"{type(affine).__name__} is not a scale and a shift")
        if affine.scale is not None:
            scale = affine.scale if scale is None else scale * affine.scale
            shift = None if shift is None else shift * affine.scale
        if affine.shift is not None:
            shift = affine.shift if shift is None else shift + affine.shift
    return scale, shift


def _shifted(shift: Tensor, bias: Tensor | None) -> Tensor:
    return shift.clone() if bias is None else bias + shift


def _scale_rows(scale: Tensor, offset: float, weight: Tensor) -> Tensor:
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight + offset) * scale - offset if offset else weight * scale


def _add_rows(moved: Tensor, place: LinearPlace, bias: Tensor | None) -> Tensor:
    total = place.module._parameters["weight"].shape[1 if place.transposed else 0]  # type: ignore[union-attr]
    new = moved.new_zeros(total) if bias is None else bias.clone()
    rows: Any = slice(None) if place.rows is None else place.rows
    new[rows] += moved
    return new


def _change(module: nn.Module, name: str, function: Callable[[Any], Tensor]) -> Handle:
    """Set a parameter to function(old); the handle gives the very old object back."""
    old = module._parameters.get(name)
    dtype = next(parameter for parameter in module._parameters.values() if parameter is not None).dtype
    new = function(None if old is None else old.detach()).to(dtype)
    module._parameters[name] = nn.Parameter(new, requires_grad=False)
    return Handle(partial(module._parameters.__setitem__, name, old))
