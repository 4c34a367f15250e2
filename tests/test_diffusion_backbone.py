"""Generators: what they draw, what they learn, and that diffusers draws the same with the same modules."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.backbones.diffusion import DiffusionBackbone
from peft_atlas.bench.backbones.fingerprint import fixed_input, output_fingerprint, verify, weights_fingerprint
from peft_atlas.bench.drift import Probe
from peft_atlas.bench.errors import AssetError, AtlasError, UsageError
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.contract import Split

PROMPTS = ["a red circle", "a small blue square on a yellow background"]


def make(name: str = "tiny-diffusion", meta: bool = False, **inputs: Any) -> Any:
    return registry("backbones").load(name)(registry("backbones").card(name), inputs, meta=meta)


def red_and_blue(items: int = 16) -> Split:
    """Plain pictures with a slope, by name."""
    images = np.zeros((items, 16, 16, 3), np.uint8)
    images[0::2, :, :, 0], images[1::2, :, :, 2] = 220, np.arange(0, 240, 15)
    texts = [("red", "blue")[i % 2] for i in range(items)]
    seeds = np.arange(items)
    return Split({"image": images, "text": texts, "seed": seeds}, None, tuple(f"item/{i}" for i in range(items)))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_the_card_states_the_frozen_model() -> None:
    backbone = make()
    parameters = list(backbone.model.parameters())
    assert sum(parameter.numel() for parameter in parameters) == backbone.card.parameters
    assert not any(parameter.requires_grad for parameter in parameters)
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert weights_fingerprint(backbone.published()) == backbone.card.weights
    skeleton = make(meta=True)
    assert {parameter.device.type for parameter in skeleton.model.parameters()} == {"meta"}
    shapes = {name: tensor.shape for name, tensor in skeleton.model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in backbone.published().items()}


def test_the_embedded_card_states_its_architecture() -> None:
    skeleton = make("embedded-diffusion", meta=True)
    assert sum(parameter.numel() for parameter in skeleton.model.parameters()) == skeleton.card.parameters
    assert skeleton.size == 32 and skeleton.shape == (12, 16, 16)
    card = dataclasses.replace(skeleton.card, options={**skeleton.card.options, "trained": "absent.safetensors"})
    with pytest.raises(AssetError, match=r"absent\.safetensors is not beside its card"):
        type(skeleton)(card, {})


def test_the_anatomy_holds_all_of_unet_and_text_encoder() -> None:
    backbone = make()
    assert len(backbone.anatomy.towers) == 5 and "text" in backbone.anatomy.towers
    assert {place.name for place in backbone.anatomy.tensors()} == {n for n, _ in backbone.model.named_parameters()}
    assert not list(backbone.anatomy.head_parameters())


def test_pictures_and_prompts_are_prepared() -> None:
    backbone = make()
    prepared = backbone.prepare(red_and_blue(4))
    assert prepared["pixels"].dtype == torch.uint8 and prepared["pixels"].shape == (4, 3, 16, 16)
    assert prepared["seed"].tolist() == [0, 1, 2, 3]
    batch = backbone.batch(prepared, torch.tensor([0, 2]))
    assert batch["pixels"][0, :, 3, 4].tolist() == pytest.approx([220 / 127.5 - 1, -1, -1])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 5)  # [CLS] r e d [SEP]
    assert "pixels" not in backbone.prepare(Split({"text": PROMPTS}, None, ("a", "b")))


def test_an_image_depends_on_its_prompt_and_seed_alone() -> None:
    backbone = make()
    torch.manual_seed(0)
    together = backbone.sample(backbone.tokens(PROMPTS), [3, 4], steps=4)
    assert together.shape == (2, 16, 16, 3) and together.dtype == torch.uint8
    torch.manual_seed(1)
    for i, prompt in enumerate(PROMPTS):
        alone = backbone.sample(backbone.tokens([prompt]), [3 + i], steps=4)
        assert (alone.int() - together[i].int()).abs().max() <= 1  # other sums of floats round otherwise
    changed = [
        backbone.sample(backbone.tokens(PROMPTS), [3, 5], steps=4)[1],
        backbone.sample(backbone.tokens([PROMPTS[0], "a cat"]), [3, 4], steps=4)[1],
        backbone.sample(backbone.tokens(PROMPTS), [3, 4], steps=4, guidance=9.0)[1],
        backbone.sample(backbone.tokens(PROMPTS), [3, 4], steps=5)[1],
    ]
    for image in changed:
        assert (image.int() - together[1].int()).abs().max() > 1


def patched() -> Any:
    """The tiny generator with squares of 2 x 2 pixels as positions."""
    card = registry("backbones").card("tiny-diffusion")
    unet = {**card.options["unet"], "sample_size": 8, "in_channels": 12, "out_channels": 12}
    return type(make())(dataclasses.replace(card, options={**card.options, "unet": unet, "patch": 2}), {})


def test_squares_of_pixels_lose_nothing() -> None:
    backbone = patched()
    pixels = backbone.batch(backbone.prepare(red_and_blue(4)), torch.arange(4))["pixels"]
    assert backbone.latents(pixels).shape == (4, *backbone.shape) == (4, 12, 8, 8)
    assert torch.equal(backbone.pixels(backbone.latents(pixels)), pixels)


@pytest.mark.parametrize(("guidance", "build"), [(1.0, make), (4.0, make), (4.0, patched)])
def test_diffusers_draws_the_same(guidance: float, build: Any, tmp_path: Any) -> None:
    backbone = build()
    ours = backbone.sample(backbone.tokens(PROMPTS), [3, 4], steps=4, guidance=guidance)
    pipeline = backbone.pipeline()
    pipeline.save_pretrained(tmp_path)
    for drawn in (pipeline, type(pipeline).from_pretrained(tmp_path)):
        drawn.set_progress_bar_config(disable=True)
        call = {"num_inference_steps": 4, "guidance_scale": guidance, "generator": generators(3, 4)}
        images = drawn(PROMPTS, output_type="np", **call).images
        assert np.abs((images * 255).round() - ours.numpy()).max() <= 1


def test_training_lowers_the_loss_and_brings_the_colours() -> None:
    backbone: DiffusionBackbone = make()
    batch = backbone.batch(backbone.prepare(red_and_blue()), torch.arange(16))
    parameters = list(backbone.model.unet.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.0)
    torch.manual_seed(0)
    losses = []
    for _ in range(80):
        loss = backbone.noise_loss(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:5])
    red, blue = backbone.sample(backbone.tokens(["red", "blue"]), [0, 1], steps=10).float().mean((1, 2))
    assert red[0] > 150 > 60 > red[2] and blue[2] > 60 > blue[0]


def test_the_loss_is_an_items_own_and_of_the_schedules_target() -> None:
    backbone = make()
    batch = backbone.batch(backbone.prepare(red_and_blue(4)), torch.arange(4))
    assert backbone.noise_loss(batch).shape == (4,)
    with torch.no_grad():
        for parameter in backbone.model.unet.conv_out.parameters():
            parameter.zero_()
    condition = backbone.condition(batch["input_ids"], batch["attention_mask"])
    loss = backbone.squared_errors(batch["pixels"], condition, torch.tensor([999, 999, 0, 0]))
    # what is predicted is 0 now: at the last step, which is all noise, the velocity is -pixels, at the first the noise
    assert torch.allclose(loss[:2], batch["pixels"].square().mean((1, 2, 3))[:2], rtol=1e-4)
    assert torch.allclose(loss[2:], torch.ones(2), rtol=0.2)


def test_a_placeholder_is_the_next_row_of_the_embedding() -> None:
    backbone = make()
    embedding = backbone.anatomy.towers["text"].embedding
    before = backbone.text_states(**_ids(backbone, ["a dog"]))
    assert backbone.tokenizer.add_placeholder("<new1>") == embedding.vocabulary
    assert backbone.tokenizer.add_placeholder("<new2>") == embedding.vocabulary + 1
    assert backbone.tokenizer.add_placeholder("<new1>") == embedding.vocabulary
    assert backbone.tokens(["a <new1> dog"])["input_ids"][0].tolist().count(embedding.vocabulary) == 1
    rows = embedding.rows(2)
    with torch.no_grad():
        rows.normal_()
    states = backbone.text_states(**_ids(backbone, ["a <new1> dog", "a <new2> dog"]))
    assert not torch.allclose(states[0], states[1])
    assert torch.equal(backbone.text_states(**_ids(backbone, ["a dog"])), before)
    with pytest.raises(UsageError, match="'a' is a known word"):
        backbone.tokenizer.add_placeholder("a")


def _ids(backbone: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    tokens = backbone.tokens(texts)
    return {"ids": tokens["input_ids"], "mask": tokens["attention_mask"]}


def test_a_changed_weight_is_noticed() -> None:
    backbone = make()
    card = dataclasses.replace(backbone.card, output={"inputs": backbone.options, **output_fingerprint(backbone)})
    backbone.card = card
    verify(backbone)
    with torch.no_grad():
        backbone.model.unet.up_blocks[-1].resnets[-1].conv2.weight.mul_(1.5)
    with pytest.raises(AtlasError, match="tiny-diffusion"):
        verify(backbone)


def test_drift_is_seen_in_what_is_predicted() -> None:
    backbone = make()
    probe = Probe(backbone)
    assert probe.drift().value == pytest.approx(0, abs=1e-9) and probe.drift().items == 64
    with torch.no_grad():
        backbone.model.unet.mid_block.resnets[0].conv1.weight.normal_()
    assert probe.drift().value > 1e-4


def test_features_are_of_pictures_with_their_prompts() -> None:
    backbone = make()
    batch = backbone.batch(backbone.prepare(fixed_input("diffusion", 16)), torch.arange(2))
    assert backbone.encode(batch).shape == (2, backbone.width) == (2, 3 * 16 * 16)
