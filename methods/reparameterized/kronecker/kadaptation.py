"""KAdaptation: dW = s sum_i A_i (x) (u_i v_i^T) (He et al. 2022, arXiv 2203.16329).

The matrices A_i (terms x terms) are shared between all layers, one set for the queries and one for the values; u_i and
v_i belong to each matrix. As in the authors' code, A_i is itself a product of rank `rule_rank` (0: a full matrix) drawn
uniformly in +-0.01, s is 160, and each attention adds one vector to its queries and its values. That code starts u and
v at zero, where neither has a gradient, and uses the u and v of the queries for the values too; here u starts as Glorot
draws it and v at zero, and every matrix uses its own. Its dropout of the entries of dW is left out.

Trainable parameters: for each of q and v (or what `targets` names) 2 * rule_rank * terms^2, or terms^3 for full A_i;
for each matrix rank * (d_in + d_out); with `bias`, d_out once for each attention (where sizes differ, for each size).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.linear import LinearPlace
from ...contract import Method, TargetedConfig, parameter_name
from ...parts.kronecker import Borrowed, BorrowedProduct, KroneckerSum


class KAdaptationConfig(TargetedConfig):
    """Sizes of the factors."""

    size: ClassVar[str | None] = "rank"

    terms: int = Field(gt=0, description="number and size of the matrices A; divides the widths")
    rank: int = Field(gt=0, description="rank of the right factors; 1 in the paper")
    rule_rank: int = Field(ge=0, description="rank of the matrices A; 0: full")
    bias: bool = Field(description="add one vector to the outputs in each attention")
    scale: float = Field(gt=0, description="factor of the sum")
    init_bound: float = Field(gt=0, description="the factors of A are drawn between this and its negative")


class KAdaptation(Method):
    """One `KroneckerSum` for each chosen matrix, with left factors that all layers share."""

    Config = KAdaptationConfig
    starts_as_backbone = True
    config: KAdaptationConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.rules, self.factors, self.biases = nn.ParameterDict(), nn.ModuleDict(), nn.ParameterDict()
        for name, place in self.sized(anatomy.linears(self.config.targets).items()):
            if place.d_in % self.config.terms or place.d_out % self.config.terms:
                raise ValueError(f"{name}, from {place.d_in} to {place.d_out}, cannot be divided by the terms")
            factor = self._factor(name.rpartition(".")[2], place)
            self.factors[parameter_name(name)] = factor
            place.delta(factor)
            if self.config.bias:
                place.affine(shift=self._bias(name, place))

    def _factor(self, kind: str, place: LinearPlace) -> KroneckerSum:
        """The update of one matrix of a kind (q, v)."""
        config, device = self.config, place.weight().device
        u = nn.Parameter(torch.empty(config.terms, place.d_out // config.terms, config.rank, device=device))
        v = nn.Parameter(torch.zeros(config.terms, config.rank, place.d_in // config.terms, device=device))
        bound = (6 / (u.shape[1] + u.shape[2])) ** 0.5
        nn.init.uniform_(u, -bound, bound)
        return KroneckerSum(self._rule(kind, device), u, v, config.scale)

    def _rule(self, kind: str, device: torch.device) -> Borrowed | BorrowedProduct:
        """The left factors of all matrices of one kind, drawn at first use."""
        n, k = self.config.terms, self.config.rule_rank
        names = [f"{kind}_left", f"{kind}_right"] if k else [kind]
        for name, shape in zip(names, ((n, n, k), (n, k, n)) if k else ((n, n, n),), strict=True):
            if name not in self.rules:
                self.rules[name] = nn.Parameter(torch.empty(shape, device=device))
                nn.init.uniform_(self.rules[name], -self.config.init_bound, self.config.init_bound)
        return BorrowedProduct(*(self.rules[name] for name in names)) if k else Borrowed(self.rules[kind])

    def _bias(self, name: str, place: LinearPlace) -> Tensor:
        """The vector of one attention for outputs of this size, zero at the start."""
        key = parameter_name(f"{name.rpartition('.')[0]}.{place.d_out}")
        if key not in self.biases:
            self.biases[key] = nn.Parameter(torch.zeros(place.d_out, device=place.weight().device))
        return self.biases[key]
