"""Which of 20 emoji stands before a cluttered ground: any size, turned, recoloured, on crops of two photographs.

The left part of each photograph is for train, the right part for test.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..contract import Split, SplitName
from .built_once import BuiltOnce
from .drawing import SIZE, generator, shuffled_labels, to_pixels
from .pictures import emoji_pictures, over, posed

if TYPE_CHECKING:
    from PIL import Image

SEED = 301
CODEPOINTS = (  # in the order of the card's classes; all of the partition's vision share
    *("1f419", "1f418", "1f427", "1f41d", "1f98b", "1f40c", "1f981", "1f988", "1f34d", "1f354"),
    *("1f955", "2615", "1f3ba", "1f3b7", "1f527", "2702", "2693", "1f4a1", "1f681", "1f3c6"),
)
PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # 640 x 427, shipped with scikit-learn
EXTENT = (0.40, 0.75)  # of the picture's side
ANGLE = 45.0  # degrees to either side
CROP = (64, 200)  # pixels of the photograph
GAIN = (0.55, 1.15)  # of each colour channel, after the hue was turned

TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


class Clutter(BuiltOnce):
    """Twenty emoji whose colour, size, angle and surroundings say nothing about which they are."""

    def make(self, split: SplitName) -> Split:
        """Items are named by number: "clutter/train/17"."""
        items = self.card.sizes[split]
        labels = shuffled_labels(generator(SEED, split), items, len(CODEPOINTS))
        pictures = emoji_pictures(CODEPOINTS)
        images = np.empty((items, SIZE, SIZE, 3), dtype=np.uint8)
        for item, label in enumerate(labels):
            rng = generator(SEED, split, item)
            extent, angle = SIZE * rng.uniform(*EXTENT), rng.uniform(-ANGLE, ANGLE)
            colours, opacity = posed(pictures[CODEPOINTS[label]], extent, angle, rng.random(), rng.random())
            images[item] = to_pixels(over(recoloured(rng, colours), opacity, photograph_crop(rng, split)))
        return Split({"image": images}, labels, tuple(f"clutter/{split}/{item}" for item in range(items)))


def recoloured(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """Hue turned by any angle (in the IQ plane, so lightness stays), then each channel scaled."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turned: np.ndarray = np.clip(colours @ (FROM_YIQ @ turn @ TO_YIQ).T * rng.uniform(*GAIN, size=3), 0.0, 1.0)
    return turned


def photograph_crop(rng: np.random.Generator, split: SplitName) -> np.ndarray:
    """A square of one photograph's half, mirrored half of the time: float64 (56, 56, 3) in 0..1."""
    from PIL import Image

    half = halves(split)[rng.integers(len(PHOTOGRAPHS))]
    side = int(rng.integers(*CROP, endpoint=True))
    left, top = int(rng.integers(half.width - side + 1)), int(rng.integers(half.height - side + 1))
    crop = half.resize((SIZE, SIZE), Image.Resampling.BOX, box=(left, top, left + side, top + side))
    values = np.asarray(crop, dtype=np.float64) / 255.0
    return values[:, ::-1] if rng.random() < 0.5 else values


@lru_cache(maxsize=2)
def halves(split: SplitName) -> tuple[Image.Image, ...]:
    """The left (train) or right (test) half of each photograph."""
    from PIL import Image

    spec = find_spec("sklearn")  # found without importing it, which would take a second
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("scikit-learn, which carries the photographs, is not installed")
    folder = Path(spec.origin).parent / "datasets" / "images"
    parts = []
    for name in PHOTOGRAPHS:
        photograph = Image.open(folder / name).convert("RGB")
        middle = photograph.width // 2
        left, right = (0, middle) if split == "train" else (middle, photograph.width)
        parts.append(photograph.crop((left, 0, right, photograph.height)))
    return tuple(parts)
