"""Text-to-image diffusion models: a UNet conditioned by a text encoder, over pixels or an autoencoder's latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contract import Backbone
from .padding import shortest_first, without_common_padding
from .prompt_tokenizer import PromptTokenizer
from .vision import resized

if TYPE_CHECKING:
    from ...tasks.contract import Split

STEPS, GUIDANCE = 25, 3.0  # of a sample, where nobody says otherwise


class DiffusionModel(nn.Module):
    """The parts of a generator under the names that diffusers' pipelines give them."""

    unet: Any
    text_encoder: Any
    text_encoder_2: Any
    vae: Any

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Condition(NamedTuple):
    """What the UNet is told about a batch of prompts: the last arguments of `DiffusionBackbone.denoise`."""

    hidden: Tensor  # (B, L, width of the cross-attention)
    mask: Tensor | None = None  # (B, L), 0 where a token is padding; None where padding is attended to
    added: dict[str, Tensor] | None = None  # what Stable Diffusion XL adds to the time step's embedding

    def after(self, other: Condition) -> Condition:
        """The prompts of `other`, then these, in one batch."""
        mask = None if self.mask is None or other.mask is None else torch.cat([other.mask, self.mask])
        added = None
        if self.added is not None and other.added is not None:
            added = {name: torch.cat([other.added[name], tensor]) for name, tensor in self.added.items()}
        return Condition(torch.cat([other.hidden, self.hidden]), mask, added)


