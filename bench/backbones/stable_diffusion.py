"""Stable Diffusion 1.5 and XL from a hub or a folder in diffusers' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..architectures import read
from ..errors import AssetError
from ..sources import folder
from .diffusion import Condition, DiffusionBackbone, DiffusionModel
from .prompt_tokenizer import PromptTokenizer
from .text import quiet


class StableDiffusionBackbone(DiffusionBackbone):
    """A UNet over latents under CLIP's text encoder, whose padding it attends to, as it did when it was trained.

    The card's first source holds a folder for each part. The card's options: `unet` (an architecture's name, or a
    configuration), `text_encoder` and `vae` (configurations), `scheduler`.
    """

    def skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return DiffusionModel({name: self._build(name, kind) for name, kind in self._classes().items()})

    def load(self) -> nn.Module:
        quiet()
        model = DiffusionModel({name: self._read(name, kind) for name, kind in self._classes().items()})
        found = sum(parameter.numel() for parameter in model.parameters())
        if found != self.card.parameters:
            raise AssetError(f"{self.folder} holds {found:,} parameters, {self.card.id} has {self.card.parameters:,}")
        return model

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return folder(self.card.sources[0])

    def make_tokenizer(self) -> PromptTokenizer:
        from transformers import CLIPTokenizer

        vocabulary = int(self.card.options["text_encoder"]["vocab_size"])
        return PromptTokenizer(CLIPTokenizer.from_pretrained(self.folder / "tokenizer"), vocabulary, whole=True)

    def pipeline(self) -> Any:
        from diffusers import StableDiffusionPipeline

        without: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return StableDiffusionPipeline(**self._parts(), tokenizer=self.tokenizer.library, **without)

    def condition(self, ids: Tensor, mask: Tensor) -> Condition:
        return Condition(self.model.text_encoder(input_ids=ids).last_hidden_state)

    # latents ---------------------------------------------------------------------------------------------------

    @property
    def reduction(self) -> int:
        return int(2 ** (len(self.model.vae.config.block_out_channels) - 1))

    def latents(self, pixels: Tensor) -> Tensor:
        """A draw from what the autoencoder takes the pictures for, by torch's own generator, in the UNet's scale."""
        with torch.no_grad():
            drawn: Tensor = self.model.vae.encode(pixels).latent_dist.sample()
        return drawn * self.model.vae.config.scaling_factor

    def pixels(self, latents: Tensor) -> Tensor:
        decoded: Tensor = self.model.vae.decode(latents / self.model.vae.config.scaling_factor).sample
        return decoded

    # parts -----------------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return {**dict(self.model.named_children()), "scheduler": self.sampler()}

    def _classes(self) -> dict[str, Any]:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel

        return {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel, "vae": AutoencoderKL}

    def _build(self, name: str, kind: Any) -> nn.Module:
        """A part of random weights."""
        config = self.card.options[name]
        if "architecture" in config:
            config = read(config["architecture"]).config
        made: nn.Module = kind(kind.config_class(**config)) if hasattr(kind, "config_class") else kind(**config)
        return made

    def _read(self, name: str, kind: Any) -> nn.Module:
        """A part with the weights of its folder, in fp32. AssetError where some are missing."""
        part, report = kind.from_pretrained(self.folder / name, use_safetensors=True, output_loading_info=True)
        if missing := sorted(report["missing_keys"]):  # the library would draw them at random
            raise AssetError(
                f"{self.card.id}: {name} of {self.folder} lacks {missing[0]} (and {len(missing) - 1} more)"
            )
        loaded: nn.Module = part.float()
        return loaded


class StableDiffusionXLBackbone(StableDiffusionBackbone):
    """Stable Diffusion XL: the states before the last block of two text encoders, side by side.

    Pictures count as whole and of the size that is drawn. The empty prompt of guidance is zeros, as in diffusers.
    Podell et al. 2023 (arXiv:2307.01952), sections 2.1 and 2.2.
    """

    def pipeline(self) -> Any:
        from diffusers import StableDiffusionXLPipeline
        from transformers import CLIPTokenizer

        second = CLIPTokenizer.from_pretrained(self.folder / "tokenizer_2")
        tokenizers = {"tokenizer": self.tokenizer.library, "tokenizer_2": second}
        return StableDiffusionXLPipeline(**self._parts(), **tokenizers, add_watermarker=False)

    def condition(self, ids: Tensor, mask: Tensor) -> Condition:
        # the second tokenizer differs in what it pads with: its id 0
        second_ids = ids.masked_fill(mask == 0, 0)
        first = self.model.text_encoder(input_ids=ids, output_hidden_states=True)
        second = self.model.text_encoder_2(input_ids=second_ids, output_hidden_states=True)
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        whole = [self.size, self.size, 0, 0, self.size, self.size]  # size of the original, corner of the crop, size
        times = torch.tensor(whole, dtype=hidden.dtype, device=hidden.device).expand(len(ids), -1)
        return Condition(hidden, added={"text_embeds": second.text_embeds, "time_ids": times})

    def unconditional(self, like: Condition) -> Condition:
        assert like.added is not None
        added = {**like.added, "text_embeds": torch.zeros_like(like.added["text_embeds"])}
        return Condition(torch.zeros_like(like.hidden), added=added)

    def _classes(self) -> dict[str, Any]:
        from transformers import CLIPTextModelWithProjection

        return {**super()._classes(), "text_encoder_2": CLIPTextModelWithProjection}
