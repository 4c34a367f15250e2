"""Pictures from files, brought to one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..bench.errors import AssetError

if TYPE_CHECKING:
    from PIL import Image


def read_images(files: Sequence[Path], size: int, shorter: int | None = None) -> np.ndarray:
    """uint8 (N, size, size, 3), bicubic: each picture whole, squeezed into the square.

    With `shorter`, its shorter side is brought to that many pixels and the square cut from the middle. Raises
    AssetError naming a file that is missing or no picture.
    """
    images = np.empty((len(files), size, size, 3), dtype=np.uint8)
    for number, file in enumerate(files):
        images[number] = _read(file, size, shorter)
    return images


def _read(file: Path, size: int, shorter: int | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise AssetError(f"the picture {file} cannot be read: {error}") from None
    return as_square(picture, size, shorter)


def as_square(picture: Image.Image, size: int, shorter: int | None = None) -> np.ndarray:
    """One picture as `read_images` returns it: uint8 (size, size, 3)."""
    from PIL import Image

    if shorter is None:
        return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    scale = shorter / min(picture.size)
    wide, high = (max(size, round(side * scale)) for side in picture.size)
    left, top = (wide - size) // 2, (high - size) // 2
    scaled = picture.resize((wide, high), Image.Resampling.BICUBIC)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))
