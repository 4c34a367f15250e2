"""Which defect pattern a wafer map shows: rendered, after the patterns that WM-811K names.

A map is a disc of dies, each passed or failed. The classes are those of WM-811K without its rarest; the pictures are
rendered, none of them is from it. Patterns are faint on purpose: a die in the pattern often passes, dies outside fail
at random, and small clusters that belong to no pattern lie anywhere.
"""

from __future__ import annotations

import numpy as np

from .drawing import SIZE, Rendered, centres, shrink

OVERSAMPLING = 2
DIES = (22, 40)  # across the wafer
STRAY = (0.02, 0.09)  # failure rate outside patterns
RANDOM = (0.18, 0.34)  # the same, for class "random"
FAINT = (0.50, 0.85)  # failure rate inside a pattern, above the stray rate
DECOYS = 2  # at most, small clusters of failures
DECOY_RADIUS = (0.05, 0.11)
SHADES = (0.10, 0.36, 0.72)  # ground, passed, failed
DIE_NOISE = 0.06  # deviation of a die's shade


class Wafer(Rendered):
    """Lengths are in wafer radii; the wafer's centre is (0, 0)."""

    SEED = 401

    def draw(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """float64 (56, 56): shades of dies on a dark ground."""
        dies = int(rng.integers(*DIES, endpoint=True))
        along = (np.arange(dies) + 0.5) * 2 / dies - 1
        x, y = np.meshgrid(along, along)
        kind = self.card.classes[label]
        failure = np.full((dies, dies), rng.uniform(*(RANDOM if kind == "random" else STRAY)))
        failure += rng.uniform(*FAINT) * pattern(rng, kind, x, y)
        for _ in range(rng.integers(DECOYS + 1)):
            failure = np.maximum(failure, 0.8 * blob(rng, x, y, DECOY_RADIUS, reach=0.85))
        failed = rng.random((dies, dies)) < failure
        shade = np.where(failed, SHADES[2], SHADES[1]) + DIE_NOISE * rng.standard_normal((dies, dies))
        return _magnified(shade, x**2 + y**2 < 1.0, rng)


def _magnified(shade: np.ndarray, on_wafer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dies as squares in the picture, the wafer filling 86 to 98% of it."""
    dies = len(shade)
    extent = SIZE * rng.uniform(0.86, 0.98)
    offset = (SIZE - extent) * rng.random(2)
    along = centres(OVERSAMPLING)
    column = np.floor((along - offset[0]) / extent * dies).astype(int)
    row = np.floor((along - offset[1]) / extent * dies).astype(int)
    padded = np.pad(np.where(on_wafer, shade, SHADES[0]), 1, constant_values=SHADES[0])
    return shrink(padded[np.clip(row, -1, dies) + 1][:, np.clip(column, -1, dies) + 1], OVERSAMPLING)


def pattern(rng: np.random.Generator, kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Strength of a defect pattern at each die, 0..1."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    if kind == "center":
        distance = np.hypot(x - rng.normal(0, 0.07), y - rng.normal(0, 0.07))
        return np.exp(-((distance / rng.uniform(0.20, 0.38)) ** 2))
    if kind == "donut":
        distance = np.hypot(x - rng.normal(0, 0.08), y - rng.normal(0, 0.08))
        return np.exp(-(((distance - rng.uniform(0.35, 0.60)) / rng.uniform(0.10, 0.18)) ** 2))
    if kind == "edge-ring":
        return np.exp(-(((radius - 1.0) / rng.uniform(0.08, 0.20)) ** 2))
    if kind == "edge-local":
        away = np.abs((angle - rng.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi)
        arc = np.exp(-((away / rng.uniform(0.35, 0.75)) ** 4))
        return arc * np.exp(-(((radius - 1.0) / rng.uniform(0.12, 0.26)) ** 2))
    if kind == "local":
        return blob(rng, x, y, (0.16, 0.32), reach=0.65, nearest=0.35)
    if kind == "scratch":
        return scratch(rng, x, y)
    return np.zeros_like(x)  # "random" and "none" have no place


def blob(
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    size: tuple[float, float],
    reach: float,
    nearest: float = 0.0,
) -> np.ndarray:
    """A spot between `nearest` and `reach` from the centre, longer than wide."""
    direction, distance, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(nearest, reach), rng.uniform(0, np.pi)
    dx, dy = x - distance * np.cos(direction), y - distance * np.sin(direction)
    u, v = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
    length = rng.uniform(*size)
    strength: np.ndarray = np.exp(-((u / length) ** 2) - (v / (length * rng.uniform(0.5, 1.0))) ** 2)
    return strength


def scratch(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A thin arc, 0.6 to 1.3 long, somewhat stronger than other patterns since it covers few dies."""
    direction, distance, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.5), rng.uniform(0, np.pi)
    dx, dy = x - distance * np.cos(direction), y - distance * np.sin(direction)
    u, v = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
    sag = rng.uniform(-0.6, 0.6) * u**2
    half_length, half_width = rng.uniform(0.3, 0.65), max(0.04, 1.2 / len(x))
    on_arc = (np.abs(u) < half_length) & (np.abs(v - sag) < half_width)
    return 1.4 * on_arc.astype(np.float64)
