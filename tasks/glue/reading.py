"""GLUE's parquet files as splits."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ...bench.errors import AssetError
from ...bench.sources import folder
from ..contract import Card, Split, SplitName


def read(card: Card, split: SplitName) -> Split:
    """A split; `text`, and `pair` where the task has two columns. The published validation set is the test split.

    Training items are ordered by the hash of their names, so that the part at the end which tuning holds out is drawn
    at random, and alike everywhere. Raises AssetError where there are not as many items as the card says.
    """
    names = ("train",) if split == "train" else tuple(card.options["test"])
    rows = [row for name in names for row in _rows(card, name)]
    if len(rows) != card.sizes[split]:
        raise AssetError(f"{card.id}: {split} has {len(rows)} items, its card says {card.sizes[split]}")
    if split == "train":
        rows.sort(key=lambda row: hashlib.sha256(row["item"].encode()).digest())
    columns = dict(zip(("text", "pair"), card.options["columns"], strict=False))
    return Split(
        {name: [row[column] for row in rows] for name, column in columns.items()},
        np.array([row["label"] for row in rows], dtype=np.int64 if card.outputs > 1 else np.float64),
        tuple(row["item"] for row in rows),
    )


def _rows(card: Card, name: str) -> list[dict[str, Any]]:
    """The rows of one published split, each with its name: "rte/validation/17"."""
    import pyarrow.parquet as parquet

    subset = card.options["subset"]
    wanted = [*card.options["columns"], "label", "idx"]
    files = sorted(folder(card.sources[0]).glob(f"{subset}/{name}-*.parquet"))
    rows = [row for file in files for row in parquet.read_table(file, columns=wanted).to_pylist()]
    return [{**row, "item": f"{subset}/{name}/{row['idx']}"} for row in rows]
