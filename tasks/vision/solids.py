"""A small renderer: convex solids, orthographic camera, flat shading, z-buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .drawing import SIZE

OVERSAMPLING = 2
AXES = {"x": (1, 2, 0), "y": (2, 0, 1), "z": (0, 1, 2)}  # where profile u, profile v and the extrusion lie


@dataclass(frozen=True)
class Solid:
    """A convex polyhedron. Faces list corners counter-clockwise as seen from outside."""

    corners: np.ndarray  # (V, 3)
    faces: tuple[tuple[int, ...], ...]
    colour: np.ndarray  # (3,) in 0..1


def prism(profile: np.ndarray, axis: str, low: float, high: float, colour: np.ndarray, taper: float = 1.0) -> Solid:
    """A convex profile (K, 2), either way round, extruded along an axis; the high end is scaled by `taper`.

    The profile's (u, v) are (y, z), (z, x) or (x, y) for the axes x, y and z.
    """
    count = len(profile)
    following = np.roll(profile, -1, axis=0)
    if (profile[:, 0] * following[:, 1] - profile[:, 1] * following[:, 0]).sum() < 0:
        profile = profile[::-1]
    middle = profile.mean(axis=0)
    ends = np.concatenate([profile, middle + taper * (profile - middle)])
    along = np.repeat([low, high], count)
    corners = np.empty((2 * count, 3))
    u, v, w = AXES[axis]
    corners[:, u], corners[:, v], corners[:, w] = ends[:, 0], ends[:, 1], along
    sides = tuple((i, (i + 1) % count, count + (i + 1) % count, count + i) for i in range(count))
    caps = (tuple(reversed(range(count))), tuple(range(count, 2 * count)))
    return Solid(corners, caps + sides, colour)


def box(centre: tuple[float, float, float], size: tuple[float, float, float], colour: np.ndarray) -> Solid:
    """A box along the axes."""
    (x, y, z), (a, b, c) = centre, size
    profile = np.array([[x - a / 2, y - b / 2], [x + a / 2, y - b / 2], [x + a / 2, y + b / 2], [x - a / 2, y + b / 2]])
    return prism(profile, "z", z - c / 2, z + c / 2, colour)


def disc(u: float, v: float, radius: float, sides: int = 8) -> np.ndarray:
    """A regular profile (sides, 2), for wheels, trunks and funnels."""
    angle = np.arange(sides) * 2 * np.pi / sides
    return np.stack([u + radius * np.cos(angle), v + radius * np.sin(angle)], axis=1)


def camera(azimuth: float, elevation: float) -> np.ndarray:
    """Rows right, up and towards the viewer (3, 3), for angles in radians; z is up, azimuth 0 looks at +x's face."""
    sin_a, cos_a, sin_e, cos_e = np.sin(azimuth), np.cos(azimuth), np.sin(elevation), np.cos(elevation)
    return np.array(
        [[-sin_a, cos_a, 0.0], [-cos_a * sin_e, -sin_a * sin_e, cos_e], [cos_a * cos_e, sin_a * cos_e, sin_e]]
    )


def render(
    solids: Iterable[Solid], view: np.ndarray, light: np.ndarray, ambient: float, ground: np.ndarray, extent: float
) -> np.ndarray:
    """The solids before a ground (H, W, 3), float64, with H = W = 56 * OVERSAMPLING.

    Their projection is centred and its longer side fills `extent` of the picture. `light` is a unit vector in the
    camera's frame; a face's shade is ambient + (1 - ambient) * max(0, normal . light).
    """
    solids = list(solids)
    seen = [solid.corners @ view.T for solid in solids]
    flat = np.concatenate(seen)[:, :2]
    low, high = flat.min(axis=0), flat.max(axis=0)
    side = SIZE * OVERSAMPLING
    scale = extent * side / (high - low).max()
    image, depth = ground.copy(), np.full((side, side), -np.inf)
    for solid, corners in zip(solids, seen, strict=True):
        placed = corners * (scale, -scale, scale)
        placed[:, :2] += side / 2 - (low + high) / 2 * (scale, -scale)
        points = placed.tolist()
        for face in solid.faces:
            polygon = [points[corner] for corner in face]
            normal = _normal(polygon)
            if normal[2] > 1e-9:
                incidence = normal[0] * light[0] + normal[1] * light[1] + normal[2] * light[2]
                colour = solid.colour * (ambient + (1 - ambient) * max(0.0, incidence))
                _fill(image, depth, polygon, normal, colour)
    return image


def _normal(polygon: list[list[float]]) -> tuple[float, float, float]:
    """Unit normal of a face in the camera's frame (y up), from corners in screen coordinates (y down)."""
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = polygon[:3]
    ux, uy, uz, vx, vy, vz = x1 - x0, y0 - y1, z1 - z0, x2 - x0, y0 - y2, z2 - z0
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _fill(
    image: np.ndarray,
    depth: np.ndarray,
    polygon: list[list[float]],
    normal: tuple[float, float, float],
    colour: np.ndarray,
) -> None:
    """Paint a convex polygon whose corners are (x, y, z): x, y in screen pixels (y down), z towards the viewer."""
    left, right = math.floor(min(p[0] for p in polygon)), math.ceil(max(p[0] for p in polygon))
    top, bottom = math.floor(min(p[1] for p in polygon)), math.ceil(max(p[1] for p in polygon))
    window = depth[top:bottom, left:right]
    x, y = np.arange(left, right) + 0.5, (np.arange(top, bottom) + 0.5)[:, None]
    covered = np.ones(window.shape, dtype=bool)
    for (x0, y0, _), (x1, y1, _) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        covered &= (x1 - x0) * (y - y0) < (y1 - y0) * (x - x0)
    x0, y0, z0 = polygon[0]
    z = (z0 + normal[1] / normal[2] * (y - y0)) - normal[0] / normal[2] * (x - x0)
    covered &= z > window
    window[covered] = z[covered]
    image[top:bottom, left:right][covered] = colour
