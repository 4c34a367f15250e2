"""Zero-shot questions: for each picture some sentences, of which one is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ....tasks.openvocab.casting import random_ground
from ....tasks.openvocab.emoji_names import emoji_names
from ....tasks.openvocab.scenes import MOST, RELATIONS, Scene, Thing, Use, coloured_shapes, draw, scene_generator
from ....tasks.openvocab.sentences import PHRASES, article, phrase
from ....tasks.openvocab.shapes import COLOURS, SHAPES
from ....tasks.partition import Emoji
from ....tasks.vision.drawing import SIZE, to_pixels
from ....tasks.vision.emoji import ANGLE, EXTENT, UNICODE_GROUPS
from ....tasks.vision.pictures import emoji_pictures, over, posed

VIEWS = 4  # of each emoji


@dataclass(frozen=True)
class Probe:
    """`options[i]` are the sentences for `images[i]`, `answers[i]` the number of the right one.

    Pictures of one `unit` (views of one emoji) count as one observation where intervals are made.
    """

    name: str
    images: np.ndarray
    options: Sequence[Sequence[str]]
    answers: np.ndarray
    units: np.ndarray

    @property
    def chance(self) -> float:
        """The score of guessing."""
        return float(np.mean([1 / len(options) for options in self.options]))


def emoji_probes(emoji: Sequence[Emoji]) -> list[Probe]:
    """Which of all the emoji's names, and which of eight categories; upright on white, as the task emoji shows them."""
    pictures = emoji_pictures(shown.codepoints for shown in emoji)
    images, units = [], np.repeat(np.arange(len(emoji)), VIEWS)
    for unit, view in zip(units.tolist(), np.tile(np.arange(VIEWS), len(emoji)).tolist(), strict=True):
        rng = np.random.default_rng([unit, view])
        extent, angle = SIZE * rng.uniform(*EXTENT), rng.uniform(-ANGLE, ANGLE)
        colours, opacity = posed(pictures[emoji[unit].codepoints], extent, angle, rng.random(), rng.random())
        images.append(to_pixels(over(colours, opacity, np.ones(3))))
    names = [emoji_names()[shown.codepoints].name for shown in emoji]
    prompts = [f"a picture of {article(name)} {name}." for name in names]
    groups = [group.lower() for group in UNICODE_GROUPS]
    right = np.array([UNICODE_GROUPS.index(shown.category) for shown in emoji])
    shown = np.stack(images)
    return [
        Probe("emoji names", shown, [prompts] * len(units), units, units),
        Probe("emoji categories", shown, [groups] * len(units), right[units], units),
    ]


def scene_probes(use: Use, items: int) -> list[Probe]:
    """Colours, shapes, numbers, relations, pairs of attributes, and pairs that no alignment has shown."""
    questions = (_colour, _shape, _new_pair, _number, _relation, _binding)
    return [_probe(question, use, number, items) for number, question in enumerate(questions)]


Question = Callable[[np.random.Generator], tuple[Scene, Sequence[str], int]]


def _probe(question: Question, use: Use, number: int, items: int) -> Probe:
    images, options, answers = np.empty((items, SIZE, SIZE, 3), dtype=np.uint8), [], []
    for item in range(items):
        rng = scene_generator(use, 1000 + number, item)
        scene, sentences, answer = question(rng)
        images[item] = draw(scene, rng)
        options.append(sentences)
        answers.append(answer)
    name = question.__name__.strip("_").replace("_", " ")
    return Probe(name, images, options, np.array(answers), np.arange(items))


def _one(rng: np.random.Generator, kept: bool = False) -> Thing:
    things = coloured_shapes(kept)
    return things[rng.integers(len(things))]


def _colour(rng: np.random.Generator) -> tuple[Scene, Sequence[str], int]:
    thing = _one(rng)
    options = [f"something {colour}" for colour in COLOURS]
    return Scene(thing, random_ground(rng, thing)), options, list(COLOURS).index(thing.colour)


def _shape(rng: np.random.Generator) -> tuple[Scene, Sequence[str], int]:
    thing = _one(rng)
    options = [phrase(Thing(shape)) for shape in SHAPES]
    return Scene(thing, random_ground(rng, thing)), options, SHAPES.index(thing.name)


def _new_pair(rng: np.random.Generator) -> tuple[Scene, Sequence[str], int]:
    """A pair of shape and colour that was kept from alignment, among all pairs."""
    thing = _one(rng, kept=True)
    everything = [*coloured_shapes(True), *coloured_shapes(False)]
    return Scene(thing, random_ground(rng, thing)), [phrase(each) for each in everything], everything.index(thing)


def _number(rng: np.random.Generator) -> tuple[Scene, Sequence[str], int]:
    thing, count = _one(rng), int(rng.integers(1, MOST, endpoint=True))
    options = [phrase(Thing(thing.name), number) for number in range(1, MOST + 1)]
    return Scene(thing, random_ground(rng, thing), count), options, count - 1


def _relation(rng: np.random.Generator) -> tuple[Scene, Sequence[str], int]:
    """Where one shape lies as seen from another, among four."""
    thing, other = _two(rng)
    answer = int(rng.integers(len(RELATIONS)))
    options = [f"{phrase(thing)} {PHRASES[relation]} {phrase(other)}" for relation in RELATIONS]
    return Scene(thing, random_ground(rng, thing, other), 1, RELATIONS[answer], other), options, answer


def _binding(rng: np.random.Generator) -> tuple[Scene, Sequence[str], int]:
    """Which of two shapes has which of two colours."""
    thing, other = _two(rng)
    swapped = Thing(thing.name, other.colour), Thing(other.name, thing.colour)
    options = [f"{phrase(one)} and {phrase(two)}" for one, two in ((thing, other), swapped)]
    scene = Scene(thing, random_ground(rng, thing, other), 1, RELATIONS[rng.integers(len(RELATIONS))], other)
    return scene, options, 0


def _two(rng: np.random.Generator) -> tuple[Thing, Thing]:
    """Two shapes that differ in both attributes."""
    thing = other = _one(rng)
    while other.name == thing.name or other.colour == thing.colour:
        other = _one(rng)
    return thing, other
