"""Pretraining the embedded generator: captions are true, a run that was interrupted ends as a whole one, scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.pretraining.diffusion.captions import Scene, caption
from peft_atlas.bench.pretraining.diffusion.examples import Examples, examples_of
from peft_atlas.bench.pretraining.diffusion.material import Material, material
from peft_atlas.bench.pretraining.diffusion.scores import alignment, frechet_distance, nearest
from peft_atlas.bench.pretraining.diffusion.training import Schedule, State, fresh, restore, save, train, write_whole
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.openvocab.shapes import COLOURS
from peft_atlas.tasks.partition import emoji_of

SCHEDULE = Schedule(steps=6, batch=4)
SETTINGS: dict[str, object] = {"size": 16, "rate": SCHEDULE.rate}


def generator() -> Any:
    return registry("backbones").load("tiny-diffusion")(registry("backbones").card("tiny-diffusion"), {})


def colours(backbone: Any) -> Examples:
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    captions = tuple(("red", "a blue one", "a green circle", "grey")[i % 4] for i in range(16))
    return examples_of(Material(images, captions, ("",) * 16), backbone, "float32")


def test_captions_tell_what_leaves_the_usual() -> None:
    rng = np.random.default_rng(0)
    told = [caption(rng, Scene("pear", "red", "small", "left")) for _ in range(200)]
    assert "a drawing of a small pear at the left on a red background" in told
    for words in (" small ", " at the left", " on a red background"):
        assert 0.8 < np.mean([words in text for text in told]) < 1
    usual = {caption(rng, Scene("orange circle")) for _ in range(200)}
    assert "an orange circle" in usual and "an orange circle in the middle on a white background" in usual
    assert not any(word in text for text in usual for word in ("small", "large", "left", "right", "top", "bottom"))


@pytest.mark.assets
def test_what_a_caption_says_is_seen() -> None:
    found = material("diffusion-pretrain", 400, 32, 5, single=True)
    ink: dict[str, list[np.ndarray]] = {}
    for image, text, code in zip(found.images, found.captions, found.shown, strict=True):
        assert code in {emoji.codepoints for emoji in emoji_of("diffusion-pretrain")}
        corner = np.median([image[0, 0], image[0, -1], image[-1, 0], image[-1, -1]], axis=0)
        for colour, rgb in COLOURS.items():
            if f" {colour} background" in text and " large " not in text:
                assert np.abs(corner / 255 - rgb).max() < 0.12, text
        seen = np.argwhere(np.abs(image.astype(float) - corner).sum(axis=-1) > 60)
        if len(seen) and " large " not in text:
            for place in ("left", "right", "top", "bottom"):
                if f" at the {place}" in text:
                    ink.setdefault(place, []).append(seen.mean(axis=0))
    middle = {place: np.mean(centres, axis=0) for place, centres in ink.items()}  # row, column
    assert middle["left"][1] < 13 < 18 < middle["right"][1] and middle["top"][0] < 13 < 18 < middle["bottom"][0]
    again = material("diffusion-pretrain", 3, 32, 5, single=True)
    assert np.array_equal(again.images, found.images[:3]) and again.captions == found.captions[:3]


def test_examples_hold_states_of_each_caption_and_of_none() -> None:
    backbone = generator()
    examples = colours(backbone)
    assert len(examples.states) == 5
    pixels, condition = examples.batch(torch.tensor([1, 2]), torch.tensor([False, True]), torch.device("cpu"))
    assert pixels.shape == (2, 3, 16, 16) and condition.mask is not None
    for row, text in enumerate(("a blue one", "")):
        tokens = backbone.tokens([text])
        wanted = backbone.text_states(tokens["input_ids"], tokens["attention_mask"])[0]
        assert condition.mask[row].sum() == len(wanted)
        assert torch.allclose(condition.hidden[row, : len(wanted)], wanted, atol=5e-3)


def test_an_interrupted_run_ends_as_a_whole_one(tmp_path: Path) -> None:
    whole = _trained(6)
    file = tmp_path / "checkpoint.safetensors"
    save(_trained(3), SETTINGS, file)
    backbone = generator()
    state = fresh(backbone.model.unet, SCHEDULE)
    restore(state, SETTINGS, file)
    assert state.step == 3
    train(backbone, colours(backbone), state, SCHEDULE, 7, "float32", lambda step, loss: None)
    assert state.losses == whole.losses
    for name, mean in whole.means.items():
        assert torch.equal(state.means[name], mean)
    with pytest.raises(ValueError, match="other settings"):
        restore(state, {**SETTINGS, "rate": 1.0}, file)


def _trained(until: int) -> State:
    """A run that is killed after so many steps."""
    backbone = generator()
    state = fresh(backbone.model.unet, SCHEDULE)

    def report(step: int, loss: float) -> None:
        if step == until:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(backbone, colours(backbone), state, SCHEDULE, 7, "float32", report)
    return state


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.json"
    write_whole(file, json.dumps([1]).encode())
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_whole(file, json.dumps([1, 2]).encode())
    assert json.loads(file.read_text()) == [1]


def test_distance_of_two_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(40_000, 3)) * [1.0, 2.0, 3.0]
    other = rng.normal(size=(40_000, 3)) * [2.0, 2.0, 1.0] + [0.0, 1.0, 0.0]
    assert frechet_distance(one, other) == pytest.approx(1 + (1 - 2) ** 2 + (3 - 1) ** 2, rel=0.03)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_alignment_tells_own_captions_from_others() -> None:
    rng = np.random.default_rng(0)
    captions = [f"caption {i % 50}" for i in range(200)]
    texts = np.eye(64)[[i % 50 for i in range(200)]]
    noise = rng.normal(size=(200, 64))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    chance = alignment(noise, texts, captions, np.random.default_rng(1))
    assert abs(chance.wins - 0.5) < 4 * chance.wins_error
    told = alignment(texts, texts, captions, np.random.default_rng(1))
    assert (told.own, told.shuffled, told.wins) == (1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="the same"):
        alignment(texts[:2], texts[:2], ["a", "a"], rng)


def test_nearest_neighbours() -> None:
    points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    places, cosines = nearest(np.array([[0.8, 0.6]]), points, 2)
    assert places.tolist() == [[2, 0]] and cosines[0].tolist() == pytest.approx([0.96, 0.8])
