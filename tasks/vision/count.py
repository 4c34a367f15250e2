"""How many: one to eight objects of mixed shapes and colours on a plain ground, none overlapping."""

from __future__ import annotations

import math

import numpy as np

from .drawing import SIZE, Rendered, centres, shrink, window

OVERSAMPLING = 3
INK = (0.06, 0.15)  # share of the picture that all objects cover together, whatever their number
SPREAD = (0.75, 1.30)  # one object's share relative to the mean of its picture
GAP = 2.9  # pixels between circumscribed circles, and to the border: a whole pixel of ground, diagonally too
CORNERS = {"triangle": 3, "square": 4, "star": 5}
CONTRAST = 0.35  # smallest distance between the colours of an object and the ground, in the RGB cube


class Count(Rendered):
    """The covered area is drawn first and shared among the objects, so it says nothing about their number."""

    SEED = 701

    def draw(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """float64 (56, 56, 3) with `label + 1` objects."""
        objects = label + 1
        kinds = rng.choice(["disc", *CORNERS], size=objects)
        share = rng.uniform(*SPREAD, size=objects)
        areas = rng.uniform(*INK) * SIZE**2 * share / share.sum()
        radii = np.sqrt(areas / np.array([unit_area(kind) for kind in kinds]))
        kinds, radii = kinds[np.argsort(-radii)], np.sort(radii)[::-1]  # the largest find room first
        ground = rng.random(3)
        image = np.broadcast_to(ground, (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING, 3)).copy()
        along = centres(OVERSAMPLING)
        for kind, radius, centre in zip(kinds, radii, scatter(rng, radii), strict=True):
            rows, columns = window(centre, radius, OVERSAMPLING)
            u, v = (along[None, columns] - centre[0]) / radius, (along[rows, None] - centre[1]) / radius
            covered = inside(kind, u, v, rng.uniform(0, 2 * np.pi))
            image[rows, columns][covered] = contrasting(rng, ground)
        return shrink(image, OVERSAMPLING)


def unit_area(kind: str) -> float:
    """Area of a shape whose circumscribed circle has radius 1. A star's inner corners lie at half the radius."""
    if kind == "disc":
        return float(np.pi)
    if kind == "star":
        return float(5 * 0.5 * np.sin(np.pi / 5))
    corners = CORNERS[kind]
    return float(corners / 2 * np.sin(2 * np.pi / corners))


def inside(kind: str, u: np.ndarray, v: np.ndarray, angle: float) -> np.ndarray:
    """Whether points lie in a shape with circumscribed radius 1, turned by `angle`."""
    radius = np.hypot(u, v)
    if kind == "disc":
        return radius < 1.0
    sector = 2 * np.pi / CORNERS[kind]
    phase = np.abs((np.arctan2(v, u) + angle) % sector - sector / 2)  # 0 between corners, sector / 2 at a corner
    if kind == "star":  # the edge runs from (1 at a corner) to (0.5 between corners)
        corner, inner = np.array([np.cos(sector / 2), np.sin(sector / 2)]), np.array([0.5, 0.0])
        edge = corner - inner
        a, b = radius * np.cos(phase), radius * np.sin(phase)
        return edge[1] * (a - inner[0]) - edge[0] * b < 0
    return radius * np.cos(phase) < np.cos(sector / 2)


def scatter(rng: np.random.Generator, radii: np.ndarray) -> np.ndarray:
    """Centres (N, 2) of discs that neither touch each other nor the border; starts anew when one does not fit."""
    while True:
        placed: list[tuple[float, float, float]] = []
        for radius in radii.tolist():
            low, room = radius + GAP, SIZE - 2 * (radius + GAP)
            for across, down in (low + room * rng.random((60, 2))).tolist():
                if all(math.hypot(across - x, down - y) > radius + r + GAP for x, y, r in placed):
                    placed.append((across, down, radius))
                    break
            else:
                break
        if len(placed) == len(radii):
            return np.array(placed)[:, :2]


def contrasting(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A colour (3,) that can be told from the ground."""
    while True:
        colour = rng.random(3)
        if np.linalg.norm(colour - ground) > CONTRAST:
            return colour
