"""Clips in folders of the user, in the layouts of HMDB51, Something-Something-v2 and Kinetics.

A card's `options`: `frames`, `size` and `shorter` (see `read_clips`), and `per_class`, how many clips of each class a
split has. Where there are more, those whose paths have the smallest SHA-256 are taken, so that everyone takes the same;
training clips are in the order of that hash, so that what tuning holds out is drawn at random.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...bench.errors import AssetError
from ...bench.sources import folder
from ..classification import Classification
from ..contract import Split, SplitName
from .clip_files import read_clips

Listing = dict[str, list[str]]  # class -> paths of its clips below the root; classes in the order of their labels
ENDINGS = (".avi", ".mp4", ".webm", ".mkv", ".mov")
LIST, MARKS = "_test_split1.txt", {"train": "1", "test": "2"}  # of HMDB51
STEM, PARTS = "something-something-v2", {"train": "train", "test": "validation"}


class ClipFolder(Classification):
    """A task whose clips lie in a folder. Subclasses read the layout."""

    @abstractmethod
    def listing(self, root: Path, split: SplitName) -> Listing:
        """The clips of a split. Raises AssetError where the folder contradicts itself."""

    def build(self, split: SplitName) -> Split:
        """`clip`: uint8 (N, frames, size, size, 3); items are named by paths. AssetError for another folder."""
        root, options = folder(self.card.sources[0]), self.card.options
        found = self.listing(root, split)
        if len(found) != self.card.outputs:
            raise AssetError(f"{root} has {len(found)} classes, the card of {self.card.id} says {self.card.outputs}")
        wanted = options["per_class"][split]
        for name, paths in found.items():
            if len(paths) < wanted:
                raise AssetError(f"{root}: class {name!r} has {len(paths)} clips to {split} on, not {wanted}")
        chosen = [(path, label) for label, paths in enumerate(found.values()) for path in _drawn(paths)[:wanted]]
        chosen.sort(key=lambda pair: _hash(pair[0]))
        files = [root / path for path, _ in chosen]
        clips = read_clips(files, options["frames"], options["size"], options["shorter"])
        labels = np.array([label for _, label in chosen], dtype=np.int64)
        return Split({"clip": clips}, labels, tuple(f"{self.card.id}/{path}" for path, _ in chosen))


def _hash(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


def _drawn(paths: Iterable[str]) -> list[str]:
    """In the order of their hashes, which is the same everywhere and says nothing."""
    return sorted(paths, key=_hash)


def refuse_duplicates(names: Iterable[str], where: Path, what: str) -> None:
    """AssetError naming the first that comes twice, also in other letters or with `_` for a space."""
    first: dict[str, str] = {}
    for name in names:
        plain = name.casefold().replace("_", " ").strip()
        if plain in first:
            twice = f"{name!r} twice" if first[plain] == name else f"{first[plain]!r} and {name!r}"
            raise AssetError(f"{where}: {what} come twice: {twice}")
        first[plain] = name


class ClassFolders(ClipFolder):
    """`train/<class>/*.mp4` and `val/<class>/*.mp4`, as torchvision reads Kinetics; labels by the order of names."""

    def listing(self, root: Path, split: SplitName) -> Listing:
        """Classes are those of `train`."""
        names = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
        refuse_duplicates(names, root / "train", "classes")
        part = root / ("val" if split == "test" else "train")
        return {
            name: [path.relative_to(root).as_posix() for path in (part / name).glob("*") if path.suffix in ENDINGS]
            for name in names
        }


class SplitLists(ClipFolder):
    """`splits/<class>_test_split1.txt`, a line `<file> <1 train, 2 test, 0 neither>` for each clip of a class, which
    lies in `videos/<class>/`, as HMDB51 comes; labels by the order of names."""

    def listing(self, root: Path, split: SplitName) -> Listing:
        """Classes are those that have a list."""
        names = sorted(path.name.removesuffix(LIST) for path in (root / "splits").glob(f"*{LIST}"))
        refuse_duplicates(names, root / "splits", "classes")
        return {name: self._marked(root, name, MARKS[split]) for name in names}

    def _marked(self, root: Path, name: str, mark: str) -> list[str]:
        file = root / "splits" / f"{name}{LIST}"
        lines = [line.rsplit(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        twice = [clip for clip, count in Counter(line[0] for line in lines).items() if count > 1]
        if twice:
            raise AssetError(f"{file}: the clip {twice[0]} comes twice")
        return [f"videos/{name}/{line[0]}" for line in lines if line[-1] == mark]


class JsonLabels(ClipFolder):
    """`something-something-v2-labels.json`, a number for each class, and `-train.json` and `-validation.json`, an id
    and a template for each clip, which lies in `videos/<id>.webm`. A class is a template without its brackets."""

    def listing(self, root: Path, split: SplitName) -> Listing:
        """Classes in the order of their numbers."""
        numbers = self._numbers(root / f"{STEM}-labels.json")
        found: defaultdict[str, list[str]] = defaultdict(list)
        file = root / f"{STEM}-{PARTS[split]}.json"
        for clip in json.loads(file.read_text(encoding="utf-8")):
            name = clip["template"].replace("[", "").replace("]", "")
            if name not in numbers:
                raise AssetError(f"{file}: clip {clip['id']} is of the class {name!r}, which has no number")
            found[name].append(f"videos/{clip['id']}.webm")
        return {name: found[name] for name in numbers}

    def _numbers(self, file: Path) -> dict[str, int]:
        """Class -> number, in that order. A name or a number that comes twice is an AssetError."""
        pairs: list[tuple[str, Any]] = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=list)
        refuse_duplicates((name for name, _ in pairs), file, "classes")
        refuse_duplicates((str(number) for _, number in pairs), file, "numbers of classes")
        return dict(sorted(((name, int(number)) for name, number in pairs), key=lambda pair: pair[1]))
