"""What emoji are called, in words: for captions and for the classes of open-vocabulary tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ...bench.assets import asset
from ..partition import Emoji, Share, emoji_of


@dataclass(frozen=True)
class EmojiNames:
    """The words for one emoji."""

    name: str  # Unicode's, in lower case: "slice of pizza"
    others: tuple[str, ...]  # short names that differ from it: ("pizza",)
    category: str  # "Food & Drink"
    subcategory: str  # "food prepared"


@lru_cache(maxsize=1)
def emoji_names() -> dict[str, EmojiNames]:
    """Code points -> names, for every emoji (also with a skin tone) of the list of names."""
    import pandas

    table = pandas.read_parquet(asset("emoji-names") / "emoji.parquet")
    return {
        row.codepoints: EmojiNames(
            name := _plain(row.name),
            tuple(other for other in map(_plain, row.short_names.split()) if other != name),
            row.category,
            _plain(row.subcategory),
        )
        for row in table[["codepoints", "name", "short_names", "category", "subcategory"]].itertuples(index=False)
    }


def named_emoji(share: Share) -> list[Emoji]:
    """The single-code-point emoji of a share that have a name, sorted by code points."""
    return [emoji for emoji in emoji_of(share) if "-" not in emoji.codepoints and emoji.codepoints in emoji_names()]


def _plain(name: str) -> str:
    """Lower case, words set apart by single spaces."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())
