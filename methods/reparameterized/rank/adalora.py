"""AdaLoRA: W' = W + s P diag(e) Q, whose rank budget moves to where it matters (Zhang et al. 2023, arXiv 2303.10512).

P (d_out, r) and Q (r, d_in) are normal at the start and held near orthogonality by a penalty, e is zero. After each
step every triplet (a column of P, its e, a row of Q) gets a score: the smoothed sensitivity times uncertainty of e plus
the means over the column and the row (equation 7); all but the best b(t) triplets of the whole model have e set to
zero. b(t) falls by a cubic schedule from `init_r` to `target_r` times the matrices (equation 12), between the shares
`initial` and 1 - `final` of training. Taken from the authors' code, and the same in HF PEFT: s = alpha / init_r, and
the penalty is the mean of the norms ||P^T P - I||, where the paper has the sum of their squares (equation 4).

Trainable parameters: init_r * (d_in + d_out + 1) for each matrix, of which training sets some e to zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.linear import LinearPlace
from ...contract import TargetedConfig
from ...parts.sensitivity import SmoothedSensitivity
from ..low_rank.lora import LoRA, LowRank

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class AdaLoRAConfig(TargetedConfig):
    """The schedule is in shares of the steps, since the protocol sets their number."""

    size: ClassVar[str | None] = "init_r"
    in_proportion: ClassVar[tuple[str, ...]] = ("target_r", "alpha")

    init_r: int = Field(gt=0, description="rank of each matrix at the start")
    target_r: int = Field(gt=0, description="average rank at the end")
    alpha: float = Field(gt=0, description="scale of the product is alpha / init_r")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of Q")
    beta1: float = Field(gt=0, lt=1, description="smoothing of the sensitivity")
    beta2: float = Field(gt=0, lt=1, description="smoothing of its uncertainty")
    orthogonality: float = Field(ge=0, description="weight of the penalty")
    initial: float = Field(ge=0, lt=1, description="share of the steps before the budget falls")
    final: float = Field(ge=0, lt=1, description="share of the steps after it has fallen")
    interval: int = Field(gt=0, description="steps between two allocations while the budget falls")

    @property
    def r(self) -> int:
        """The rank that is attached."""
        return self.init_r


class Triplets(LowRank):
    """x -> s P diag(e) Q x; LoRA's `a` is Q and its `b` is P."""

    def __init__(self, like: Tensor, config: AdaLoRAConfig) -> None:
        super().__init__(like, config.init_r, config.alpha / config.init_r, config.dropout, "kaiming")
        nn.init.normal_(self.a, std=0.02)
        nn.init.normal_(self.b, std=0.02)
        self.e = nn.Parameter(torch.zeros(config.init_r, device=like.device))

    def product(self) -> tuple[Tensor, Tensor, float]:
        return self.e[:, None] * self.a, self.b, self.scale

    def orthogonality(self) -> Tensor:
        """||Q Q^T - I|| + ||P^T P - I||, Frobenius."""
        identity = torch.eye(len(self.e), dtype=self.a.dtype, device=self.a.device)
        return (self.a @ self.a.t() - identity).norm() + (self.b.t() @ self.b - identity).norm()


class AdaLoRA(LoRA):
    """`Triplets` beside each chosen matrix, and one budget for all of them."""

    Config = AdaLoRAConfig
    config: AdaLoRAConfig  # type: ignore[assignment]

    def attach(self, anatomy: Anatomy) -> None:
        if self.config.target_r > self.config.init_r:
            raise ValueError(f"target_r={self.config.target_r} is above init_r={self.config.init_r}")
        super().attach(anatomy)
        self.steps = 0
        self.importance: dict[str, list[SmoothedSensitivity]] = {}

    def put(self, place: LinearPlace) -> LowRank:
        factor = Triplets(place.weight(), self.config)
        place.delta(factor)
        return factor

    def triplets(self) -> dict[str, Triplets]:
        """Those of all matrices, by the matrix's name."""
        return cast("dict[str, Triplets]", dict(self.factors.items()))

    def before_fit(self, fit: Fit) -> None:
        betas = self.config.beta1, self.config.beta2
        self.steps = fit.steps
        self.importance = {
            name: [SmoothedSensitivity(tensor, *betas) for tensor in (factor.e, factor.a, factor.b)]
            for name, factor in self.triplets().items()
        }

    def extra_loss(self) -> Tensor:
        penalty = torch.stack([factor.orthogonality() for factor in self.triplets().values()]).sum()
        return self.config.orthogonality * penalty / (2 * len(self.factors))

    def after_step(self, step: int) -> None:
        initial, final = (int(share * self.steps) for share in (self.config.initial, self.config.final))
        if step < self.steps - final:
            for sensitivities in self.importance.values():
                for sensitivity in sensitivities:
                    sensitivity.update()
        fallen = step > self.steps - final
        if step > initial and (fallen or step % self.config.interval == 0):
            self.allocate(self.budget(step, initial, final))

    def budget(self, step: int, initial: int, final: int) -> int:
        """Triplets that may live after `step`."""
        most, least = (len(self.factors) * r for r in (self.config.init_r, self.config.target_r))
        if step > self.steps - final:
            return least
        left = 1 - (step - initial) / (self.steps - final - initial)
        return int((most - least) * left**3 + least)

    @torch.no_grad()
    def allocate(self, budget: int) -> None:
        """Set e of all but the `budget` best triplets to zero."""
        scores = {name: self.scores(name) for name in self.factors}
        pruned = sum(map(len, scores.values())) - budget
        if pruned > 0:
            threshold = torch.cat(list(scores.values())).kthvalue(pruned).values
            for name, factor in self.triplets().items():
                factor.e[scores[name] <= threshold] = 0

    def scores(self, name: str) -> Tensor:
        """The importance of each triplet of one matrix, (init_r,)."""
        e, q, p = (sensitivity.score() for sensitivity in self.importance[name])
        return e + q.mean(1) + p.mean(0)
