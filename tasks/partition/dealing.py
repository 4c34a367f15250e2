"""Dealing groups of unequal size to uses in given proportions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
