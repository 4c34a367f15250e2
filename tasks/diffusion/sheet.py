"""A contact sheet: rows of small pictures with a line of text above each, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

MOST_BYTES = 200_000
SIDES = (96, 80, 64, 48, 32, 24, 16)  # pixels of a tile; the first with which the file is small enough
LINE, LETTER, GAP = 14, 6, 4  # pixels of a line of text, of a letter, and between tiles
COLOURS = 64  # of the palette, where the whole range would make the file too large

Row = tuple[str, np.ndarray]  # a text, and pictures uint8 (N, H, W, 3)


def contact_sheet(rows: Sequence[Row], most_bytes: int = MOST_BYTES) -> bytes:
    """A PNG of at most `most_bytes`, with tiles no larger than the pictures are, but for the small ones.

    Raises ValueError where even the smallest tiles make it larger.
    """
    for side in SIDES:
        for colours in (0, COLOURS):
            content = _png(rows, side, colours)
            if len(content) <= most_bytes:
                return content
    raise ValueError(f"{sum(len(pictures) for _, pictures in rows)} pictures do not fit into {most_bytes:,} bytes")


def _png(rows: Sequence[Row], side: int, colours: int) -> bytes:
    from PIL import Image, ImageDraw

    columns = max(len(pictures) for _, pictures in rows)
    height = LINE + side + GAP
    sheet = Image.new(
        "RGB", (max(columns * (side + GAP), 6 * max(len(text) for text, _ in rows)), len(rows) * height), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for number, (text, pictures) in enumerate(rows):
        draw.text((0, number * height), text, fill="black")
        for column, picture in enumerate(pictures):
            sampling = Image.Resampling.NEAREST if side > len(picture) else Image.Resampling.BICUBIC
            tile = Image.fromarray(picture).resize((side, side), sampling)
            sheet.paste(tile, (column * (side + GAP), number * height + LINE))
    buffer = io.BytesIO()
    (sheet.quantize(colours) if colours else sheet).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
