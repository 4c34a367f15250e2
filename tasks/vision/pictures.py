"""Emoji pictures: decoding, posing, laying over a ground."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...bench.assets import asset
from .drawing import SIZE

if TYPE_CHECKING:
    from PIL import Image


def emoji_pictures(codepoints: Iterable[str]) -> dict[str, Image.Image]:
    """RGBA pictures of 72 x 72, by code points (the stem of the picture's file)."""
    import pyarrow.parquet as parquet
    from PIL import Image

    table = parquet.read_table(asset("twemoji") / "twemoji.parquet")
    rows = {code: row for row, code in enumerate(table.column("codepoints").to_pylist())}
    pngs = table.column("png")
    return {code: Image.open(io.BytesIO(pngs[rows[code]].as_py())).convert("RGBA") for code in codepoints}


def posed(picture: Image.Image, extent: float, angle: float, left: float, top: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture on an empty 56 x 56 canvas: colours (56, 56, 3) and opacity (56, 56, 1), float64 in 0..1.

    The picture is scaled to `extent` pixels, turned by `angle` degrees, and its bounding box put so that `left` and
    `top` (0..1) of the free room lie before it. Colours are not premultiplied.
    """
    from PIL import Image

    side = max(1, round(extent))
    turned = picture.resize((side, side), Image.Resampling.LANCZOS).rotate(angle, Image.Resampling.BICUBIC, expand=True)
    visible = turned.crop(turned.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(visible, (round(left * (SIZE - visible.width)), round(top * (SIZE - visible.height))))
    values = np.asarray(canvas, dtype=np.float64) / 255.0
    return values[..., :3], values[..., 3:]


def over(colours: np.ndarray, opacity: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """A picture laid over a ground (56, 56, 3)."""
    return opacity * colours + (1.0 - opacity) * ground
