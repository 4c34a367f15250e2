"""What methods call: x * gain + shift, by the kernel or in plain torch.

The op is imported when it is used and not before: registering it with torch loads torch's compiler.
"""

from __future__ import annotations

from torch import Tensor

from ..dispatch import prefers_kernel
from . import reference

NAME = "scale_shift"


def scale_shift(x: Tensor, gain: Tensor | None, shift: Tensor | None = None) -> Tensor:
    """x * gain + shift over the last dimension, in the dtype of x; x (..., width), gain and shift (width,) or None."""
    if not x.is_floating_point():  # the casts below would round the gain to whole numbers
        raise TypeError(f"{NAME}: x has the dtype {x.dtype}, and must have a floating-point one")
    gain = None if gain is None else gain.to(x.dtype)
    shift = None if shift is None else shift.to(x.dtype)
    if gain is None or not prefers_kernel(NAME, x.numel(), x, gain, shift):
        return reference.scale_shift(x, gain, shift)
    from .op import scale_shift_op

    result: Tensor = scale_shift_op(x, gain, shift)
    return result
