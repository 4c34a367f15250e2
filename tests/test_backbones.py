"""Backbones: the tiny ones in every test run, the real ones where their assets are cached or can be fetched."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.assets import asset
from peft_atlas.bench.backbones.contract import Backbone
from peft_atlas.bench.backbones.fingerprint import fixed_input, output_fingerprint, verify, weights_fingerprint
from peft_atlas.bench.backbones.tokens import FileTokenizer, HashTokenizer
from peft_atlas.bench.errors import AtlasError
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.contract import Split

INPUTS: dict[str, dict[str, Any]] = {
    "vision": {"image_size": 56, "normalisation": "imagenet"},
    "video": {"image_size": 42, "normalisation": "imagenet", "frames": 8},
    "text": {"max_tokens": 64},
    "lm": {"max_tokens": 64},
    "clip": {"image_size": 56, "normalisation": "imagenet", "max_tokens": 64},
}
TINY = ["tiny-vit", "tiny-video", "tiny-bert", "tiny-llama", "tiny-clip", "tiny-open-clip"]
SEEING = ("dinov2-small", "dinov2-small-video")
WHOLE = (*SEEING, "embedded-clip", "minilm-l6", "smollm2-135m")
REAL = [pytest.param(name, marks=pytest.mark.assets) for name in WHOLE]
RANDOM = ["dinov2-small-random", pytest.param("minilm-l6-random", marks=pytest.mark.assets), *TINY]
ACCENTED = "Ünïcode 🎉 twice,  don't stop 1234.\n"


def make(name: str, meta: bool = False, **inputs: Any) -> Backbone:
    card = registry("backbones").card(name)
    kind: Callable[..., Backbone] = registry("backbones").load(name)
    return kind(card, {**INPUTS[card.family], **inputs}, meta=meta)


def texts(*items: str, labels: np.ndarray | None = None) -> Split:
    return Split({"text": list(items)}, labels, tuple(f"item/{i}" for i in range(len(items))))


def everything(backbone: Backbone, split: Split) -> dict[str, torch.Tensor]:
    return backbone.batch(backbone.prepare(split), torch.arange(len(split)))


def parameters(backbone: Backbone) -> int:
    return sum(parameter.numel() for parameter in backbone.model.parameters())


@pytest.mark.parametrize("name", [*TINY, *REAL, "dinov2-small-random"])
def test_the_card_states_the_frozen_model(name: str) -> None:
    backbone = make(name)
    assert parameters(backbone) == backbone.card.parameters
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert not any(module.training for module in backbone.model.modules())


@pytest.mark.parametrize("name", ["dinov2-small", "minilm-l6", "smollm2-135m", *TINY])
def test_the_architecture_alone_needs_no_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__(type(make("tiny-bert")).__module__, fromlist=["asset"])
    monkeypatch.setattr(module, "asset", lambda asset_id: pytest.fail(f"asked for {asset_id}"))
    backbone = make(name, meta=True)
    assert parameters(backbone) == backbone.card.parameters
    assert {parameter.device.type for parameter in backbone.model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", REAL)
def test_real_weights_are_those_of_the_card(name: str) -> None:
    backbone = make(name)
    assert weights_fingerprint(backbone.published()) == backbone.card.weights  # type: ignore[attr-defined]
    assert backbone.card.output["inputs"] == INPUTS[backbone.card.family]


@pytest.mark.parametrize("name", RANDOM)
def test_random_weights_are_those_of_the_card(name: str) -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch draws normal numbers that differ in the last bit on this processor")
    assert weights_fingerprint(make(name).model.state_dict()) == registry("backbones").card(name).weights


@pytest.mark.parametrize("name", TINY)
def test_drawing_weights_leaves_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = make(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second = make(name)
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", TINY)
def test_a_changed_weight_is_noticed(name: str) -> None:
    backbone = make(name)
    found = output_fingerprint(backbone)
    card = dataclasses.replace(backbone.card, output={"inputs": backbone.options, **found})
    backbone.card = card
    verify(backbone)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.1)
    with pytest.raises(AtlasError, match=name):
        verify(backbone)


@pytest.mark.parametrize("name", TINY)
def test_items_are_prepared_and_batched(name: str) -> None:
    backbone = make(name)
    split = dataclasses.replace(fixed_input(backbone.card.family, 56), labels=np.array([1, 0]))
    prepared = backbone.prepare(split)
    assert all(len(tensor) == 2 and tensor.device.type == "cpu" for tensor in prepared.values())
    assert not any(tensor.is_floating_point() for tensor in prepared.values())
    batch = backbone.batch(prepared, torch.tensor([1]))
    assert batch["labels"].tolist() == [0] and batch["index"].tolist() == [1]
    assert backbone.encode(batch).shape == (1, backbone.width)
    assert "labels" not in backbone.prepare(fixed_input(backbone.card.family, 56))


def test_pixels_are_normalised_by_channel() -> None:
    image = np.zeros((1, 28, 28, 3), np.uint8)
    image[..., 0], image[..., 1] = 255, 51
    split = Split({"image": image}, None, ("item/0",))
    pixels = everything(make("tiny-vit", image_size=28), split)["pixels"][0, :, 3, 4]
    wanted = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert torch.allclose(pixels, torch.tensor(wanted))
    pixels = everything(make("tiny-vit", image_size=28, normalisation="half"), split)["pixels"][0, :, 3, 4]
    assert torch.allclose(pixels, torch.tensor([1.0, -0.6, -1.0]))


def test_images_keep_their_place_and_are_resized_when_they_must_be() -> None:
    image = np.zeros((1, 56, 56, 3), np.uint8)
    image[0, :28, 28:, 1] = 200  # the upper right quarter, green
    split = Split({"image": image}, None, ("item/0",))
    kept = make("tiny-vit", image_size=56).prepare(split)["pixels"]
    assert torch.equal(kept.permute(0, 2, 3, 1), torch.from_numpy(image))
    small = make("tiny-vit", image_size=28).prepare(split)["pixels"]
    assert small.shape == (1, 3, 28, 28) and small.dtype == torch.uint8
    assert small[0, 1, 2, 25] == 200 and small[0, 1, 25, 2] == 0 and not small[0, 0].any()


def test_a_clip_is_the_mean_of_its_frames_and_loses_those_between_them() -> None:
    """Two of nine frames, in the middle of each half; the image backbone has the same weights."""
    video, image = make("tiny-video", frames=2, image_size=28), make("tiny-vit", image_size=28)
    video.model.encoder.load_state_dict(image.model.state_dict())  # type: ignore[union-attr]
    clips = np.random.default_rng(0).integers(0, 256, (3, 9, 56, 28, 3), dtype=np.uint8)
    items = ("clip/0", "clip/1", "clip/2")
    kept = Split({"clip": clips}, None, items)
    with torch.no_grad():
        features = video.encode(everything(video, kept))
        frames = [image.encode(everything(image, Split({"image": clips[:, i]}, None, items))) for i in (2, 6)]
    assert video.prepare(kept)["pixels"].shape == (3, 2, 3, 28, 28)
    assert torch.allclose(features, (frames[0] + frames[1]) / 2, atol=1e-6)
    short = Split({"clip": clips[:, :1]}, None, items)  # a still repeats itself
    assert torch.equal(video.prepare(short)["pixels"][:, 0], video.prepare(short)["pixels"][:, 1])


@pytest.mark.parametrize("name", ["tiny-bert", pytest.param("minilm-l6", marks=pytest.mark.assets)])
def test_padding_does_not_change_features(name: str) -> None:
    backbone = make(name)
    short, long = "A fine film.", "It is not what one would call a masterpiece, and yet it moves. " * 3
    together = everything(backbone, texts(short, long))
    alone = everything(backbone, texts(short))
    assert alone["input_ids"].shape[1] < together["input_ids"].shape[1]
    with torch.no_grad():
        assert torch.allclose(backbone.encode(together)[:1], backbone.encode(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-llama", pytest.param("smollm2-135m", marks=pytest.mark.assets)])
def test_padding_does_not_change_token_scores(name: str) -> None:
    backbone = make(name)
    together = everything(backbone, texts("A fine film.", "It is not what one would call a masterpiece, and yet."))
    alone = everything(backbone, texts("A fine film."))
    length = alone["input_ids"].shape[1]
    assert length < together["input_ids"].shape[1]
    with torch.no_grad():
        scores, features = backbone.logits(together), backbone.encode(together)
        assert torch.allclose(scores[:1, :length], backbone.logits(alone), rtol=1e-3, atol=1e-3)
        assert torch.allclose(features[:1], backbone.encode(alone), rtol=1e-3, atol=1e-3)
    assert features.shape == (2, backbone.width)


def test_token_scores_look_at_the_past_only() -> None:
    backbone = make("tiny-llama")
    batch = everything(backbone, texts("one two three four five"))
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, -1] = 9
    with torch.no_grad():
        scores, others = backbone.logits(batch), backbone.logits(changed)
    assert torch.equal(scores[0, :-1], others[0, :-1]) and not torch.equal(scores[0, -1], others[0, -1])


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-llama"])
def test_a_batch_holds_no_column_of_padding_and_no_text_beyond_the_limit(name: str) -> None:
    backbone = make(name, max_tokens=12)
    prepared = backbone.prepare(texts("one two", "word " * 50, "one two three"))
    assert prepared["attention_mask"].sum(1).tolist() == [3, 12, 4]
    batch = backbone.batch(prepared, torch.tensor([0, 2]))
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 4)


def test_hashed_words_are_the_same_on_every_machine() -> None:
    """Ids from a CRC-32 computed by another implementation: zlib's checksums of "film" and ".", modulo 254, plus 2."""
    (ids, covered), (short, _) = HashTokenizer(256).encode(["Film.", "a b c d"], limit=3, special=True)
    assert ids == [1, 2 + crc32(b"film") % 254, 2 + crc32(b".") % 254] and covered == 5
    assert len(short) == 3


