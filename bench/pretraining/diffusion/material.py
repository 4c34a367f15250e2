"""Drawings with captions that are true of them: emoji and plain shapes, alone, several of a kind, or two at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....tasks.openvocab.casting import random_ground, random_scene
from ....tasks.openvocab.emoji_names import emoji_names
from ....tasks.openvocab.scenes import Thing, draw
from ....tasks.openvocab.sentences import article, sentences
from ....tasks.openvocab.shapes import COLOURS, SHAPES, covered, shade
from ....tasks.partition import Emoji, Share, emoji_of
from ....tasks.vision.drawing import SIZE, to_pixels
from ....tasks.vision.pictures import emoji_pictures, over, posed
from .captions import Scene, caption, name_of

if TYPE_CHECKING:
    from PIL import Image

SEED = 921
SEVERAL = 0.2  # how often a drawing shows more than one thing
SHAPE, FLAG = 0.12, 0.12  # how often a thing is a plain shape, a flag: the share's flags outnumber all else
USUAL = 0.4  # how often a drawing is as an emoji usually is: upright, in the middle, on white
EXTENTS = {"small": (0.38, 0.5), "": (0.62, 0.78), "large": (0.88, 1.0)}  # of the picture's side
SIDES = {"left": (0, 0.0), "right": (0, 1.0), "top": (1, 0.0), "bottom": (1, 1.0)}  # axis, and where along it
ANGLE, TURNED = 6.0, 30.0  # degrees to either side, mostly and in one drawing of five


@dataclass(frozen=True)
class Material:
    """uint8 (N, size, size, 3), a caption for each, and the code points of what it shows ("" for a shape, or two)."""

    images: np.ndarray
    captions: tuple[str, ...]
    shown: tuple[str, ...]


def bases_of(share: Share) -> dict[str, list[Emoji]]:
    """The named pictures of a share by their base: a base's variants are drawn as often, together, as another's."""
    bases: dict[str, list[Emoji]] = {}
    for emoji in emoji_of(share):
        if emoji.codepoints in emoji_names():
            bases.setdefault(emoji.base, []).append(emoji)
    return bases


def material(share: Share, items: int, size: int, seed: int, single: bool = False) -> Material:
    """`items` drawings of `size` pixels, with `single` of one emoji each; item i depends on share, seed and i alone."""
    artist = Artist(bases_of(share), single)
    images, captions, shown = np.empty((items, size, size, 3), dtype=np.uint8), [], []
    for item in range(items):
        image, words, code = artist.drawing(np.random.default_rng([SEED, seed, item]))
        images[item] = scaled(image, size)
        captions.append(words)
        shown.append(code)
    return Material(images, tuple(captions), tuple(shown))


def scaled(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (size, size, 3) of a square picture: each pixel the mean over what it covers."""
    from PIL import Image

    if image.shape[0] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))


class Artist:
    """Draws what a generator of random numbers asks for."""

    def __init__(self, bases: Mapping[str, Sequence[Emoji]], single: bool) -> None:
        groups = list(bases.values())
        self.flags = [group for group in groups if group[0].group == "flags"]
        self.others = [group for group in groups if group[0].group != "flags"]
        self.single = single
        self.pictures: Mapping[str, Image.Image] = emoji_pictures(e.codepoints for group in groups for e in group)

    def drawing(self, rng: np.random.Generator) -> tuple[np.ndarray, str, str]:
        """A picture (56, 56, 3), its caption, and the code points of its one emoji."""
        if not self.single and rng.random() < SEVERAL:
            return *self._several(rng), ""
        thing = self._thing(rng)
        usual = rng.random() < USUAL
        size = "" if usual else ("small", "", "large")[rng.integers(3)]
        place = list(SIDES)[rng.integers(4)] if not usual and size != "large" and rng.random() < 0.5 else ""
        ground = "" if usual else random_ground(rng, thing)
        if not ground and thing.colour == "white":
            ground = random_ground(rng, thing)
        name = f"{thing.colour} {thing.name}".strip()
        image = self._alone(rng, thing, size, place, ground)
        return image, caption(rng, Scene(name, ground, size, place)), thing.codepoints

    def _thing(self, rng: np.random.Generator) -> Thing:
        kind = rng.uniform(SHAPE if self.single else 0.0, 1.0)
        if kind < SHAPE:
            colours = list(COLOURS)
            return Thing(SHAPES[rng.integers(len(SHAPES))], colours[rng.integers(len(colours))])
        groups = self.flags if self.flags and (kind < SHAPE + FLAG or not self.others) else self.others
        variants = groups[int(rng.integers(len(groups)))]
        codepoints = variants[int(rng.integers(len(variants)))].codepoints
        return Thing(name_of(rng, codepoints), codepoints=codepoints)

    def _alone(self, rng: np.random.Generator, thing: Thing, size: str, place: str, ground: str) -> np.ndarray:
        extent = SIZE * rng.uniform(*EXTENTS[size])
        turn = TURNED if ground and rng.random() < 0.2 else ANGLE
        angle = rng.uniform(-turn, turn)
        where = rng.uniform(0.4, 0.6, size=2)
        if place:
            axis, end = SIDES[place]
            where[axis] = abs(end - rng.uniform(0.0, 0.12))
        behind = np.broadcast_to(shade(rng, ground) if ground else np.ones(3), (SIZE, SIZE, 3))
        if thing.codepoints:
            colours, opacity = posed(self.pictures[thing.codepoints], extent, angle, *where)
        else:
            radius = extent / 2
            colours = shade(rng, thing.colour)
            opacity = covered(thing.name, radius + (SIZE - extent) * where, radius, np.deg2rad(angle))
        return to_pixels(over(colours, opacity, behind))

    def _several(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """Several of a kind, or two things and how they lie."""
        one, other = self._thing(rng), self._thing(rng)
        while (other.name, other.colour) == (one.name, one.colour):
            other = self._thing(rng)
        scene = random_scene(rng, (one, other), shares=(0.0, 0.25, 0.75))
        told = sentences(scene)
        words = told[0] if scene.other is None else told[rng.integers(len(told))]
        if "background" not in words and rng.random() < 0.7:
            words += f" on {article(scene.ground)} {scene.ground} background"
        return draw(scene, rng, self.pictures), words
