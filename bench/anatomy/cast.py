"""The dtype that a method's function of hidden states is computed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .edits import Unmergeable


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


def in_own_dtype(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    if not isinstance(f, nn.Module):
        return f
    parameter = next(f.parameters(), None)
    return f if parameter is None else Cast(f, parameter)
