"""Updates that are sums of Kronecker products, applied without the matrix that they stand for: `kernels/kron_apply`.

Shapes, for t terms: A (t, p, q); B (t, r, s), or B_i = U_i V_i with U (t, r, k) and V (t, k, s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from ...kernels.kron_apply.apply import kron_apply
from ...kernels.kron_apply.reference import kronecker_matrix


def split(dimension: int, factor: int) -> tuple[int, int]:
    """(left, right) with left * right = dimension: `factor` where it divides, else the largest divisor up to it and to
    the square root.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = math.isqrt(dimension) if factor == -1 else min(factor, math.isqrt(dimension))
    left = next(n for n in range(max(limit, 1), 0, -1) if dimension % n == 0)
    return left, dimension // left


@dataclass(frozen=True)
class Borrowed:
    """A parameter that another module owns: a module that keeps it in this form neither counts nor ships it again."""

    parameter: nn.Parameter

    def value(self) -> Tensor:
        """The left factors (t, p, q)."""
        return self.parameter


@dataclass(frozen=True)
class BorrowedProduct:
    """Left factors A_i = L_i R_i of low rank, with L (t, p, k) and R (t, k, q) that another module owns."""

    left: nn.Parameter
    right: nn.Parameter

    def value(self) -> Tensor:
        """The left factors (t, p, q)."""
        return self.left @ self.right


class KroneckerSum(nn.Module):
    """x -> scale * (sum_i A_i (x) B_i) x, with B_i = U_i V_i where `v` is given (`b` is U then).

    A `Borrowed` A belongs to the method, which shares it between many of these.
    """

    def __init__(
        self,
        a: nn.Parameter | Borrowed | BorrowedProduct,
        b: nn.Parameter,
        v: nn.Parameter | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.own = a if isinstance(a, nn.Parameter) else None
        self.borrowed = None if isinstance(a, nn.Parameter) else a
        self.b, self.v, self.scale = b, v, scale

    @property
    def a(self) -> Tensor:
        """The left factors (t, p, q)."""
        left = self.own if self.borrowed is None else self.borrowed.value()
        assert left is not None
        return left

    def forward(self, x: Tensor) -> Tensor:
        return kron_apply(x, self.a, self.b, self.v, self.scale)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y + self(x)."""
        return kron_apply(x, self.a, self.b, self.v, self.scale, residual=y)

    def weight_delta(self) -> Tensor:
        """(p * r, q * s)."""
        right = self.b if self.v is None else self.b @ self.v
        return kronecker_matrix(self.a, right) * self.scale
