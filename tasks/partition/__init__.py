"""Which Twemoji belong to which use: one committed partition, read by every task and pretraining script.

See `build` for how `twemoji.csv` is made and why the shares are what they are.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

Share = Literal["vision", "clip-align", "clip-unseen", "diffusion-pretrain", "diffusion-subject"]
SHARES: tuple[Share, ...] = get_args(Share)
FILE = Path(__file__).with_name("twemoji.csv")


@dataclass(frozen=True)
class Emoji:
    """One row of the partition."""

    codepoints: str  # stem of the picture's file, e.g. "1f469-200d-1f680"
    base: str  # without skin tone, gender and direction; "man", "woman" and "person" count as one
    group: str  # emoji of one group (variants of one base, look-alikes) always share one fate
    share: Share
    category: str  # Unicode's group, e.g. "Food & Drink"; empty for emoji newer than the list of names


@lru_cache(maxsize=1)
def partition() -> tuple[Emoji, ...]:
    """Every Twemoji picture with its share, sorted by code points."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Emoji(**row) for row in csv.DictReader(file))  # type: ignore[arg-type]


def emoji_of(share: Share) -> tuple[Emoji, ...]:
    """The pictures of one share, sorted by code points."""
    return tuple(emoji for emoji in partition() if emoji.share == share)
