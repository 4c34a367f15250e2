"""Places that are single tensors: any parameter of the backbone can be read, trained or reparameterised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .chain import Chain, Handle, around
from .edits import Edits

Rows = slice | Tensor | None  # rows of dimension 0; an index tensor where they are interleaved


class Shadow:
    """Op around the module that reads a parameter: during the call, attribute `name` of its owner is a function of it.

    The value shadows the parameter in the instance's `__dict__`, so parameter names, types and pickles stay as they
    are; `torch.func.functional_call` at the root would not survive checkpointing.
    """

    merge_rank = 0

    def __init__(self, module: nn.Module, name: str, reader: nn.Module) -> None:
        self.module, self.name, self.reader = module, name, reader
        self.functions: list[Callable[[Tensor], Tensor]] = []
        self.merged = False

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.merged:
            return next(*args, **kwargs)
        self.module.__dict__[self.name] = self._value()
        try:
            return next(*args, **kwargs)
        finally:
            self.module.__dict__.pop(self.name, None)

    def _value(self) -> Tensor:
        value: Tensor = self.module._parameters[self.name]  # type: ignore[assignment]
        for function in self.functions:
            value = function(value)
        return value

    @torch.no_grad()
    def merge(self) -> Handle:
        """Put the value into the parameter's place, as a new one: a tied parameter stays as it is elsewhere."""
        if self.merged or not self.functions:
            return Handle(_nothing)
        parameter = self.module._parameters[self.name]
        self.module._parameters[self.name] = nn.Parameter(self._value().clone(), requires_grad=False)
        self.merged = True
        return Handle(partial(self._unmerge, parameter))

    def _unmerge(self, parameter: nn.Parameter | None) -> None:
        self.module._parameters[self.name] = parameter
        self.merged = False


def _nothing() -> None:
    """The undoing of a merge that changed nothing."""


class RowsOf:
    """`function` applied to some rows of a tensor, the others left as they are."""

    def __init__(self, rows: Rows, function: Callable[[Tensor], Tensor]) -> None:
        self.rows, self.function = rows, function

    def __call__(self, value: Tensor) -> Tensor:
        if self.rows is None:
            return self.function(value).to(value.dtype)
        index = rows_index(self.rows, value)
        return value.index_copy(0, index, self.function(value[self.rows]).to(value.dtype))


def rows_index(rows: slice | Tensor, value: Tensor, dim: int = 0) -> Tensor:
    """`rows` as an index tensor into dimension `dim` of `value`, on its device."""
    if isinstance(rows, Tensor):
        return rows.to(value.device)
    return torch.arange(*rows.indices(value.shape[dim]), device=value.device)


class TensorPlace:
    """One parameter, or some rows of it. `name` is its name in the backbone (with the rows' place where sliced).

    `reader` is the module in whose call the parameter is read, the owner itself unless another one takes the parameter
    without calling the owner.
    """

    def __init__(
        self,
        edits: Edits,
        module: nn.Module,
        attribute: str,
        name: str,
        rows: Rows = None,
        reader: nn.Module | None = None,
    ) -> None:
        self.edits, self.module, self.attribute, self.name, self.rows = edits, module, attribute, name, rows
        self.reader = module if reader is None else reader

    @property
    def parameter(self) -> nn.Parameter:
        """The whole parameter that holds this place."""
        return self.module._parameters[self.attribute]  # type: ignore[return-value]

    def value(self) -> Tensor:
        """The tensor itself (of the rows, where sliced)."""
        return self.parameter if self.rows is None else self.parameter[self.rows]

    @property
    def shape(self) -> torch.Size:
        """Shape of `value()`."""
        return self.value().shape

    def part_of(self, whole: Tensor) -> Tensor:
        """This place's part of a tensor that is shaped like the parameter (its gradient), as `value` has it."""
        return whole if self.rows is None else whole[self.rows]

    def train(self) -> Handle:
        """Let the optimiser change this parameter in place; `detach` gives its old value back, bit for bit,
        where the record keeps originals."""
        if self.rows is not None:
            raise ValueError(f"{self.name} is a slice: use train_rows, and keep the parameter it returns")
        parameter, edits, name = self.parameter, self.edits, self.name
        if edits.keeps_originals:
            edits.originals.setdefault(name, parameter.detach().clone())
        edits.trained[name] = parameter
        parameter.requires_grad_(True)
        return edits.add(Handle(partial(_untrain, edits, name, parameter)))

    def train_rows(self) -> nn.Parameter:
        """A new parameter that stands in for these rows; the method must own it. Backbone memory stays frozen."""
        rows = nn.Parameter(self.value().detach().clone())
        self.reparam(_Instead(rows))
        return rows

    def reparam(self, function: Callable[[Tensor], Tensor]) -> Handle:
        """Use `function(value)` in place of the value, whenever it is read."""
        shadow = shadow_of(self.module, self.attribute, self.reader)
        entry = RowsOf(self.rows, function)
        if shadow.merged:
            raise RuntimeError(f"{self.name} is merged: remove the merge's handle before adding to it")
        shadow.functions.append(entry)
        self.edits.can_merge(shadow)
        return self.edits.add(Handle(partial(_unshadow, shadow, entry)))


def _untrain(edits: Edits, name: str, parameter: nn.Parameter) -> None:
    edits.trained.pop(name, None)
    parameter.requires_grad_(False)
    parameter.grad = None
    original = edits.originals.pop(name, None)
    if original is not None:
        with torch.no_grad():
            parameter.copy_(original)


class _Instead:
    """Another value in place of the one there was."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self, _: Tensor) -> Tensor:
        return self.value


def shadow_of(module: nn.Module, attribute: str, reader: nn.Module) -> Shadow:
    """The module's shadow op for `attribute`, put in place on first use."""
    shadows = module.__dict__.setdefault("_atlas_shadows", {})
    if attribute not in shadows:
        shadow = Shadow(module, attribute, reader)
        shadows[attribute] = shadow
        around(reader, shadow)
    return shadows[attribute]


def _unshadow(shadow: Shadow, entry: RowsOf) -> None:
    if entry in shadow.functions:
        shadow.functions.remove(entry)
    if not shadow.functions:
        chain = shadow.reader.__dict__.get("forward")
        if isinstance(chain, Chain):
            chain.drop(shadow)
        shadows = shadow.module.__dict__.get("_atlas_shadows", {})
        shadows.pop(shadow.name, None)
        if not shadows:
            shadow.module.__dict__.pop("_atlas_shadows", None)
