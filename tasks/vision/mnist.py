"""Handwritten digits: a balanced draw of 1,500 from the 5,000 of the asset, doubled to 56 pixels."""

from __future__ import annotations

import numpy as np

from ...bench.assets import asset
from ..classification import Classification
from ..contract import Split, SplitName
from .drawing import generator, shuffled_labels

SEED = 101


class Mnist(Classification):
    """White digits on black, each pixel of the original 28 x 28 drawn as 2 x 2."""

    def build(self, split: SplitName) -> Split:
        """Items are named by their row in the asset: "mnist/4711"."""
        with np.load(asset("mnist-5k") / "mnist.npz") as digits:
            images, labels = digits["images"], digits["labels"].astype(np.int64)
        rows = self._rows(split, labels)
        doubled = images[rows].repeat(2, axis=1).repeat(2, axis=2)
        return Split(
            {"image": np.repeat(doubled[..., None], 3, axis=3)}, labels[rows], tuple(f"mnist/{row}" for row in rows)
        )

    def _rows(self, split: SplitName, labels: np.ndarray) -> np.ndarray:
        """Rows of a split: of each class the first of a permutation for train, the next for test, classes in rounds."""
        classes, items = len(self.card.classes), self.card.sizes[split]
        order = np.random.Generator(np.random.PCG64(SEED))
        shuffled = [order.permutation(np.flatnonzero(labels == label)) for label in range(classes)]
        next_row = [0 if split == "train" else self.card.sizes["train"] // classes] * classes
        rows = np.empty(items, dtype=np.int64)
        for item, label in enumerate(shuffled_labels(generator(SEED, split), items, classes)):
            rows[item] = shuffled[label][next_row[label]]
            next_row[label] += 1
        return rows
