"""ProGrad: CoOp whose steps never oppose what the zero-shot model predicts (Zhu et al. 2022, arXiv 2205.14865).

With G_d the gradient of the cross entropy and G_g that of KL(p_zero-shot || p), the context moves along

    G_d                                        where the angle between the two is at most 90 degrees,
    G_d - strength * (G_d . G_g) G_g / |G_g|^2  otherwise (equation 6).

The zero-shot predictions come from the task's own templates and are made once. As in the authors' code both softmaxes
have temperature one.

Trainable parameters: those of CoOp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from .coop import CoOp, CoOpConfig

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class ProGradConfig(CoOpConfig):
    """The context, and how much of a conflict is taken out."""

    strength: float = Field(ge=0, le=1, description="share of an opposing component that is removed; lambda")


class ProGrad(CoOp):
    """A context with projected gradients."""

    Config = ProGradConfig
    config: ProGradConfig

    def before_fit(self, fit: Fit) -> None:
        """Keep the zero-shot logits of all training items, (N, C)."""
        batches = (fit.backbone.batch(fit.prepared, i) for i in fit.prepared["index"].split(fit.settings.eval_batch))
        self.context.active = False
        try:
            with torch.no_grad():
                logits = [fit.outputs(batch) for batch in batches]
        finally:
            self.context.active = True
        self.zero_shot = torch.cat(logits)

    def compute_gradients(self, fit: Fit, batch: dict[str, Tensor]) -> Tensor:
        outputs = fit.outputs(batch)
        loss, teacher, vectors = fit.task.loss(outputs, batch), self.zero_shot[batch["index"]], self.context.vectors
        (general,) = torch.autograd.grad(divergence(outputs, teacher), vectors, retain_graph=True)
        (domain,) = torch.autograd.grad(loss, vectors)
        vectors.grad = projected(domain, general, self.config.strength)
        return loss.detach()


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean over items of KL(softmax(teacher) || softmax(logits)), but for a constant; both (B, C).

    Classes that are out of the question have the logit -inf in both.
    """
    log_p = logits.log_softmax(1).masked_fill(teacher.isneginf(), 0)
    return -(teacher.softmax(1) * log_p).sum(1).mean()


def projected(domain: Tensor, general: Tensor, strength: float) -> Tensor:
    """`domain` without `strength` of its component against `general`."""
    along = (domain * general).sum()
    if along >= 0:
        return domain
    return domain - strength * along / general.square().sum() * general
