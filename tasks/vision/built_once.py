"""Vision splits take a second or two to draw, and every cell needs them: they are drawn once and then read back."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from abc import abstractmethod
from pathlib import Path

import numpy as np

from ...bench.assets import cache_folder
from ..classification import Classification
from ..contract import Split, SplitName

BESIDE = ("labels", "items")  # what a kept file holds besides the columns of inputs


class BuiltOnce(Classification):
    """Pictures in the column "image", made by `make` and kept in the cache folder under the card's fingerprint.

    A kept file counts only when its content has the fingerprint that the card states; so a card is never served
    anything but its own data, and a damaged file is made again.
    """

    @abstractmethod
    def make(self, split: SplitName) -> Split:
        """Draw the split: uint8 (N, 56, 56, 3), int64 labels."""

    def build(self, split: SplitName) -> Split:
        """The split, from the cache folder when it lies there. A cache that cannot be written is no error."""
        stated = self.card.fingerprints.get(split)
        if stated is None:
            return self.make(split)
        file = cache_folder() / "splits" / f"{self.card.id}-{split}-{stated}.npz"
        kept = _read(file)
        if kept is not None and kept.fingerprint() == stated:
            return kept
        made = self.make(split)
        with contextlib.suppress(OSError):
            _write(file, made)
        return made


def _read(file: Path) -> Split | None:
    try:
        with np.load(file) as columns:
            inputs = {name: columns[name] for name in columns.files if name not in BESIDE}
            return Split(inputs, columns["labels"], tuple(columns["items"].tolist()))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, split: Split) -> None:
    """Whole or not at all, also when two processes write at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **split.inputs, labels=np.asarray(split.labels), items=np.array(split.items))
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)
