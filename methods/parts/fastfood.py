"""Fastfood: a random projection that is never stored as a matrix (Le et al. 2013, arXiv 1408.3060).

A block is V = H G Pi H B of size l, a power of two: signs B, the Walsh-Hadamard matrix H, a permutation Pi, normal
numbers G on a diagonal. A projection to n dimensions is as many blocks as that takes, one below the other, and costs
n log l. It is scaled by 1 / (|G| sqrt(n)), so that its columns have unit length in the mean over n rows:

    E[P^T P] = I,    E[P P^T] = (d / n) I.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTOR = 32  # H is applied as a product of smaller ones: fewer passes over the vector than butterflies would take


class Fastfood(nn.Module):
    """P from d to n dimensions, drawn from `generator`, which is on the CPU; not part of what is shipped."""

    signs: Tensor
    order: Tensor
    gains: Tensor

    def __init__(self, d: int, n: int, generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        self.d, self.n, size = d, n, 1 << (d - 1).bit_length()
        shape = (-(-n // size), size)
        if device.type == "meta":
            signs, order, gains = (torch.empty(shape, device=device) for _ in range(3))
        else:
            signs = torch.randint(2, shape, generator=generator) * 2 - 1
            order = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(1)
            order += torch.arange(shape[0])[:, None] * size
            gains = torch.randn(shape, generator=generator)
            gains /= gains.norm(dim=1, keepdim=True) * n**0.5
        self.register_buffer("signs", signs.to(device, torch.int8), persistent=False)
        self.register_buffer("order", order.flatten().to(device, torch.int32), persistent=False)
        self.register_buffer("gains", gains.to(device), persistent=False)

    def forward(self, theta: Tensor) -> Tensor:
        """P theta, (d,) -> (n,)."""
        padded = F.pad(theta, (0, self.gains.shape[1] - self.d))
        mixed = walsh_hadamard(padded * self.signs).flatten()[self.order]
        return walsh_hadamard(mixed.view_as(self.gains) * self.gains).flatten()[: self.n]

    def transposed(self, values: Tensor) -> Tensor:
        """P^T values, (n,) -> (d,)."""
        padded = F.pad(values, (0, self.gains.numel() - self.n)).view_as(self.gains)
        mixed = (walsh_hadamard(padded) * self.gains).flatten()
        mixed = torch.empty_like(mixed).index_copy_(0, self.order.long(), mixed)
        return (walsh_hadamard(mixed.view_as(self.gains)) * self.signs).sum(0)[: self.d]


class ScaledProjection(torch.autograd.Function):
    """scale * P theta, which keeps nothing of n values for the backward pass: <g, P theta> = <P^T g, theta>."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, theta: Tensor, scale: Tensor, p: Fastfood) -> Tensor:
        ctx.p = p  # type: ignore[attr-defined]
        ctx.save_for_backward(theta, scale)
        return scale * p(theta)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        theta, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        back = ctx.p.transposed(gradients[0])  # type: ignore[attr-defined]
        return scale * back, back @ theta, None


def walsh_hadamard(x: Tensor) -> Tensor:
    """H x for each row of x (rows, l), l a power of two; H has entries +-1 and is not normalised.

    H is a Kronecker product; each turn multiplies by the factor of the last digit of the index and brings that digit to
    the front, and after all of them the digits are in order again.
    """
    rows, left = x.shape[0], x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        while left > 1:
            factor = min(FACTOR, left)
            x = (x.reshape(rows, -1, factor) @ _hadamard(factor, x.dtype, x.device)).mT
            left //= factor
    return x.reshape(rows, -1)


@lru_cache(maxsize=64)
def _hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The Walsh-Hadamard matrix (size, size)."""
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=dtype, device=device)
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while len(matrix) < size:
        matrix = torch.kron(matrix, step)
    return matrix
