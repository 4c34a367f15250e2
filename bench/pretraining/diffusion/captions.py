"""What is true of a drawing, in words: what it shows, how large, where, on what."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ....tasks.openvocab.emoji_names import EmojiNames, emoji_names
from ....tasks.openvocab.sentences import article

TEMPLATES = ("{}", "a drawing of {}", "a picture of {}", "an emoji of {}")
SAID = 0.9  # how often a caption tells what leaves the usual: so what it does not tell is mostly usual
SAID_OF_USUAL = 0.25
NAMED = (0.6, 0.25, 0.15)  # how often by Unicode's name, by another name, by the kind of thing
CODED = re.compile(r"\d|^flag |^\w{1,2}$")  # "clock830", "flag np", "de": no words
# Unicode's subcategories, by their first words, as one would call their members
KINDS = {
    "animal bird": "bird",
    "animal bug": "insect",
    "animal marine": "sea animal",
    "animal": "animal",
    "plant flower": "flower",
    "plant": "plant",
    "food fruit": "fruit",
    "food vegetable": "vegetable",
    "food sweet": "dessert",
    "food": "dish",
    "drink": "drink",
    "country flag": "flag",
    "subdivision flag": "flag",
    "flag": "flag",
    "transport ground": "vehicle",
    "transport water": "boat",
    "transport air": "aircraft",
    "face": "face",
    "cat face": "cat",
    "monkey face": "monkey",
    "person": "person",
    "family": "group of people",
    "hand": "hand",
    "clothing": "piece of clothing",
    "musical instrument": "musical instrument",
    "tool": "tool",
    "place building": "building",
    "household": "piece of furniture",
    "heart": "heart",
    "keycap": "button",
    "alphanum": "button",
    "time": "clock",
    "geometric": "shape",
    "arrow": "arrow",
    "zodiac": "sign",
    "sky & weather": "weather sign",
    "office": "office supply",
    "light & video": "device",
    "computer": "device",
    "phone": "device",
}


@dataclass(frozen=True)
class Scene:
    """One thing in a drawing; empty words are the usual: white ground, middling size, the middle."""

    name: str  # "slice of pizza", "red circle"
    ground: str = ""  # a key of COLOURS
    size: str = ""  # small, large
    place: str = ""  # left, right, top, bottom


def name_of(rng: np.random.Generator, codepoints: str) -> str:
    """One of the names of an emoji, or what kind of thing it is."""
    names = emoji_names()[codepoints]
    chosen = rng.choice(3, p=NAMED)
    others = [name for name in names.others if not CODED.search(name)]
    if chosen == 1 and others:
        return others[0]
    return (kind_of(names) if chosen == 2 else "") or names.name


def kind_of(names: EmojiNames) -> str:
    """What a thing of its subcategory is called; empty where that has no everyday name."""
    words = names.subcategory.split()
    prefixes = (" ".join(words[:length]) for length in range(len(words), 0, -1))
    return next((KINDS[prefix] for prefix in prefixes if prefix in KINDS), "")


def caption(rng: np.random.Generator, scene: Scene) -> str:
    """ "a drawing of a small pear on a red background": nothing that is not true, and not always all of it."""
    told_size = scene.size and rng.random() < SAID
    name = f"{scene.size} {scene.name}" if told_size else scene.name
    words = TEMPLATES[rng.integers(len(TEMPLATES))].format(f"{article(name)} {name}")
    if rng.random() < (SAID if scene.place else SAID_OF_USUAL):
        words += f" at the {scene.place}" if scene.place else " in the middle"
    if rng.random() < (SAID if scene.ground else SAID_OF_USUAL):
        ground = scene.ground or "white"
        words += f" on {article(ground)} {ground} background"
    return words
