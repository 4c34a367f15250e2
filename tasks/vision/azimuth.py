"""From which side a solid object is seen: eight directions of 45 degrees, elevation 20 to 65 degrees.

Five kinds of objects, all with a clear front (+x) and back; each picture builds its own instance with random
proportions and colours, so no instance is shared within or between splits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawing import SIZE, Rendered, shrink
from .solids import OVERSAMPLING, Solid, box, camera, disc, prism, render

ELEVATION = (20.0, 65.0)  # degrees
WITHIN = 0.35  # of a bin, to either side of its centre: views on the border of two bins would only add noise
AMBIENT = (0.30, 0.50)
EXTENT = (0.72, 0.95)  # of the picture, by the projection's longer side
Palette = np.ndarray  # (4, 3): main, second, dark, accent


class Azimuth(Rendered):
    """Azimuth 0 sees the object's front; views lie within 16 degrees of a multiple of 45."""

    SEED = 801

    def draw(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """float64 (56, 56, 3)."""
        width = 360.0 / len(self.card.classes)
        azimuth, elevation = (label + rng.uniform(-WITHIN, WITHIN)) * width, rng.uniform(*ELEVATION)
        kind = KINDS[rng.integers(len(KINDS))]
        solids = kind(rng, palette(rng))
        light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.3, 1.0), rng.uniform(0.4, 1.0)])
        view = camera(np.radians(azimuth), np.radians(elevation))
        image = render(
            solids, view, light / np.linalg.norm(light), rng.uniform(*AMBIENT), backdrop(rng), rng.uniform(*EXTENT)
        )
        return shrink(image, OVERSAMPLING)


def palette(rng: np.random.Generator) -> Palette:
    """Four colours: two bright, one dark, one accent."""
    colours = rng.uniform(0.35, 1.0, size=(4, 3))
    colours[2] = rng.uniform(0.05, 0.25) * np.ones(3)
    return colours


def backdrop(rng: np.random.Generator) -> np.ndarray:
    """A ground that fades from top to bottom."""
    ends = rng.uniform(0.15, 0.95) + rng.uniform(-0.12, 0.12, size=(2, 3))
    share = np.linspace(0.0, 1.0, SIZE * OVERSAMPLING)[:, None, None]
    rows = np.clip(ends[0] * (1 - share) + ends[1] * share, 0.0, 1.0)
    return np.broadcast_to(rows, (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING, 3))


def car(rng: np.random.Generator, colours: Palette) -> list[Solid]:
    """Bonnet in front, cabin behind it, dark wheels, bright lamps in front, dark tail."""
    length, width, height = rng.uniform(1.8, 2.4), rng.uniform(0.85, 1.05), rng.uniform(0.32, 0.42)
    cabin_back, cabin_front = -length * rng.uniform(0.36, 0.46), length * rng.uniform(0.02, 0.14)
    roof = height + rng.uniform(0.30, 0.42)
    side = np.array(  # (z, x)
        [[height, cabin_back], [roof, cabin_back + 0.12], [roof, cabin_front - 0.30], [height, cabin_front]]
    )
    solids = [
        box((0, 0, 0.15 + height / 2), (length, width, height - 0.1), colours[0]),
        prism(side, "y", -width * 0.44, width * 0.44, colours[1]),
        box((length / 2, 0, height * 0.75), (0.06, width * 0.9, 0.12), np.array([1.0, 1.0, 0.75])),
        box((-length / 2, 0, height * 0.75), (0.06, width * 0.9, 0.12), np.array([0.55, 0.05, 0.05])),
    ]
    for x in (-length * 0.3, length * 0.32):
        for y in (-width / 2, width / 2):
            solids.append(prism(disc(0.17, x, 0.19), "y", y - 0.07, y + 0.07, colours[2]))
    return solids


def airplane(rng: np.random.Generator, colours: Palette) -> list[Solid]:
    """Pointed nose, swept wings, tail fin."""
    length, span, girth = rng.uniform(2.0, 2.5), rng.uniform(1.9, 2.6), rng.uniform(0.16, 0.24)
    chord, sweep, root = rng.uniform(0.4, 0.6), rng.uniform(0.15, 0.5), rng.uniform(-0.05, 0.25)
    fin = np.array([[0.1, -length / 2], [0.1, -length / 2 + 0.5], [0.65, -length / 2 + 0.1], [0.65, -length / 2 - 0.1]])
    solids = [
        prism(disc(0, 0, girth), "x", -length / 2, length * 0.32, colours[0]),
        prism(disc(0, 0, girth), "x", length * 0.32, length * 0.5, colours[3], taper=0.15),
        prism(fin, "y", -0.04, 0.04, colours[3]),
    ]
    for hand in (-1, 1):
        solids.append(_wing(hand, span / 2, chord, sweep, root, colours[1]))
        solids.append(_wing(hand, span / 5, chord * 0.55, sweep * 0.5, -length / 2 + 0.3, colours[1]))
    return solids


