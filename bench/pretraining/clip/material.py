"""Pictures with all the sentences that are true of each: views of emoji, and scenes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ....tasks.openvocab.casting import random_scene
from ....tasks.openvocab.emoji_names import emoji_names, named_emoji
from ....tasks.openvocab.scenes import Thing, Use, coloured_shapes, draw, scene_generator
from ....tasks.openvocab.sentences import article, sentences
from ....tasks.partition import Emoji, emoji_of
from ....tasks.partition.dealing import deal_by_category
from ....tasks.vision.clutter import photograph_crop
from ....tasks.vision.drawing import SIZE, to_pixels
from ....tasks.vision.pictures import emoji_pictures, over, posed

Part = Literal["fit", "validation"]

SEED = 911
SALT = "clip alignment 1"
PARTS: dict[Part, float] = {"fit": 0.8, "validation": 0.2}
EXTENT = (0.5, 1.0)  # of the picture's side
ANGLE = 20.0  # degrees to either side
GROUNDS = (0.4, 0.4, 0.2)  # how often white, any plain colour, a photograph
SHAPES_ONLY = 0.7  # share of scenes without emoji


@dataclass(frozen=True)
class Material:
    """`truths[i]` holds every sentence that is true of `images[i]`, uint8 (N, 56, 56, 3)."""

    images: np.ndarray
    truths: tuple[tuple[str, ...], ...]


def joined(materials: Iterable[Material]) -> Material:
    """All pictures, in the order of the materials."""
    parts = list(materials)
    return Material(np.concatenate([part.images for part in parts]), sum((part.truths for part in parts), ()))


def aligned_emoji(part: Part | None = None) -> list[Emoji]:
    """The named pictures of the share `clip-align`; of one part, which shares no look-alikes with the other."""
    named = [emoji for emoji in emoji_of("clip-align") if emoji.codepoints in emoji_names()]
    if part is None:
        return named
    dealt = deal_by_category([(emoji.group, emoji.category) for emoji in named], PARTS, SALT)
    return [emoji for emoji in named if dealt[emoji.group] == part]


def emoji_material(emoji: Sequence[Emoji], items: int, seed: int) -> Material:
    """Emoji at any size and place, turned, on white, colours or photographs.

    Every base is shown equally often (to one), by any of its variants.
    """
    bases: dict[str, list[Emoji]] = {}
    for variant in emoji:
        bases.setdefault(variant.base, []).append(variant)
    pictures = emoji_pictures(variant.codepoints for variant in emoji)
    images, truths = np.empty((items, SIZE, SIZE, 3), dtype=np.uint8), []
    for item in range(items):
        rng = np.random.default_rng([SEED, seed, item])
        variants = list(bases.values())[item % len(bases)]
        shown = variants[rng.integers(len(variants))]
        extent, angle = SIZE * rng.uniform(*EXTENT), rng.uniform(-ANGLE, ANGLE)
        colours, opacity = posed(pictures[shown.codepoints], extent, angle, rng.random(), rng.random())
        images[item] = to_pixels(over(colours, opacity, _ground(rng)))
        truths.append(descriptions(shown))
    return Material(images, tuple(truths))


def _ground(rng: np.random.Generator) -> np.ndarray:
    """White, a plain colour, or a crop of the photographs' left halves (the right ones are for tests)."""
    kind = rng.choice(3, p=GROUNDS)
    if kind == 2:
        return photograph_crop(rng, "train")
    return np.ones(3) if kind == 0 else rng.random(3)


def descriptions(emoji: Emoji) -> tuple[str, ...]:
    """What is true of an emoji's picture: its names, bare and in sentences, and what kind of thing it is."""
    names = emoji_names()[emoji.codepoints]
    found = [names.name, *names.others]
    for name in (names.name, *names.others[:1]):
        found += [f"{article(name)} {name}", f"a picture of {article(name)} {name}.", f"{name} emoji"]
    return tuple(dict.fromkeys([*found, names.category.lower(), names.subcategory]))


def scene_material(use: Use, items: int, seed: int, emoji: Sequence[Emoji] = ()) -> Material:
    """Scenes of shapes, and some with single-code-point emoji, without the pairs of shape and colour that are kept."""
    allowed = {shown.codepoints for shown in emoji} & {shown.codepoints for shown in named_emoji("clip-align")}
    pictures = emoji_pictures(sorted(allowed))
    shapes = coloured_shapes(kept=False)
    things = [Thing(emoji_names()[code].name, codepoints=code) for code in sorted(allowed)]
    images, truths = np.empty((items, SIZE, SIZE, 3), dtype=np.uint8), []
    for item in range(items):
        rng = scene_generator(use, seed, item)
        mixed = bool(things) and rng.random() > SHAPES_ONLY
        scene = random_scene(rng, things if mixed else shapes)
        images[item] = draw(scene, rng, pictures)
        truths.append(sentences(scene))
    return Material(images, tuple(truths))
