"""Make `twemoji.csv`: every Twemoji picture goes to exactly one use. `python -m peft_atlas.tasks.partition.build`.

The unit is a group: a base emoji with its skin-tone, gender and direction variants, or a whole look-alike family
(`families`). Groups are dealt within each Unicode category, in the order of a hash, each to the use that is furthest
behind and has room for it, so that every use sees every category in about the same proportion.

Shares, in base emoji of each category:

- vision 55%: eight classes have to be told apart by base emoji on both sides of a train/test cut. A pilot used all
  1,372 single-code-point emoji for it; every emoji less costs accuracy and width of the interval there.
- clip-align 18%: names and pictures on which a CLIP is aligned. Its text tower knows the words already, so some 250
  pairs of all categories (and their variants) are to teach the map, not the vocabulary.
- clip-unseen 5%: about 70 emoji that the CLIP never sees: its zero-shot and few-shot classes.
- diffusion-pretrain 17%, and all flags, clock faces, keycaps and plain shapes besides: shapes and colours for a
  generator, where many near-identical pictures do no harm. Held in any other use, they would be a quarter of it and
  say next to nothing. Emoji newer than the list of names also go here, unless they are variants of a named one.
- diffusion-subject 5%: subjects to personalise a generator with, unseen in its pretraining and by the CLIP.

A tower that conditions a generator never scores it: clip-align and diffusion-pretrain are disjoint from each other, and
clip-unseen, diffusion-subject and vision from both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from ...bench.assets import asset
from . import FILE, Emoji, Share
from .dealing import deal_by_category
from .families import family_of

PARTS: Mapping[Share, float] = {
    "vision": 0.55,
    "clip-align": 0.18,
    "clip-unseen": 0.05,
    "diffusion-pretrain": 0.17,
    "diffusion-subject": 0.05,
}
DIFFUSION_FAMILIES = frozenset({"flags", "clock-faces", "keycaps", "plain-shapes"})
SALT = "twemoji partition 1"

SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})
GENDERS_AND_DIRECTION = frozenset({"2640", "2642", "27a1"})  # after a joiner
PERSON = "1f9d1"
ADULTS = frozenset({"1f468", "1f469", PERSON})
PEOPLE = ADULTS | {"1f466", "1f467", "1f9d2"}
HAIR = frozenset({"1f9b0", "1f9b1", "1f9b2", "1f9b3"})
PAIRS = {"1f430": "1f46f", "1faef": "1f93c"}  # what stands between two people -> the single code point they vary
REGIONAL_INDICATORS = frozenset(f"{code:x}" for code in range(0x1F1E6, 0x1F200))
JOINER = "200d"


def base_of(codepoints: str) -> str:
    """Code points without skin tone, gender and direction; man and woman become person. A lone tone stays itself."""
    parts = [part for part in codepoints.split("-") if part != "fe0f"]
    kept = [part for part in parts if part not in SKIN_TONES] or parts
    links = " ".join(kept).split(f" {JOINER} ")
    links = links[:1] + [link for link in links[1:] if link not in GENDERS_AND_DIRECTION]
    people = sum(link in PEOPLE for link in links)
    if people == 2:
        between = [PAIRS[link] for link in links if link in PAIRS]
        if between:
            return between[0]
    if people == 1 and links[0] in ADULTS and len(links) > 1:
        links[0] = PERSON
    return f"-{JOINER}-".join(link.replace(" ", "-") for link in links)


def group_of(base: str, subcategories: Mapping[str, str]) -> str:
    """The group of a base: its look-alike family, or itself. A sequence follows its first code point."""
    links = base.split(f"-{JOINER}-")
    first = links[0]
    if first.split("-")[0] in REGIONAL_INDICATORS:
        return "flags"
    if sum(link in PEOPLE for link in links) > 1:
        return "couples"
    if first in PEOPLE and len(links) > 1 and links[1] not in HAIR:
        return base
    return family_of(first, subcategories.get(first, subcategories.get(base, ""))) or first


def rows(pictures: Iterable[str], subcategories: Mapping[str, str], categories: Mapping[str, str]) -> list[Emoji]:
    """The partition of the pictures (file stems). The mappings are by base, without the selector FE0F."""
    bases = {picture: base_of(picture) for picture in sorted(pictures)}
    groups = {base: group_of(base, subcategories) for base in bases.values()}
    shares = shares_of(groups, categories)
    return [
        Emoji(picture, base, groups[base], shares[groups[base]], categories.get(base, ""))
        for picture, base in bases.items()
    ]


def shares_of(groups: Mapping[str, str], categories: Mapping[str, str]) -> dict[str, Share]:
    """Group -> share, for groups given as base -> group."""
    named = [
        (group, categories[base])
        for base, group in groups.items()
        if base in categories and group not in DIFFUSION_FAMILIES
    ]
    shares: dict[str, Share] = dict.fromkeys(groups.values(), "diffusion-pretrain")
    shares.update(deal_by_category(named, PARTS, SALT))
    return shares


def make() -> str:
    """The text of `twemoji.csv`, from the assets."""
    import pandas

    pictures = pandas.read_parquet(asset("twemoji") / "twemoji.parquet", columns=["codepoints"])["codepoints"]
    names = pandas.read_parquet(asset("emoji-names") / "emoji.parquet")
    plain = names[names["skin_tone"] == ""]
    keys = [base_of(code) for code in plain["codepoints"]]
    subcategories = dict(zip(reversed(keys), reversed(list(plain["subcategory"])), strict=True))
    categories = dict(zip(reversed(keys), reversed(list(plain["category"])), strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["codepoints", "base", "group", "share", "category"])
    writer.writerows(
        (emoji.codepoints, emoji.base, emoji.group, emoji.share, emoji.category)
        for emoji in rows(pictures, subcategories, categories)
    )
    return text.getvalue()


if __name__ == "__main__":
    FILE.write_text(make(), encoding="utf-8")
