"""Adapters of a pipeline, saved and loaded by plain diffusers: the same images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench.conformance.subject import perturb
from peft_atlas.bench.errors import UnsupportedError, UsageError

sys.path.insert(0, str(Path(__file__).parent))
from tiny_stable_diffusion import TEXT, UNET, VAE  # type: ignore[import-not-found]

diffusers = pytest.importorskip("diffusers")


def pipeline() -> Any:
    """A Stable Diffusion of random weights, the same at every call."""
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(0)
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    made = diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel(**UNET),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT)),
        vae=diffusers.AutoencoderKL(**VAE),
        tokenizer=transformers.CLIPTokenizerFast(
            vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=24
        ),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with torch.no_grad():
        for part in (made.unet, made.text_encoder):
            for parameter in part.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    made.set_progress_bar_config(disable=True)
    return made


def draw(drawn: Any, prompt: str) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    image: np.ndarray = drawn(prompt, num_inference_steps=3, generator=generator, output_type="np").images[0]
    return image


@pytest.mark.parametrize("method", ["lora(r=2, alpha=6, targets=all)", "dora(r=2, targets=attention)", "rslora(r=4)"])
def test_low_rank_updates_of_unet_and_text_encoder(method: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    ours, theirs = pipeline(), pipeline()
    plain = draw(ours, "a cat")
    handle = pa.attach(ours, method)
    perturb(handle.method)
    expected = draw(ours, "a cat")
    assert np.abs(expected - plain).max() > 1e-2
    handle.save(tmp_path, format="diffusers")
    theirs.load_lora_weights(tmp_path)
    assert np.abs(draw(theirs, "a cat") - expected).max() < 1e-5
    handle.detach()
    assert np.array_equal(draw(ours, "a cat"), plain)


def test_low_rank_updates_of_the_unet_alone(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    ours, theirs = pipeline(), pipeline()
    handle = pa.attach(ours.unet, "lora(r=3, targets=q+v)")
    perturb(handle.method)
    handle.save(tmp_path, format="diffusers")
    theirs.load_lora_weights(tmp_path)
    assert np.abs(draw(theirs, "a cat") - draw(ours, "a cat")).max() < 1e-5


@pytest.mark.parametrize("method", ["textual-inversion", "custom-diffusion", "custom-diffusion(tokens=2)"])
def test_new_words_and_cross_attention(method: str, tmp_path: Path) -> None:
    ours, theirs = pipeline(), pipeline()
    handle = pa.attach(ours, method)
    perturb(handle.method)
    handle.save(tmp_path, format="diffusers")
    words = ["<new1>", "<new2>"] if "tokens" in method else ["<new1>"]
    ours.tokenizer.add_tokens(words)
    files = ["new1.safetensors", "new2.safetensors"] if len(words) == 2 else ["learned_embeds.safetensors"]
    for file in files:
        theirs.load_textual_inversion(tmp_path, weight_name=file)
    if method != "textual-inversion":
        theirs.unet.load_attn_procs(
            tmp_path, weight_name="pytorch_custom_diffusion_weights.safetensors", _pipeline=theirs
        )
    prompt = f"a {' and '.join(words)} dog"
    expected = draw(ours, prompt)
    assert np.abs(draw(theirs, prompt) - expected).max() < 1e-5
    assert np.abs(draw(pipeline(), prompt) - expected).max() > 1e-2


def test_what_diffusers_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bitfit cannot be written in diffusers' format, which lora, "):
        pa.attach(pipeline(), "bitfit").save(tmp_path, format="diffusers")
    with pytest.raises(UnsupportedError, match="draws nothing that texts ask for"):
        pa.attach(pipeline().unet, "textual-inversion")
    with pytest.raises(UsageError, match="neither a model of torch nor a pipeline"):
        pa.attach("stable-diffusion", "lora")
