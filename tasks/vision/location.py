"""Where a shape is: the horizontal position of its centre, in 16 bins, as in dSprites' x-position task."""

from __future__ import annotations

import numpy as np

from .drawing import SIZE, Rendered, centres, shrink, window

OVERSAMPLING = 4
SCALE = SIZE / 64  # sizes are given for pictures of 64 pixels, as in dSprites
RADIUS = (5.0, 9.0)
MARGIN = 10.0  # the centre keeps this distance from the border, so that every shape is whole
GROUND = (0.0, 0.3)  # grey levels; without them, some of 1,500 black and white pictures would be near-duplicates
INK = (0.6, 1.0)
SHAPES = ("square", "ellipse", "heart")


class Location(Rendered):
    """A light square, ellipse or heart of random size and orientation on a dark ground."""

    SEED = 601

    def draw(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """float64 (56, 56), anti-aliased; x is uniform within bin `label` of the classes' range."""
        bins = len(self.card.classes)
        x_share = (label + rng.random()) / bins
        centre = SCALE * (MARGIN + np.array([x_share, rng.random()]) * (64 - 2 * MARGIN))
        radius, angle = SCALE * rng.uniform(*RADIUS), rng.uniform(0, 2 * np.pi)
        shape = SHAPES[rng.integers(len(SHAPES))]
        image = np.zeros((SIZE * OVERSAMPLING, SIZE * OVERSAMPLING))
        rows, columns = window(centre, radius, OVERSAMPLING)
        along = centres(OVERSAMPLING)
        dx, dy = (along[None, columns] - centre[0]) / radius, (along[rows, None] - centre[1]) / radius
        u = dx * np.cos(angle) + dy * np.sin(angle)
        v = dy * np.cos(angle) - dx * np.sin(angle)
        image[rows, columns] = inside(shape, u, v)
        ground, ink = rng.uniform(*GROUND), rng.uniform(*INK)
        return ground + (ink - ground) * shrink(image, OVERSAMPLING)


def inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points, in a frame where the shape's circumscribed circle has radius 1, lie in the shape."""
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) < np.sqrt(0.5)
    if shape == "ellipse":
        return u**2 + (v / 0.6) ** 2 < 1.0
    a, b = u * 1.25, 0.1 - v * 1.25  # the heart curve (a^2 + b^2 - 1)^3 = a^2 b^3, shrunk into the circle
    return (a**2 + b**2 - 1.0) ** 3 < a**2 * b**3
