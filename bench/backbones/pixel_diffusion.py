"""Generators in pixel space, conditioned by a text backbone that has a card of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AssetError
from ..registry import registry
from .clip_pair import NO_DROPOUT
from .diffusion import Condition, DiffusionBackbone, DiffusionModel
from .prompt_tokenizer import PromptTokenizer, file_tokenizer, letter_tokenizer

if TYPE_CHECKING:
    from .pixel_pipeline import PixelDiffusionPipeline
    from .text import TextBackbone

DEFAULT_TOKENS = 64


class PixelDiffusionBackbone(DiffusionBackbone):
    """A `UNet2DConditionModel` of pixels and a BERT, whose padding it does not attend to.

    The card's options: `unet` (configuration of the UNet), `text` (with `backbone`, the card of the BERT), `scheduler`;
    `patch`, the side of the squares of pixels that are one position with as many more channels (1: none); `trained`, a
    safetensors file of the UNet beside the card, or `random`, the seed of its weights.
    """

    def skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return DiffusionModel({"unet": self._unet(), "text_encoder": self._text.model})

    def load(self) -> nn.Module:
        if "random" in self.card.options:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.card.options["random"])
                unet = self._unet()
        else:
            unet = self._read(self._unet())
        return DiffusionModel({"unet": unet, "text_encoder": self._text_backbone().model})

    def make_tokenizer(self) -> PromptTokenizer:
        options = self._text.card.options["config"]
        vocabulary, limit = int(options["vocab_size"]), int(self.options.get("max_tokens", DEFAULT_TOKENS))
        if self._text.card.assets:
            return PromptTokenizer(file_tokenizer(self._text.folder / "tokenizer.json", limit), vocabulary)
        return PromptTokenizer(letter_tokenizer(vocabulary, limit), vocabulary)

    def pipeline(self) -> PixelDiffusionPipeline:
        from .pixel_pipeline import PixelDiffusionPipeline

        parts = {"unet": self.model.unet, "text_encoder": self.model.text_encoder}
        tokenizer, scheduler = self.tokenizer.library, self.sampler()
        return PixelDiffusionPipeline(**parts, tokenizer=tokenizer, scheduler=scheduler, patch=self.reduction)

    @property
    def reduction(self) -> int:
        return int(self.card.options.get("patch", 1))

    def latents(self, pixels: Tensor) -> Tensor:
        return F.pixel_unshuffle(pixels, self.reduction)

    def pixels(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(latents, self.reduction)

    def condition(self, ids: Tensor, mask: Tensor) -> Condition:
        hidden = self.model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return Condition(hidden, mask)

    def published(self) -> dict[str, Tensor]:
        """The tensors of all parts."""
        return dict(self.model.state_dict())

    @cached_property
    def _text(self) -> TextBackbone:
        """The text backbone without weights: its card, its architecture, its folder."""
        return self._text_backbone(meta=True)

    def _text_backbone(self, meta: bool = False) -> Any:
        backbones = registry("backbones")
        card = backbones.card(self.card.options["text"]["backbone"])
        # a generator's text encoder is not trained with dropout, whichever way it was trained itself
        card = replace(card, options={**card.options, "config": {**card.options["config"], **NO_DROPOUT}})
        return backbones.load(card.id)(card, {}, meta=meta)

    def _unet(self) -> nn.Module:
        from diffusers import UNet2DConditionModel

        unet: Any = UNet2DConditionModel  # mypy takes it for no Module
        made: nn.Module = unet(**self.card.options["unet"])
        return made

    def _read(self, unet: nn.Module) -> nn.Module:
        from safetensors.torch import load_file

        file = registry("backbones").folder(self.card.id) / self.card.options["trained"]
        if not file.is_file():
            raise AssetError(f"{self.card.id}: {file.name} is not beside its card")
        unet.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
        return unet
