"""Scenes of 56 x 56 pixels that a sentence describes: one thing, several of a kind, or two and how they lie.

Things are plain shapes in named colours, and emoji. An embedded CLIP is aligned on such scenes and tested on others:
the uses below share no random stream, and a quarter of the pairs of shape and colour (`kept_from_alignment`) is drawn
in none that it was aligned on. `sentences` says what is true of a scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..vision.count import CONTRAST, scatter
from ..vision.drawing import SIZE, to_pixels
from ..vision.pictures import over, posed
from .shapes import COLOURS, SHAPES, covered, shade

if TYPE_CHECKING:
    from PIL import Image

    Pictures = Mapping[str, Image.Image]  # by code points, see `vision.pictures.emoji_pictures`

Use = Literal["alignment", "validation", "task"]
Relation = Literal["left of", "right of", "above", "below"]
USES: tuple[Use, ...] = get_args(Use)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
INVERSE: Mapping[Relation, Relation] = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
SEED = 901
MOST = 6  # copies of one thing

ONE_RADIUS = (8.0, 20.0)  # pixels, of circumscribed circles; an emoji's radius is half its side
MANY_RADIUS = (5.0, 6.5)
PAIR_RADIUS = (7.5, 11.5)
PAIR_GAP = (1.0, 6.0)  # pixels between the circles of two things
SLANT = 25.0  # degrees that the line between two things leaves the axis, to either side
ANGLE = 15.0  # degrees that a thing is turned, to either side


@dataclass(frozen=True)
class Thing:
    """A shape with a colour, or an emoji with its code points."""

    name: str  # "circle", "slice of pizza"
    colour: str = ""  # a key of COLOURS
    codepoints: str = ""


@dataclass(frozen=True)
class Scene:
    """`count` copies of a thing; or, with `relation`, one and where it lies as seen from `other`."""

    thing: Thing
    ground: str  # a key of COLOURS
    count: int = 1
    relation: Relation | None = None
    other: Thing | None = None


def scene_generator(use: Use, *index: int) -> np.random.Generator:
    """The generator of one scene. Uses and indices share no stream; a task's first index is a number of its own."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, USES.index(use), *index])))


def kept_from_alignment(shape: str, colour: str) -> bool:
    """Whether no scene for alignment or validation shows this pair: each shape lacks two or three of eleven colours."""
    return (SHAPES.index(shape) + list(COLOURS).index(colour)) % 4 == 0


def coloured_shapes(kept: bool) -> list[Thing]:
    """The pairs of shape and colour that were kept from alignment, or the others."""
    return [
        Thing(shape, colour) for shape in SHAPES for colour in COLOURS if kept_from_alignment(shape, colour) == kept
    ]


def draw(scene: Scene, rng: np.random.Generator, pictures: Pictures | None = None) -> np.ndarray:
    """uint8 (56, 56, 3). `pictures` holds those of the scene's emoji. Sizes, places and shades are drawn from `rng`."""
    ground = shade(rng, scene.ground)
    image = np.broadcast_to(ground, (SIZE, SIZE, 3))
    for thing, centre, radius in _layout(scene, rng):
        angle = rng.uniform(-ANGLE, ANGLE)
        if thing.codepoints:
            if pictures is None:
                raise ValueError(f"the scene shows {thing.name}: its picture is needed")
            colours, opacity = _placed(pictures[thing.codepoints], centre, 2 * radius, angle)
        else:
            colours = _shade_beside(rng, thing.colour, ground)
            opacity = covered(thing.name, centre, radius, np.deg2rad(angle))
        image = over(colours, opacity, image)
    return to_pixels(image)


def _layout(scene: Scene, rng: np.random.Generator) -> list[tuple[Thing, np.ndarray, float]]:
    """Things with centre (x, y) and radius in pixels."""
    if scene.other is not None:
        return _pair(scene, rng)
    if scene.count == 1:
        radius = rng.uniform(*ONE_RADIUS)
        return [(scene.thing, radius + (SIZE - 2 * radius) * rng.random(2), radius)]
    radii = rng.uniform(*MANY_RADIUS, size=scene.count)
    return [(scene.thing, centre, radius) for centre, radius in zip(scatter(rng, radii), radii, strict=True)]


def _pair(scene: Scene, rng: np.random.Generator) -> list[tuple[Thing, np.ndarray, float]]:
    """Two things apart along the relation's axis; the whole anywhere in the picture."""
    assert scene.other is not None and scene.relation is not None
    radii = rng.uniform(*PAIR_RADIUS, size=2)
    slant = np.deg2rad(rng.uniform(-SLANT, SLANT))
    far, aside = (radii.sum() + rng.uniform(*PAIR_GAP)) * np.array([np.cos(slant), np.sin(slant)])
    step = {"left of": (-far, aside), "right of": (far, aside), "above": (aside, -far), "below": (aside, far)}
    centres = np.array([step[scene.relation], (0.0, 0.0)])
    low = (centres - radii[:, None]).min(axis=0)
    room = SIZE - (centres + radii[:, None]).max(axis=0) + low
    centres += room * rng.random(2) - low
    return [(scene.thing, centres[0], radii[0]), (scene.other, centres[1], radii[1])]


def _placed(picture: Image.Image, centre: np.ndarray, extent: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """`posed`, but with the middle of what is visible at `centre`, as far as the picture's border allows."""
    colours, opacity = posed(picture, extent, angle, 0.0, 0.0)
    visible = opacity[..., 0] > 0
    width, height = int(np.flatnonzero(visible.any(0))[-1]) + 1, int(np.flatnonzero(visible.any(1))[-1]) + 1
    left = int(np.clip(round(centre[0] - width / 2), 0, SIZE - width))
    top = int(np.clip(round(centre[1] - height / 2), 0, SIZE - height))
    return np.roll(colours, (top, left), (0, 1)), np.roll(opacity, (top, left), (0, 1))


def _shade_beside(rng: np.random.Generator, colour: str, ground: np.ndarray) -> np.ndarray:
    """A shade of a colour that can be told from the ground."""
    for _ in range(100):
        found = shade(rng, colour)
        if np.linalg.norm(found - ground) > CONTRAST:
            return found
    raise ValueError(f"{colour} cannot be told from the ground")
