"""TPT: before each image is classified, the context takes a step towards confident, consistent answers on views of it
(Shu et al. 2022, arXiv 2209.07511, section 3.2).

Of `views` views (the image, and random crops, resized and half of them mirrored) the share `confident` with the lowest
entropy is kept. The context takes `steps` steps of AdamW on the entropy of their mean prediction (equations 2 and 4),
the image is classified, and the context is what it was. Nothing is learned from the training split. The crops depend on
the seed and on the item, not on the order of items. The authors' code mixes in AugMix on fine-grained data; crops and
mirroring, as on ImageNet, are what is done here.

Trainable parameters: context * width of the text tower's embeddings, set back after each image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ....bench.anatomy import Anatomy
from ...contract import Method, MethodConfig
from ...parts.context import Context, ContextConfig

if TYPE_CHECKING:
    from ....bench.trainer import Fit

AREA, RATIO = [0.08, 1.0], [3 / 4, 4 / 3]  # of a crop, torchvision's defaults


class TPTConfig(ContextConfig):
    """The context, the views, and the step."""

    views: int = Field(gt=0, description="the image itself and its random crops")
    confident: float = Field(gt=0, le=1, description="share of the views that counts")
    steps: int = Field(gt=0, description="steps for each image")


class TPT(Method):
    """One context, which every image starts from."""

    Config: ClassVar[type[MethodConfig]] = TPTConfig
    config: TPTConfig
    seed: Tensor

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("pair", "embedding")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.context = Context(anatomy, self.config)
        device = self.context.vectors.device
        self.register_buffer("seed", torch.randint(2**31, (), device=device))

    def fit(self, fit: Fit) -> None:
        """Nothing is trained."""

    def on_logits(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        start = self.context.vectors.detach().clone()
        answers = []
        for i in range(len(outputs)):
            item = {name: column[i : i + 1] for name, column in batch.items()}
            is_in = ~outputs[i].isneginf()
            try:
                self._tune(item, is_in)
                answers.append(self._scores(item).masked_fill(~is_in, -torch.inf))
            finally:
                with torch.no_grad():
                    self.context.vectors.copy_(start)
        return torch.cat(answers).to(outputs.dtype)

    @torch.enable_grad()
    def _tune(self, item: dict[str, Tensor], is_in: Tensor) -> None:
        """Move the context for one item; `is_in` (C,) says which classes are in question."""
        config, vectors = self.config, self.context.vectors
        trained = vectors.requires_grad  # not while operations are counted
        vectors.requires_grad_()
        optimizer = torch.optim.AdamW([vectors], lr=config.lr, weight_decay=config.weight_decay)
        views = {"pixels": self._views(item["pixels"][0], int(item["index"]))}
        kept: Tensor | None = None
        for _ in range(config.steps):
            logits = self._scores(views)[:, is_in]
            if kept is None:
                kept = entropy(logits).argsort()[: max(1, int(config.confident * config.views))]
            (vectors.grad,) = torch.autograd.grad(entropy(mean_prediction(logits[kept])), vectors)
            optimizer.step()
        vectors.grad = None
        vectors.requires_grad_(trained)

    def _scores(self, batch: dict[str, Tensor]) -> Tensor:
        assert self.anatomy is not None and self.anatomy.pair is not None
        return self.anatomy.pair.scores(batch)

    def _views(self, pixels: Tensor, item: int) -> Tensor:
        """The image (3, H, W) and its random crops, (views, 3, H, W)."""
        from torchvision.transforms import RandomResizedCrop
        from torchvision.transforms.functional import hflip, resized_crop

        views = [pixels]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.seed) + item)
            for _ in range(self.config.views - 1):
                place = RandomResizedCrop.get_params(pixels, AREA, RATIO)
                view = resized_crop(pixels, *place, list(pixels.shape[1:]), antialias=True)
                views.append(hflip(view) if torch.rand(()) < 0.5 else view)
        return torch.stack(views)


def entropy(logits: Tensor) -> Tensor:
    """Of predictions (..., C), in nats."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def mean_prediction(logits: Tensor) -> Tensor:
    """Logarithm of the mean of softmax(logits) over the first dimension, (V, C) -> (C,)."""
    return logits.log_softmax(-1).logsumexp(0)