class DiffusionBackbone(Backbone):
    """A generator of images from prompts. Inputs: `image_size` in pixels (the UNet's own), `max_tokens`.

    Subclasses make the parts, the tokenizer and the pipeline. The card's option `scheduler` holds the configuration of
    diffusers' DDPMScheduler (training) and DDIMScheduler (sampling); its `prediction_type` says what the UNet predicts.

    The card's option `adapts` lists the parts that methods find, all of them where it is missing: `[unet]` sets the
    text encoders aside (`Anatomy.set_aside`).

    Columns of a split: "text" (prompts), "image" where there are pictures, and any of numbers.
    """

    model: DiffusionModel

    def __init__(self, card: Any, options: Mapping[str, Any], meta: bool = False) -> None:
        from diffusers import DDIMScheduler, DDPMScheduler

        config = dict(card.options["scheduler"])
        self.training_schedule: Any = DDPMScheduler.from_config(config)
        self.sampling_config: Any = DDIMScheduler.from_config(config).config
        super().__init__(card, options, meta)
        if "adapts" in card.options:
            self._set_others_aside(card.options["adapts"])

    def _set_others_aside(self, parts: Sequence[str]) -> None:
        inside = {module for part in parts for module in getattr(self.model, part).modules()}
        for name in [name for name, tower in self.anatomy.towers.items() if tower.module not in inside]:
            self.anatomy.set_aside(name)

    # what subclasses make --------------------------------------------------------------------------------------

    def make_tokenizer(self) -> PromptTokenizer:
        """The tokenizer of the text encoder."""
        raise NotImplementedError

    def pipeline(self) -> Any:
        """A diffusers pipeline of the very same modules: it draws what `sample` draws."""
        raise NotImplementedError

    def condition(self, ids: Tensor, mask: Tensor) -> Condition:
        """What the UNet gets to know of prompts, ids and mask (B, L)."""
        raise NotImplementedError

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L, width of the cross-attention) of prompts, ids and mask (B, L)."""
        return self.condition(ids, mask).hidden

    def unconditional(self, like: Condition) -> Condition:
        """The condition of as many empty prompts, with as many tokens."""
        batch, length = like.hidden.shape[:2]
        empty = self.tokenizer.encode([""] * batch, length)
        return self.condition(empty["input_ids"].to(self.device), empty["attention_mask"].to(self.device))

    # sizes -----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return int(self.options.get("image_size", self.model.unet.config.sample_size * self.reduction))

    @property
    def reduction(self) -> int:
        """Pixels along the side of one latent; 1 where there is no autoencoder."""
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of what is denoised."""
        side = self.size // self.reduction
        return int(self.model.unet.config.in_channels), side, side

    @property
    def width(self) -> int:
        """Length of what `encode` returns."""
        return int(np.prod(self.shape))

    # data ------------------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer of prompts; placeholders are added to it."""
        return self.make_tokenizer()

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """ "input_ids" and "attention_mask" (N, L) of prompts, on the model's device."""
        return {name: tensor.to(self.device) for name, tensor in self.tokenizer.encode(texts).items()}

    def prepare(self, split: Split) -> dict[str, Tensor]:
        prepared = {**self.tokenizer.encode(split.inputs["text"]), "index": torch.arange(len(split))}
        for name, column in split.inputs.items():
            if name == "image":
                images = column if column.shape[1] == column.shape[2] == self.size else resized(column, self.size)
                prepared["pixels"] = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).contiguous()
            elif isinstance(column, np.ndarray):
                prepared[name] = torch.from_numpy(column)
        if split.labels is not None:
            prepared["labels"] = torch.from_numpy(split.labels)
        return prepared

    def order(self, prepared: dict[str, Tensor]) -> Tensor:
        """Shortest prompts first: less padding."""
        return shortest_first(prepared)

    def batch(self, prepared: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        """The items at `index`; "pixels" (B, 3, H, W) in -1..1, ids and mask without common padding."""
        chosen = {name: tensor[index].to(self.device) for name, tensor in prepared.items()}
        if not self.tokenizer.whole:
            chosen = without_common_padding(chosen)
        if "pixels" in chosen:
            chosen["pixels"] = chosen["pixels"].float() / 127.5 - 1
        return chosen

    # denoising -------------------------------------------------------------------------------------------------

    def latents(self, pixels: Tensor) -> Tensor:
        """What is denoised, of pixels (B, 3, H, W) in -1..1: themselves, or a draw from their latents."""
        return pixels

    def pixels(self, latents: Tensor) -> Tensor:
        """The inverse of `latents`: (B, 3, H, W), about -1..1."""
        return latents

    def denoise(
        self,
        noisy: Tensor,
        t: Tensor,
        hidden: Tensor,
        mask: Tensor | None = None,
        added: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The UNet's prediction (B, C, h, w) for latents at time steps t (B,), under a `Condition`."""
        predicted: Tensor = self.model.unet(
            noisy,
            t,
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return predicted

    def noise_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,) squared errors for a batch of pictures and prompts, at time steps drawn evenly. See `squared_errors`."""
        condition = self.condition(batch["input_ids"], batch["attention_mask"])
        return self.squared_errors(self.latents(batch["pixels"]), condition)

    def squared_errors(self, clean: Tensor, condition: Condition, t: Tensor | None = None) -> Tensor:
        """(B,) mean squared error of the prediction for latents, at time steps drawn evenly where no `t` (B,) is given.

        Noise and time steps come from torch's own generator. Ho et al. 2020 (arXiv:2006.11239), equation 14; for
        prediction_type "v_prediction" the target is that of Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
        """
        schedule = self.training_schedule
        if t is None:
            t = torch.randint(schedule.config.num_train_timesteps, (len(clean),), device=clean.device)
        noise = torch.randn_like(clean)
        is_velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(clean, noise, t) if is_velocity else noise
        predicted = self.denoise(schedule.add_noise(clean, noise, t), t, *condition)
        return F.mse_loss(predicted.float(), target, reduction="none").flatten(1).mean(1)

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, width): the prediction for the batch's pictures, half noised; the noise is the same for all."""
        clean = self.latents(batch["pixels"])
        noise = _noise([0], self.shape).to(clean.device).expand_as(clean)
        t = torch.full((len(clean),), self.training_schedule.config.num_train_timesteps // 2, device=clean.device)
        noisy = self.training_schedule.add_noise(clean, noise, t)
        return self.denoise(noisy, t, *self.condition(batch["input_ids"], batch["attention_mask"])).flatten(1)

    @torch.no_grad()
    def sample(
        self, batch: dict[str, Tensor], seeds: Sequence[int] | Tensor, steps: int = STEPS, guidance: float = GUIDANCE
    ) -> Tensor:
        """uint8 (B, H, W, 3) on the CPU: images for the prompts of a batch ("input_ids", "attention_mask").

        DDIM (Song et al. 2021, arXiv:2010.02502) without noise of its own, with classifier-free guidance (Ho and
        Salimans 2022, arXiv:2207.12598) where `guidance` is above 1. Each item's noise is drawn on the CPU from its
        own seed, so an image depends on its prompt and seed alone.
        """
        condition = self.condition(batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device))
        guided = guidance > 1
        if guided:
            condition = condition.after(self.unconditional(condition))
        scheduler = self.sampler()
        scheduler.set_timesteps(steps)
        latents = _noise([int(seed) for seed in seeds], self.shape).to(self.device) * scheduler.init_noise_sigma
        for t in scheduler.timesteps.tolist():
            doubled = torch.cat([latents, latents]) if guided else latents
            predicted = self.denoise(doubled, torch.full((len(doubled),), t, device=self.device), *condition).float()
            if guided:
                without, with_prompt = predicted.chunk(2)
                predicted = without + guidance * (with_prompt - without)
            latents = scheduler.step(predicted, t, latents).prev_sample
        shown = (self.pixels(latents).float() / 2 + 0.5).clamp(0, 1)
        return (shown * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous()

    def sampler(self) -> Any:
        """A fresh DDIM scheduler."""
        from diffusers import DDIMScheduler

        return DDIMScheduler.from_config(self.sampling_config)


def _noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """(B, C, h, w) of normal numbers, each item's from a generator of its own."""
    return torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
