"""Which of eight Unicode groups an emoji belongs to: single code points on white, from the partition's vision share.

Look-alikes stay together: groups of the partition are dealt to test, to the first 800 of train and to the last 200
(which tuning validates on), within each class. About 460 emoji remain for train, so each is shown two or three times,
in other poses. In test each is shown once: repeats would be correlated items, and count as evidence twice. Hence a test
split smaller than the 500 of the other tasks.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..contract import Split, SplitName
from ..partition import Emoji, emoji_of
from ..partition.dealing import deal_by_category
from .built_once import BuiltOnce
from .drawing import SIZE, generator, to_pixels
from .pictures import emoji_pictures, over, posed

Part = Literal["fit", "validation", "test"]

SEED = 201
PARTS: dict[Part, float] = {"fit": 0.50, "validation": 0.125, "test": 0.375}
VALIDATION = 200  # the last items of train, which share no group with those before
UNICODE_GROUPS = (  # in the order of the card's classes
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
)
EXTENT = (0.85, 1.0)  # of the picture's side
ANGLE = 10.0  # degrees to either side


class EmojiCategory(BuiltOnce):
    """Emoji upright or slightly turned, on white."""

    def make(self, split: SplitName) -> Split:
        """Items are named by code points and showing: "emoji/1f600/0"."""
        if split == "test":
            shown = self._showings("test", self.card.sizes["test"])
        else:
            shown = self._showings("fit", self.card.sizes["train"] - VALIDATION)
            shown += self._showings("validation", VALIDATION)
        pictures = emoji_pictures({emoji.codepoints for emoji, _ in shown})
        images = np.empty((len(shown), SIZE, SIZE, 3), dtype=np.uint8)
        for item, (emoji, _) in enumerate(shown):
            rng = generator(SEED, split, item)
            extent, angle = SIZE * rng.uniform(*EXTENT), rng.uniform(-ANGLE, ANGLE)
            colours, opacity = posed(pictures[emoji.codepoints], extent, angle, rng.random(), rng.random())
            images[item] = to_pixels(over(colours, opacity, np.ones(3)))
        labels = np.array([UNICODE_GROUPS.index(emoji.category) for emoji, _ in shown], dtype=np.int64)
        return Split({"image": images}, labels, tuple(f"emoji/{emoji.codepoints}/{n}" for emoji, n in shown))

    def _showings(self, part: Part, items: int) -> list[tuple[Emoji, int]]:
        """`items` pairs of emoji and showing in random order; showings of two emoji differ by one at most."""
        rng = generator(SEED, "test" if part == "test" else "train", len(part))
        members = emoji_of_part(part)
        order = rng.permutation(len(members))
        showings = [(members[order[item % len(members)]], item // len(members)) for item in range(items)]
        return [showings[index] for index in rng.permutation(items)]


def emoji_of_part(part: Part) -> list[Emoji]:
    """The single-code-point emoji of one part, sorted by code points."""
    single = [emoji for emoji in emoji_of("vision") if "-" not in emoji.codepoints and emoji.category]
    dealt = deal_by_category([(emoji.group, emoji.category) for emoji in single], PARTS, "emoji task 1")
    return [emoji for emoji in single if dealt[emoji.group] == part]
