"""Find reviews that repeat each other. `near_duplicates.txt` lists the ones no task may draw, so that drawing is fast.

    python -m peft_atlas.tasks.text.near_duplicates      # writes the list again, a minute

Two texts are near-duplicates when their sets of four-word shingles overlap by a Jaccard index of at least 0.5, or when
70% of the smaller set lie in the larger (an excerpt). Method: Broder, "On the resemblance and containment of
documents", SEQUENCES 1997; exact here, not sketched.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

LIST = Path(__file__).with_suffix(".txt")
SHINGLE = 4
JACCARD = 0.5
CONTAINMENT = 0.7
COMMON = 60  # a shingle in more texts than this says little, and would make pairs by the million
_WORD = re.compile(r"[a-z0-9]+")


def near_duplicate_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs (i < j) of texts that repeat each other, sorted. Case, punctuation and spacing do not count."""
    vocabulary: dict[str, int] = {}
    shingles = [_shingles(text, vocabulary) for text in texts]
    owners = np.repeat(np.arange(len(texts)), [len(one) for one in shingles])
    values = np.concatenate([*shingles, np.empty(0, dtype=np.uint64)])
    order = np.argsort(values, kind="stable")
    groups = np.split(owners[order], np.flatnonzero(np.diff(values[order])) + 1)
    candidates: set[tuple[int, int]] = set()
    for group in groups:
        if 1 < len(group) <= COMMON:
            candidates.update(combinations(group.tolist(), 2))
    return sorted(pair for pair in candidates if _repeats(shingles[pair[0]], shingles[pair[1]]))


def listed() -> frozenset[str]:
    """Items that repeat another review, as `reviews.item` names them."""
    return frozenset(LIST.read_text(encoding="ascii").split())


def redundant(items: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """All but the alphabetically first item of each group that `pairs` connect, sorted."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for a, b in pairs:
        neighbours[a].append(b)
        neighbours[b].append(a)
    dropped: set[str] = set()
    seen: set[int] = set()
    for start in neighbours:
        group, waiting = set(), [start]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                group.add(items[one])
                waiting += neighbours[one]
        dropped |= group - {min(group)} if group else set()
    return sorted(dropped)


def _shingles(text: str, vocabulary: dict[str, int]) -> np.ndarray:
    """Sorted, distinct 64-bit codes of all runs of four words; a shorter text is one run."""
    words = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in _WORD.findall(text.lower())]
    words += [0] * (SHINGLE - len(words))
    ids = np.array(words, dtype=np.uint64)
    codes = np.zeros(len(ids) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):  # polynomial in an odd 64-bit constant (Knuth's multiplier), wrapping
        codes = codes * np.uint64(6364136223846793005) + ids[offset : offset + len(codes)]
    return np.unique(codes)


def _repeats(a: np.ndarray, b: np.ndarray) -> bool:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return bool(shared >= JACCARD * (len(a) + len(b) - shared) or shared >= CONTAINMENT * min(len(a), len(b)))


def main() -> None:
    """Search whole reviews, then what IMDB's tasks show of them (a shared ending), and write the list."""
    from .reviews import ending, opening, read_reviews

    reviews = read_reviews()
    pairs = near_duplicate_pairs([review.text for review in reviews])
    for shown in (ending, opening):
        pairs += near_duplicate_pairs([shown(review.text) for review in reviews])
    LIST.write_text("\n".join(redundant([review.item for review in reviews], pairs)) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
