"""A diffusers pipeline without autoencoder: prompts go through a BERT, a UNet denoises pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class PixelDiffusionPipeline(DiffusionPipeline, TextualInversionLoaderMixin, StableDiffusionLoraLoaderMixin):
    """Text to image with a `UNet2DConditionModel` over RGB in -1..1, as Stable Diffusion's pipeline is over latents.

    Squares of `patch` x `patch` pixels are one position of the UNet. LoRA weights and textual inversions load as they
    do there.
    """

    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    model_cpu_offload_seq: Any = "text_encoder->unet"

    def __init__(self, unet: Any, text_encoder: Any, tokenizer: Any, scheduler: Any, patch: int = 1) -> None:
        super().__init__()
        self.register_to_config(patch=patch)
        self.register_modules(unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 25,
        guidance_scale: float = 3.0,
        negative_prompt: str = "",
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """Images for prompts; `generator` as diffusers takes it: one, or a list of one for each image."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        guided = guidance_scale > 1
        hidden, mask = self.encode_prompts([negative_prompt] * len(prompts) + prompts if guided else prompts)
        config = self.unet.config
        shape = (len(prompts), config.in_channels, config.sample_size, config.sample_size)
        device = self._execution_device
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        image = randn_tensor(shape, generator, device, self.unet.dtype) * self.scheduler.init_noise_sigma
        for t in self.progress_bar(self.scheduler.timesteps):
            entered = self.scheduler.scale_model_input(torch.cat([image, image]) if guided else image, t)
            predicted = self.unet(entered, t, hidden, encoder_attention_mask=mask).sample
            if guided:
                without, with_prompt = predicted.chunk(2)
                predicted = without + guidance_scale * (with_prompt - without)
            image = self.scheduler.step(predicted, t, image).prev_sample
        self.maybe_free_model_hooks()
        pixels = F.pixel_shuffle(image, self.config["patch"])
        return ImagePipelineOutput(images=self.image_processor.postprocess(pixels, output_type=output_type))

    def encode_prompts(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states (N, L, width) and mask (N, L) of prompts, padded to the longest."""
        converted: Any = self.maybe_convert_prompt(prompts, self.tokenizer)
        limit = self.tokenizer.model_max_length
        found = self.tokenizer(converted, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        ids, mask = (found[name].to(self._execution_device) for name in ("input_ids", "attention_mask"))
        return self.text_encoder(ids, attention_mask=mask).last_hidden_state, mask
