"""A folder with lists of pictures: `train800.txt`, `val200.txt`, `test.txt`, a line for each picture and its class."""

from __future__ import annotations

import numpy as np

from ...bench.errors import AssetError
from ...bench.sources import folder
from ..classification import Classification
from ..contract import Split, SplitName
from ..image_files import read_images

LISTS = {"train": ("train800.txt", "val200.txt"), "test": ("test.txt",)}


class ImageList(Classification):
    """One task of VTAB-1k. Training pictures are the 800, then the 200, so that tuning holds out just the 200."""

    def build(self, split: SplitName) -> Split:
        """`image` of the card's `size`; items are named by list and line. AssetError where the lists are others."""
        root = folder(self.card.sources[0])
        lines = [
            (f"{self.card.id}/{name.removesuffix('.txt')}/{number}", line)
            for name in LISTS[split]
            for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines())
        ]
        if len(lines) != self.card.sizes[split]:
            raise AssetError(
                f"{root}: {split} has {len(lines)} items, the card of {self.card.id} says {self.card.sizes[split]}"
            )
        pairs = [line.rsplit(maxsplit=1) for _, line in lines]
        labels = np.array([int(label) for _, label in pairs], dtype=np.int64)
        if not 0 <= labels.min() <= labels.max() < self.card.outputs:
            raise AssetError(f"{root}: class {labels.max()} of {split} is none of {self.card.id}'s {self.card.outputs}")
        images = read_images([root / path for path, _ in pairs], self.card.options["size"])
        return Split({"image": images}, labels, tuple(item for item, _ in lines))
