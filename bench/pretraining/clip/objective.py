"""The contrastive loss where several sentences are true of one picture, and one sentence of several pictures."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

TEXT_SHARE = 0.5  # weight of the side on which sentences choose among pictures


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy against targets spread evenly over what is true, both ways (Yang et al. 2022, UniCL, eq. 3 and 4).

    images (B, width) and texts (M, width) need not be normalised; truth (B, M) says which texts are true of which
    image. Every image needs a true text; texts that are true of no image are negatives only.
    """
    logits = scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    by_image = _cross_entropy(logits, truth)
    matched = truth.any(dim=0)
    by_text = _cross_entropy(logits.T[matched], truth.T[matched])
    return (1 - TEXT_SHARE) * by_image + TEXT_SHARE * by_text


def _cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over rows; a row's target is even over its true columns."""
    targets = truth / truth.sum(dim=1, keepdim=True)
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