def _wing(hand: int, span: float, chord: float, sweep: float, root: float, colour: np.ndarray) -> Solid:
    outline = np.array([[root, 0], [root - sweep, span], [root - sweep - chord * 0.6, span], [root - chord, 0]])
    outline = outline * (1, hand)
    return prism(outline, "z", -0.04, 0.04, colour)


def chair(rng: np.random.Generator, colours: Palette) -> list[Solid]:
    """The back rest stands behind; some chairs have arm rests."""
    width, depth, seat = rng.uniform(0.8, 1.1), rng.uniform(0.8, 1.05), rng.uniform(0.5, 0.75)
    rest = rng.uniform(0.7, 1.1)
    solids = [
        box((0, 0, seat), (depth, width, 0.14), colours[0]),
        box((-depth / 2 + 0.05, 0, seat + rest / 2), (0.12, width, rest), colours[1]),
    ]
    for x in (-depth / 2 + 0.07, depth / 2 - 0.07):
        for y in (-width / 2 + 0.07, width / 2 - 0.07):
            solids.append(box((x, y, seat / 2), (0.12, 0.12, seat), colours[2]))
    if rng.random() < 0.5:
        for y in (-width / 2 + 0.05, width / 2 - 0.05):
            solids.append(box((0, y, seat + 0.3), (depth * 0.9, 0.1, 0.1), colours[3]))
    return solids


def animal(rng: np.random.Generator, colours: Palette) -> list[Solid]:
    """Four legs, head and muzzle in front, tail behind."""
    length, width, height = rng.uniform(1.1, 1.6), rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6)
    leg, head, neck = rng.uniform(0.35, 0.7), rng.uniform(0.32, 0.48), rng.uniform(0.0, 0.35)
    back = leg + height
    front = length / 2 + head * 0.3
    solids = [
        box((0, 0, leg + height / 2), (length, width, height), colours[0]),
        box((length / 2 - 0.08, 0, back + neck / 2), (0.24, width * 0.55, neck + 0.1), colours[0]),
        box((front, 0, back + neck), (head, head, head), colours[1]),
        box((front + head * 0.65, 0, back + neck - head * 0.15), (head * 0.5, head * 0.6, head * 0.45), colours[2]),
        box((-length / 2 - 0.12, 0, back - 0.05), (0.32, 0.1, 0.1), colours[3]),
    ]
    for x in (-length / 2 + 0.1, length / 2 - 0.1):
        for y in (-width / 2 + 0.09, width / 2 - 0.09):
            solids.append(box((x, y, leg / 2), (0.15, 0.15, leg), colours[2]))
    return solids


def ship(rng: np.random.Generator, colours: Palette) -> list[Solid]:
    """Pointed bow, bridge at the stern, funnel behind it."""
    length, width, height = rng.uniform(2.0, 2.6), rng.uniform(0.6, 0.85), rng.uniform(0.3, 0.45)
    bow = rng.uniform(0.5, 0.8)
    hull = np.array(
        [
            [-length / 2, -width / 2],
            [length / 2 - bow, -width / 2],
            [length / 2, 0],
            [length / 2 - bow, width / 2],
            [-length / 2, width / 2],
        ]
    )
    bridge, tall = -length * rng.uniform(0.18, 0.30), rng.uniform(0.35, 0.6)
    return [
        prism(hull, "z", 0, height, colours[0]),
        box((bridge, 0, height + tall / 2), (0.4, width * 0.75, tall), colours[1]),
        prism(disc(bridge - 0.36, 0, 0.12), "z", height, height + tall * 1.1, colours[2]),
        box((length * 0.18, 0, height + 0.1), (length * 0.25, width * 0.6, 0.2), colours[3]),
    ]


KINDS: tuple[Callable[[np.random.Generator, Palette], list[Solid]], ...] = (car, airplane, chair, animal, ship)