def crc32(data: bytes) -> int:
    """CRC-32 bit by bit, from its definition (polynomial EDB88320, reflected)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.assets
def test_bytes_are_those_of_the_kept_text() -> None:
    backbone = make("smollm2-135m", meta=True, max_tokens=64)
    tokenizer = FileTokenizer(asset("smollm2-135m-instruct") / "tokenizer.json").tokenizer
    plain = "The film was a delight, and its end was not. " * 3
    prepared = backbone.prepare(texts(ACCENTED, plain))
    assert prepared["bytes"].tolist() == [len(ACCENTED.encode()), len(plain.encode())]
    assert prepared["input_ids"][:, 0].tolist() == [0, 0]
    kept = make("smollm2-135m", meta=True, max_tokens=11).prepare(texts(plain))
    assert kept["bytes"].item() == len(tokenizer.decode(kept["input_ids"][0, 1:].tolist()).encode())
    assert kept["input_ids"].shape == (1, 11)


@pytest.mark.assets
def test_the_restored_tokenizer_splits_digits_and_loses_nothing() -> None:
    tokenizer = FileTokenizer(asset("smollm2-135m-instruct") / "tokenizer.json").tokenizer
    ids = tokenizer.encode(ACCENTED).ids
    assert tokenizer.decode(ids) == ACCENTED
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1234").ids] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("name", REAL[len(SEEING) + 1 :])
def test_the_card_repeats_the_config_of_the_asset(name: str) -> None:
    card = registry("backbones").card(name)
    published = json.loads((asset(card.assets[0]) / "config.json").read_text(encoding="utf-8"))
    stated = card.options["config"]
    shared = stated.keys() & published.keys()
    assert len(shared) >= 10
    assert {key: stated[key] for key in shared} == {key: published[key] for key in shared}


@pytest.mark.assets
def test_the_position_table_follows_the_image_size() -> None:
    backbone = make("dinov2-small")
    grid = backbone.published()["pos_embed"][0, 1:].reshape(37, 37, 384)  # type: ignore[attr-defined]
    small, large = position_table(backbone), position_table(make("dinov2-small", image_size=98))
    assert (len(small), len(large)) == (1 + 16, 1 + 49)
    assert torch.equal(small[0], large[0])
    for table, side in ((small, 4), (large, 7)):
        places = table[1:].reshape(side, side, 384)
        middle, corner = places[side // 2, side // 2], places[0, 0]
        nearness = [torch.cosine_similarity(place, grid[18, 18], dim=0) for place in (middle, corner)]
        assert nearness[0] > nearness[1]


def position_table(backbone: Backbone) -> torch.Tensor:
    return dict(backbone.model.named_parameters())["pos_embed"][0]


@pytest.mark.assets
def test_sentences_of_one_meaning_lie_together() -> None:
    """What all-MiniLM-L6-v2 was trained for; random weights and misread layers fail it."""
    backbone = make("minilm-l6")
    said = ("A man is playing a guitar.", "Someone plays the guitar.", "The stock market fell sharply today.")
    with torch.no_grad():
        features = torch.nn.functional.normalize(backbone.encode(everything(backbone, texts(*said))), dim=1)
    alike = features @ features.T
    assert alike[0, 1] > 0.7 and alike[0, 2] < 0.2 and alike[1, 2] < 0.2


@pytest.mark.assets
def test_the_restored_decoder_continues_a_sentence() -> None:
    """Rows of q and k in the wrong order, or a wrong rotary base, would not leave English."""
    backbone = make("smollm2-135m")
    batch = everything(backbone, texts("The capital of France is"))
    tokenizer = FileTokenizer(asset("smollm2-135m-instruct") / "tokenizer.json").tokenizer
    with torch.no_grad():
        assert tokenizer.decode([int(backbone.logits(batch)[0, -1].argmax())]) == " Paris"
