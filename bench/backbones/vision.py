"""Image backbones: vision transformers of timm, read out at the class token behind the final norm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..assets import asset
from ..errors import UsageError
from .contract import Backbone

if TYPE_CHECKING:
    from ...tasks.contract import Split

NORMALISATION = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
DEFAULT_SIZE = 56


class VisionBackbone(Backbone):
    """A timm ViT. Inputs: `image_size` in pixels, `normalisation` (imagenet, half or openai).

    The card's options: `model` (timm's name) and `arguments` of `timm.create_model`, `image_size` where the inputs name
    none, and `random` with a seed where the weights are drawn and not read.
    """

    def __init__(self, card: Any, options: Mapping[str, Any], meta: bool = False) -> None:
        self.size = int(options.get("image_size", card.options.get("image_size", DEFAULT_SIZE)))
        name = options.get("normalisation", "imagenet")
        if name not in NORMALISATION:
            raise UsageError(f"unknown normalisation {name!r}; known: {', '.join(NORMALISATION)}")
        mean, std = NORMALISATION[name]
        self.mean, self.std = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
        super().__init__(card, options, meta)

    def _create(self) -> nn.Module:
        import timm

        options = self.card.options
        arguments = {"pretrained": False, "num_classes": 0, "img_size": self.size, **options.get("arguments", {})}
        return timm.create_model(options["model"], **arguments)

    def skeleton(self) -> nn.Module:
        return self.image_skeleton()

    def load(self) -> nn.Module:
        return self.image_model()

    def image_skeleton(self) -> nn.Module:
        """The image tower on the meta device."""
        with torch.device("meta"):
            return self._create()

    def image_model(self) -> nn.Module:
        """The image tower with its weights."""
        if "random" in self.card.options:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.card.options["random"])
                return _drawn_alike(self._create())
        model: Any = self.image_skeleton()
        tensors = self.published()
        tensors["pos_embed"] = self._resampled(tensors["pos_embed"], model)
        model.load_state_dict(tensors, assign=True)
        return model

    @property
    def folder(self) -> Path:
        """Where the weights lie."""
        return asset(self.card.assets[0])

    def published(self) -> dict[str, Tensor]:
        """The tensors as their file holds them, before the position table is resampled."""
        from safetensors.torch import load_file

        return load_file(self.folder / "model.safetensors")

    def _resampled(self, table: Tensor, model: Any) -> Tensor:
        from timm.layers import resample_abs_pos_embed

        new = list(model.patch_embed.grid_size)
        return resample_abs_pos_embed(table, new_size=new, num_prefix_tokens=model.num_prefix_tokens)

    @property
    def width(self) -> int:
        return int(self.model.embed_dim)  # type: ignore[arg-type]

    def prepare(self, split: Split) -> dict[str, Tensor]:
        prepared = {"pixels": self.pixels(split), "index": torch.arange(len(split))}
        if split.labels is not None:
            prepared["labels"] = torch.from_numpy(split.labels)
        return prepared

    def pixels(self, split: Split) -> Tensor:
        """What the model sees of a split, uint8 (N, 3, size, size)."""
        images = split.inputs["image"]
        if images.shape[1:3] != (self.size, self.size):
            images = resized(images, self.size)
        return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).contiguous()

    def batch(self, prepared: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        chosen = {name: tensor[index].to(self.device) for name, tensor in prepared.items()}
        mean, std = self.mean.to(self.device), self.std.to(self.device)
        chosen["pixels"] = (chosen["pixels"].float() / 255 - mean) / std
        return chosen

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        features: Tensor = self.model(batch["pixels"])
        return features


@torch.no_grad()
def _drawn_alike(model: nn.Module) -> nn.Module:
    """Draw all tables and matrices anew, in plain normal numbers of timm's deviation.

    timm cuts its normal distribution off by an inverse error function, whose last bits depend on the processor.
    """
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.02)
    return model


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 images (N, H, W, 3) as (N, size, size, 3), by bicubic interpolation."""
    from PIL import Image

    return np.stack(
        [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images]
    )
