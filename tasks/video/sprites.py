"""Pictures that move: digits of MNIST and emoji, scaled, with their opacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...bench.assets import asset
from ..contract import SplitName
from ..vision.emoji import emoji_of_part
from ..vision.pictures import emoji_pictures

if TYPE_CHECKING:
    from PIL import Image

DEAL = 701  # seed of the digits' deal to the splits
TEST_SHARE = 0.4


@dataclass(frozen=True)
class Sprite:
    """Colours (H, W, 3) and opacity (H, W, 1), float64 in 0..1."""

    colours: np.ndarray
    opacity: np.ndarray


class Sprites(Protocol):
    """Pictures to choose from."""

    def choose(self, rng: np.random.Generator, side: int) -> Sprite:
        """One of them, `side` pixels high and wide."""
        ...


class Digits:
    """White digits, from the part of the asset that belongs to a split."""

    def __init__(self, split: SplitName) -> None:
        with np.load(asset("mnist-5k") / "mnist.npz") as digits:
            images = digits["images"]
        rows = np.random.Generator(np.random.PCG64(DEAL)).permutation(len(images))
        cut = round(TEST_SHARE * len(rows))
        self.images = images[rows[:cut] if split == "test" else rows[cut:]]

    def choose(self, rng: np.random.Generator, side: int) -> Sprite:
        """A digit; where there is no ink it is transparent."""
        from PIL import Image

        digit = Image.fromarray(self.images[rng.integers(len(self.images))])
        ink = np.asarray(digit.resize((side, side), Image.Resampling.BOX), dtype=np.float64) / 255.0
        return Sprite(np.ones((side, side, 3)), ink[..., None])


class Emoji:
    """Emoji by their code points."""

    def __init__(self, codepoints: tuple[str, ...]) -> None:
        pictures = emoji_pictures(codepoints)
        self.pictures: list[Image.Image] = [pictures[code] for code in codepoints]

    def choose(self, rng: np.random.Generator, side: int) -> Sprite:
        """Any of them."""
        return self.scaled(int(rng.integers(len(self.pictures))), side)

    def scaled(self, number: int, side: int) -> Sprite:
        """The one of this number."""
        from PIL import Image

        values = np.asarray(self.pictures[number].resize((side, side), Image.Resampling.BOX), dtype=np.float64) / 255.0
        return Sprite(values[..., :3], values[..., 3:])


def emoji_of_split(split: SplitName) -> Emoji:
    """The emoji of the partition's vision share that the emoji task gives to a split, look-alikes on one side."""
    return Emoji(tuple(emoji.codepoints for emoji in emoji_of_part("test" if split == "test" else "fit")))
