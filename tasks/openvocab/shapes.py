"""Plain shapes and named colours, of which scenes are made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..vision.count import inside as inside_outline
from ..vision.drawing import SIZE, centres, shrink, window

OVERSAMPLING = 3
OUTLINES = {
    "circle": "disc",
    "triangle": "triangle",
    "square": "square",
    "star": "star",
}  # as the task count calls them
SHAPES = (*OUTLINES, "ring", "cross")
HOLE = 0.55  # inner radius of a ring
ARM = 0.28  # half the breadth of a cross's arms

# The eleven basic colour terms of English (Berlin and Kay), RGB in 0..1.
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.12),
    "orange": (0.98, 0.52, 0.06),
    "yellow": (0.98, 0.87, 0.14),
    "green": (0.13, 0.62, 0.22),
    "blue": (0.13, 0.30, 0.84),
    "purple": (0.52, 0.18, 0.68),
    "pink": (0.98, 0.60, 0.76),
    "brown": (0.45, 0.27, 0.12),
    "black": (0.06, 0.06, 0.06),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.52, 0.52, 0.52),
}
JITTER = 0.05  # of each channel, to either side: half the way to another name is never gone


def shade(rng: np.random.Generator, colour: str) -> np.ndarray:
    """A colour (3,) that bears the name `colour`."""
    near: np.ndarray = np.clip(np.array(COLOURS[colour]) + rng.uniform(-JITTER, JITTER, size=3), 0.0, 1.0)
    return near


def covered(shape: str, centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Opacity (56, 56, 1) of a shape whose circumscribed circle is given in pixels, turned by `angle` radians."""
    rows, columns = window(centre, radius, OVERSAMPLING)
    along = centres(OVERSAMPLING)
    u, v = (along[None, columns] - centre[0]) / radius, (along[rows, None] - centre[1]) / radius
    fine = np.zeros((SIZE * OVERSAMPLING, SIZE * OVERSAMPLING, 1))
    fine[rows, columns, 0] = inside(shape, u, v, angle)
    opacity: np.ndarray = shrink(fine, OVERSAMPLING)
    return opacity


def inside(shape: str, u: np.ndarray, v: np.ndarray, angle: float) -> np.ndarray:
    """Whether points lie in a shape with circumscribed radius 1; at angle 0 it stands upright."""
    if shape == "ring":
        return (np.hypot(u, v) < 1.0) & (np.hypot(u, v) > HOLE)
    if shape == "cross":
        along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        arms = np.minimum(np.abs(along), np.abs(across)) < ARM
        within: np.ndarray = arms & (np.maximum(np.abs(along), np.abs(across)) < np.sqrt(1.0 - ARM**2))
        return within
    upright = {"triangle": np.pi / 2, "star": np.pi / 2, "square": np.pi / 4}.get(shape, 0.0)
    return inside_outline(OUTLINES[shape], u, v, angle + upright)
