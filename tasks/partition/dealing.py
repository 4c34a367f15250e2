"""Dealing groups of unequal size to uses in given proportions."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T", bound=str)


def deal(sizes: Mapping[str, int], parts: Mapping[T, float], salt: str) -> dict[str, T]:
    """Group -> use. `sizes` counts each group's members, `parts` says which share of all members a use shall get.

    Groups come in the order of a salted hash, so neither their names nor their sizes favour a use. Each goes to the use
    that is relatively furthest behind among those with room for it, or, where none has room, to the one with most.
    """
    total = sum(sizes.values())
    lacking = {use: part * total for use, part in parts.items()}
    dealt: dict[str, T] = {}
    for group in sorted(sizes, key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).hexdigest()):
        with_room = [use for use in parts if lacking[use] >= sizes[group]]
        if with_room:
            use = max(with_room, key=lambda name: lacking[name] / parts[name])
        else:
            use = max(parts, key=lambda name: lacking[name])
        dealt[group] = use
        lacking[use] -= sizes[group]
    return dealt


def deal_by_category(members: Iterable[tuple[str, str]], parts: Mapping[T, float], salt: str) -> dict[str, T]:
    """Group -> use, dealt within each category, for members given as (group, category).

    A group whose members are of several categories counts wholly for the one with most of them.
    """
    categories: dict[str, Counter[str]] = defaultdict(Counter)
    for group, category in members:
        categories[group][category] += 1
    by_category: dict[str, dict[str, int]] = defaultdict(dict)
    for group, counts in categories.items():
        by_category[max(counts, key=lambda name: (counts[name], name))][group] = counts.total()
    dealt: dict[str, T] = {}
    for sizes in by_category.values():
        dealt.update(deal(sizes, parts, salt))
    return dealt
