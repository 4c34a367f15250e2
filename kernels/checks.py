"""Errors for wrong input, in one line that names the op and what is wrong with which tensor."""

from __future__ import annotations

from torch import Tensor


def check_floating(op: str, **tensors: Tensor | None) -> None:
    """TypeError unless all are floating-point tensors, ValueError unless they are on one device; None may be."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first_name, first = next(iter(given.items()))
    for name, tensor in given.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{op}: {name} has the dtype {tensor.dtype}, and must have a floating-point one")
        if tensor.device != first.device:
            raise ValueError(f"{op}: {name} is on {tensor.device}, but {first_name} on {first.device}")


def check_alike(op: str, **tensors: Tensor | None) -> None:
    """`check_floating`, and TypeError unless all have one dtype."""
    check_floating(op, **tensors)
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first_name, first = next(iter(given.items()))
    for name, tensor in given.items():
        if tensor.dtype != first.dtype:
            raise TypeError(f"{op}: {name} has the dtype {tensor.dtype}, but {first_name} {first.dtype}")


def check_shape(op: str, name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    """ValueError unless the tensor has this shape; None has any."""
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{op}: {name} has the shape {tuple(tensor.shape)}, and must have {tuple(shape)}")
