"""A change of every weight, w, behind a gate of its own and one of its matrix (Guo et al. 2021, arXiv 2012.07463)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...bench.anatomy.chain import remove_all
from .hard_concrete import gate, logistic_noise, probability
from .sparse import Weights


class GatedDiff(nn.Module):
    """Adds z z_g w to each weight: w zero and both gates' parameters at `start` at first. Every matrix or vector is a
    group g; without `structured`, z_g is one.

    Parameters: two for each weight of the backbone, and one for each group where it is structured.
    """

    def __init__(self, weights: Weights, start: float, low: float, high: float, structured: bool) -> None:
        super().__init__()
        self.low, self.high = low, high
        zeros = [_zeros(places[0].value()) for places in weights.values()]
        self.w = nn.ParameterList(map(nn.Parameter, zeros))
        self.alpha = nn.ParameterList(nn.Parameter(torch.full_like(zero, start)) for zero in zeros)
        self.group_alpha = nn.Parameter(zeros[0].new_full((len(zeros),), start)) if structured else None
        self.draw()
        self.handles = [
            place.reparam(AddGated(self, i)) for i, places in enumerate(weights.values()) for place in places
        ]

    def draw(self) -> None:
        """New noise for all gates."""
        self.noise = [logistic_noise(alpha) for alpha in self.alpha]
        self.group_noise = None if self.group_alpha is None else logistic_noise(self.group_alpha)

    def change(self, i: int) -> Tensor:
        """What is added to weight i, under the present noise."""
        z = gate(self.alpha[i], self.noise[i], self.low, self.high)
        if self.group_alpha is not None and self.group_noise is not None:
            z = z * gate(self.group_alpha[i], self.group_noise[i], self.low, self.high)
        return z * self.w[i]

    def expected_l0(self) -> Tensor:
        """The expected number of weights that change : P(z > 0) P(z_g > 0), summed."""
        expected = torch.stack([probability(alpha, self.low, self.high).sum() for alpha in self.alpha])
        if self.group_alpha is not None:
            expected = expected * probability(self.group_alpha, self.low, self.high)
        return expected.sum()

    @torch.no_grad()
    def settled(self) -> Tensor:
        """All changes laid end to end, with gates free of noise."""
        self.noise = [torch.zeros_like(noise) for noise in self.noise]
        self.group_noise = None if self.group_noise is None else torch.zeros_like(self.group_noise)
        return torch.cat([self.change(i).flatten() for i in range(len(self.w))])

    def remove(self) -> None:
        """Take the changes out of the backbone."""
        remove_all(self.handles)


class AddGated:
    """W -> W with its change added."""

    def __init__(self, diff: GatedDiff, weight: int) -> None:
        self.diff, self.weight = diff, weight

    def __call__(self, value: Tensor) -> Tensor:
        return value + self.diff.change(self.weight).to(value.dtype)


def _zeros(value: Tensor) -> Tensor:
    """Zeros of the value's shape, in single precision at least: small steps vanish in half."""
    return torch.zeros(value.shape, dtype=torch.promote_types(value.dtype, torch.float32), device=value.device)
