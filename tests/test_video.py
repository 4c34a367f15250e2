"""The rendered video tasks: labels are right, and single frames do not tell them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.contract import Split
from peft_atlas.tasks.video.clips import FRAMES, SIZE, lay, towards
from peft_atlas.tasks.video.sprites import Digits, Emoji, Sprite, emoji_of_split

TASKS = ("moving-mnist-direction", "moving-mnist-meeting", "moving-emoji-speed", "emoji-order")
pytestmark = pytest.mark.assets


def load(name: str) -> Any:
    tasks = registry("tasks")
    return tasks.load(name)(tasks.card(name))


@cache
def drawn(name: str, split: str) -> Split:
    made: Split = load(name).build(split)
    return made


@pytest.mark.parametrize("name", TASKS)
def test_data_are_those_of_the_card(name: str) -> None:
    card = load(name).card
    for split in ("train", "test"):
        data = drawn(name, split)
        assert data.inputs["clip"].shape == (card.sizes[split], FRAMES, SIZE, SIZE, 3)
        assert data.inputs["clip"].dtype == np.uint8 and len(set(data.items)) == len(data)
        assert data.fingerprint() == card.fingerprints[split]
        assert data.labels is not None
        for labels in (data.labels, data.labels[:320]):  # also where tuning cuts
            counts = np.bincount(labels, minlength=len(card.classes))
            assert len(counts) == len(card.classes) and counts.max() - counts.min() <= 1
    short = type(load(name))(replace(card, sizes={"train": 9}, fingerprints={})).build("train")
    assert short.fingerprint() == drawn(name, "train").take(np.arange(9)).fingerprint()


@pytest.mark.parametrize("name", TASKS)
def test_classes_have_the_same_mean_of_what_single_frames_show(name: str) -> None:
    """Pixels averaged over frames: a class's mean is as far from the others' as chance alone puts it.

    The mean of squared z-scores is 1 where classes agree. Neighbouring pixels are alike, hence the slack.
    """
    found = []
    for split in (drawn(name, "train"), drawn(name, "test")):
        averaged = _small(split).mean(axis=1).reshape(len(split), -1)
        for label in range(len(load(name).card.classes)):
            own, others = averaged[split.labels == label], averaged[split.labels != label]
            variance = own.var(axis=0) / len(own) + others.var(axis=0) / len(others)
            shown = variance > 1e-7  # the corners that no digit reaches
            found.append(((own.mean(axis=0) - others.mean(axis=0))[shown] ** 2 / variance[shown]).mean())
    assert 0.3 < np.mean(found) < 1.6


def _small(split: Split) -> np.ndarray:
    """(N, frames, 14, 14, 3), in 0..1."""
    clips = split.inputs["clip"].astype(np.float32) / 255
    small: np.ndarray = clips.reshape(len(clips), FRAMES, 14, 3, 14, 3, 3).mean(axis=(3, 5))
    return small


def shifts(clip: np.ndarray) -> np.ndarray:
    """(frames - 1, 2): by how many pixels (x, y) a picture moved from frame to frame, on a ground without an edge.

    The place of the largest circular correlation.
    """
    grey = clip.astype(np.float64).mean(-1)
    spectra = np.fft.fft2(grey - np.median(grey))
    correlation = np.fft.ifft2(spectra[1:] * spectra[:-1].conj()).real
    places = [np.unravel_index(frame.argmax(), frame.shape) for frame in correlation]
    found: np.ndarray = np.array([[(x + SIZE // 2) % SIZE - SIZE // 2, (y + SIZE // 2) % SIZE - SIZE // 2]
                                  for y, x in places])  # fmt: skip
    return found


def test_a_digit_moves_where_its_label_says_and_its_frames_backwards_the_other_way() -> None:
    data = drawn("moving-mnist-direction", "test")
    assert data.labels is not None
    for clip, label in zip(data.inputs["clip"][:80], data.labels, strict=False):
        for frames, angle in ((clip, 45 * label), (clip[::-1], 45 * label + 180)):
            total = shifts(frames).sum(axis=0)
            assert total @ towards(angle) / np.linalg.norm(total) > 0.97
            assert 20 < np.linalg.norm(total) < 46


def test_an_emoji_moves_as_fast_as_its_label_says() -> None:
    data = drawn("moving-emoji-speed", "test")
    assert data.labels is not None
    for clip, label in zip(data.inputs["clip"][:80], data.labels, strict=False):
        speed = np.linalg.norm(shifts(clip).mean(axis=0))
        assert speed == pytest.approx((1.0, 2.5, 5.0, 9.0)[label], rel=0.2, abs=0.3)


class Flat(Emoji):
    """Squares of one colour: red, green, blue."""

    def __init__(self) -> None:
        self.pictures = []

    def scaled(self, number: int, side: int) -> Sprite:
        return Sprite(np.ones((side, side, 1)) * np.eye(3)[number], np.ones((side, side, 1)))


class InTurn:
    """A red square, then a green one."""

    def __init__(self) -> None:
        self.given = 0

    def choose(self, rng: np.random.Generator, side: int) -> Sprite:
        self.given += 1
        return Flat().scaled(self.given - 1, side)


def pure(frame: np.ndarray, channel: int) -> np.ndarray:
    """Where one channel alone is at its maximum (H, W)."""
    return (frame[..., channel] == 1) & (frame.sum(-1) == 1)


def test_emoji_appear_in_the_order_of_their_label() -> None:
    task = load("emoji-order")
    names = [order.split("-") for order in task.card.classes]
    assert len(names) == 6 and {tuple(order) for order in names} == set(permutations(names[0]))
    empty: set[tuple[int, ...]] = set()
    for label in range(6):
        for seed in range(20):
            clip = task.draw(np.random.default_rng(seed), label, Flat())
            seen = [[c for c in range(3) if pure(frame, c).any()] for frame in clip]
            assert all(len(channels) <= 1 for channels in seen)
            order = [channels[0] for channels in seen if channels]
            assert [names[0][c] for c in order[::2]] == names[label] and order[::2] == order[1::2]
            empty.add(tuple(i for i, channels in enumerate(seen) if not channels))
    assert len(empty) > 5  # the empty frames lie anywhere


def test_digits_that_pass_change_sides_and_digits_that_bounce_do_not() -> None:
    task = load("moving-mnist-meeting")
    for seed in range(20):
        ways = []
        for label in range(2):
            clip = task.draw(np.random.default_rng(seed), label, InTurn())
            centres = [[np.argwhere(pure(frame, c)).mean(0) for c in range(2)] for frame in clip[[0, -1]]]
            ways.append(np.array(centres))  # (first and last frame, red and green, y and x)
        passing, bouncing = ways
        assert np.allclose(passing[0], bouncing[0]) and np.allclose(bouncing[0], bouncing[1], atol=1.5)
        assert np.allclose(passing[0], passing[1, ::-1], atol=1.5)
        assert np.linalg.norm(passing[0, 0] - passing[0, 1]) > 18


def test_what_leaves_on_one_side_comes_in_on_the_other() -> None:
    frame = np.zeros((SIZE, SIZE, 3))
    lay(frame, Sprite(np.ones((4, 6, 3)), np.full((4, 6, 1), 0.5)), np.array([0.0, 41.0]))
    rows, columns = np.nonzero(frame[..., 0])
    assert set(rows) == {39, 40, 41, 0} and set(columns) == {39, 40, 41, 0, 1, 2} and frame.max() == 0.5


def test_no_digit_and_no_emoji_is_in_both_splits() -> None:
    train, test = ({picture.tobytes() for picture in sprites.images} for sprites in (Digits("train"), Digits("test")))
    assert not train & test and min(len(train), len(test)) > 1900
    train, test = (
        {picture.tobytes() for picture in sprites.pictures}
        for sprites in (emoji_of_split("train"), emoji_of_split("test"))
    )
    assert not train & test and min(len(train), len(test)) > 200
