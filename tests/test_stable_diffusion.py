"""Stable Diffusion 1.5 and XL: published counts, and tiny random folders in diffusers' layout."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.backbones.stable_diffusion import StableDiffusionBackbone
from peft_atlas.bench.errors import AssetError
from peft_atlas.bench.registry import registry
from peft_atlas.bench.sources import DATA_ROOT, SourceError
from peft_atlas.tasks.contract import Split

sys.path.insert(0, str(Path(__file__).parent))
from tiny_stable_diffusion import TEXT, UNET, VAE  # type: ignore[import-not-found]

PROMPTS = ["a red circle", "a cat"]
TINY: dict[str, dict[str, Any]] = {
    "hub-sd-1.5": {"unet": UNET, "text_encoder": TEXT, "vae": VAE},
    "hub-sdxl": {
        "text_encoder": TEXT,
        "text_encoder_2": {**TEXT, "hidden_size": 48, "intermediate_size": 96, "projection_dim": 20},
        "unet": {
            **UNET,
            "cross_attention_dim": 80,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 20 + 6 * 8,
        },
        "vae": {**VAE, "scaling_factor": 0.5},
    },
}


def kind_of(name: str) -> type[StableDiffusionBackbone]:
    kind: type[StableDiffusionBackbone] = registry("backbones").load(name)
    return kind


def save_tokenizer(folder: Path, pad: str) -> None:
    from transformers import CLIPTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    kind: Any = CLIPTokenizerFast
    tokenizer = kind(vocab={word: i for i, word in enumerate(words)}, merges=[], pad_token=pad, model_max_length=24)
    tokenizer.save_pretrained(folder)


@pytest.fixture(params=list(TINY))
def backbone(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny model of the card's class, read from a folder under the card's own path."""
    card = registry("backbones").card(request.param)
    kind, options = kind_of(card.id), {**card.options, **TINY[card.id]}
    skeleton = kind(dataclasses.replace(card, options=options), {}, meta=True)
    count = sum(parameter.numel() for parameter in skeleton.model.parameters())
    card = dataclasses.replace(card, options=options, parameters=count)
    monkeypatch.setenv(DATA_ROOT, str(tmp_path))
    root = tmp_path / card.sources[0].path
    torch.manual_seed(0)
    template = kind(card, {}, meta=True)
    for name, part_kind in template._classes().items():
        template._build(name, part_kind).save_pretrained(root / name)
    save_tokenizer(root / "tokenizer", "<|endoftext|>")
    save_tokenizer(root / "tokenizer_2", "!")
    return kind(card, {})


@pytest.mark.parametrize("name", list(TINY))
def test_published_counts(name: str) -> None:
    card = registry("backbones").card(name)
    model = kind_of(name)(card, {}, meta=True).model
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    unet = {"hub-sd-1.5": 859_520_964, "hub-sdxl": 2_567_463_684}[name]  # as the models' cards and papers state them
    assert counts["unet"] == unet and counts["text_encoder"] == 123_060_480 and counts["vae"] == 83_653_863
    assert sum(counts.values()) == card.parameters
    assert {source.revision[:16] for source in card.sources} == {card.weights}


def test_without_files_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match="--data-root"):
        kind_of("hub-sd-1.5")(registry("backbones").card("hub-sd-1.5"), {})


def test_methods_find_the_unet_and_the_vocabularies_alone(backbone: Any) -> None:
    found = {place.name for place in backbone.anatomy.tensors()}
    assert found == {name for name, _ in backbone.model.named_parameters() if name.startswith("unet.")}
    assert (
        len(backbone.anatomy.vocabularies)
        == len(backbone.anatomy.aside)
        == 1 + hasattr(backbone.model, "text_encoder_2")
    )


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_diffusers_draws_the_same(backbone: Any, guidance: float) -> None:
    ours = backbone.sample(backbone.tokens(PROMPTS), [3, 4], steps=3, guidance=guidance)
    assert ours.shape == (2, 16, 16, 3) and ours.float().std() > 1
    pipeline = backbone.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    call = {"num_inference_steps": 3, "guidance_scale": guidance, "generator": seeds, "output_type": "np"}
    images = pipeline(PROMPTS, **call).images
    assert np.abs((images * 255).round() - ours.numpy()).max() <= 1


def test_what_is_denoised_are_scaled_latents(backbone: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    batch = backbone.batch(
        backbone.prepare(Split({"image": images, "text": PROMPTS}, None, ("a", "b"))), torch.arange(2)
    )
    torch.manual_seed(0)
    latents = backbone.latents(batch["pixels"])
    assert latents.shape == (2, 4, 8, 8)
    torch.manual_seed(0)
    drawn = backbone.model.vae.encode(batch["pixels"]).latent_dist.sample()
    assert torch.equal(latents, drawn * backbone.model.vae.config.scaling_factor)
    assert torch.allclose(backbone.pixels(latents), backbone.model.vae.decode(drawn).sample, atol=1e-5)
    for parameter in backbone.model.unet.parameters():
        parameter.requires_grad_(True)
    loss = backbone.noise_loss(batch)
    loss.mean().backward()
    assert loss.shape == (2,) and backbone.model.unet.conv_in.weight.grad.abs().sum() > 0


def test_another_model_in_the_folder_is_refused(backbone: Any) -> None:
    card = dataclasses.replace(backbone.card, parameters=backbone.card.parameters + 1)
    with pytest.raises(AssetError, match=r"holds [\d,]+ parameters"):
        type(backbone)(card, {})
