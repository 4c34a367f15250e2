"""A folder with pictures and `train.json`, `test.json`: a class number for each picture's path."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from ...bench.errors import AssetError
from ...bench.sources import folder
from ..classification import Classification
from ..contract import Split, SplitName
from ..image_files import read_images


class Annotations(Classification):
    """One task of FGVC. Pictures are brought to 256 pixels at the shorter side and cut to the 224 in their middle.

    VPT cuts training pictures at random places and mirrors half of them; this harness shows each picture one way.
    Training pictures are ordered by the hash of their paths, so that what tuning holds out is drawn at random.
    """

    def build(self, split: SplitName) -> Split:
        """`image` of the card's `size`; items are named by the pictures' paths. AssetError for another split."""
        root, options = folder(self.card.sources[0]), self.card.options
        classes = {number: label for label, number in enumerate(sorted(set(_read(root / "train.json").values())))}
        found = _read(root / f"{split}.json")
        if len(found) != self.card.sizes[split] or len(classes) != self.card.outputs:
            raise AssetError(
                f"{root}: {split} has {len(found)} items of {len(classes)} classes, the card of {self.card.id} says "
                f"{self.card.sizes[split]} of {self.card.outputs}"
            )
        if unknown := set(found.values()) - classes.keys():
            raise AssetError(f"{root}: class {min(unknown)} of {split} is in no training picture")
        names = list(found)
        if split == "train":
            names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        files = [root / options["pictures"] / name for name in names]
        labels = np.array([classes[found[name]] for name in names], dtype=np.int64)
        images = read_images(files, options["size"], options["shorter"])
        return Split({"image": images}, labels, tuple(f"{self.card.id}/{name}" for name in names))


def _read(file: Path) -> dict[str, int]:
    content = json.loads(file.read_text(encoding="utf-8"))
    return {str(name): int(number) for name, number in content.items()}
