"""Hard-concrete gates: exactly zero or one at times, and differentiable (Louizos et al. 2018, arXiv 1712.01312).

    s = sigmoid(log u - log(1 - u) + alpha), u uniform;    z = min(1, max(0, s (high - low) + low))

with low < 0 and high > 1, at temperature one (section 2.2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MARGIN = 1e-4  # u stays so far from zero and one


def logistic_noise(like: Tensor) -> Tensor:
    """log u - log(1 - u) for new u, of the shape of `like`."""
    u = torch.rand_like(like).clamp_(MARGIN, 1 - MARGIN)
    return u.log() - (1 - u).log()


def gate(alpha: Tensor, noise: Tensor | float, low: float, high: float) -> Tensor:
    """z for given noise; without noise (0.0), the gate that takes its place after training (equation 13)."""
    return ((alpha + noise).sigmoid() * (high - low) + low).clamp(0, 1)


def probability(alpha: Tensor, low: float, high: float) -> Tensor:
    """P(z > 0), which is sigmoid(alpha - log(-low / high)) (equation 12)."""
    return (alpha - math.log(-low / high)).sigmoid()
