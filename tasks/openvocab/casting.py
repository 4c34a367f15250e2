"""Random scenes: what they show, before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..vision.count import CONTRAST
from .scenes import MOST, RELATIONS, Scene, Thing
from .shapes import COLOURS, JITTER

KINDS = ("one", "many", "pair")
SAFE = CONTRAST + 2 * JITTER  # between two colours' means: then shades that can be told apart are soon found


def random_scene(rng: np.random.Generator, things: Sequence[Thing], shares: Sequence[float] = (0.3, 0.3, 0.4)) -> Scene:
    """A scene of some of the things. `shares`: how often it shows one, several of a kind, or two that differ."""
    kind = KINDS[rng.choice(len(KINDS), p=shares)]
    thing = things[int(rng.integers(len(things)))]
    if kind == "one":
        return Scene(thing, random_ground(rng, thing))
    if kind == "many":
        return Scene(thing, random_ground(rng, thing), count=int(rng.integers(2, MOST, endpoint=True)))
    other = thing
    while other.name == thing.name and other.colour == thing.colour:
        other = things[int(rng.integers(len(things)))]
    return Scene(thing, random_ground(rng, thing, other), 1, RELATIONS[int(rng.integers(len(RELATIONS)))], other)


def random_ground(rng: np.random.Generator, *things: Thing) -> str:
    """The name of a colour from which the things' own can be told."""
    fitting = [
        name for name in COLOURS if all(_distance(name, thing.colour) > SAFE for thing in things if thing.colour)
    ]
    return fitting[int(rng.integers(len(fitting)))]


def _distance(one: str, two: str) -> float:
    return float(np.linalg.norm(np.subtract(COLOURS[one], COLOURS[two])))
