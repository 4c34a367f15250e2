"""Subjects that the embedded generator has never seen: emoji of the share `diffusion-subject`, in five views each."""

from __future__ import annotations

import numpy as np

from ..vision.drawing import to_pixels
from ..vision.pictures import emoji_pictures, over, posed
from .customisation import Customisation, Subject
from .prompts import PLACEHOLDERS

# extent in pixels of 56, angle in degrees, left and top in shares of the free room, ground in RGB
POSES = (
    (48, 0, 0.5, 0.5, (255, 255, 255)),
    (36, 15, 0.1, 0.8, (168, 208, 160)),
    (30, -20, 0.9, 0.2, (240, 224, 160)),
    (40, -8, 0.8, 0.9, (176, 200, 232)),
    (44, 24, 0.3, 0.3, (216, 216, 216)),
)
# what the generator's captions say of one thing, and of two (bench/pretraining/diffusion)
SCENES = (
    "{} on a red background",
    "{} on a blue background",
    "{} on a black background",
    "a drawing of {} on a green background",
    "a small {} at the left",
    "a small {} at the right",
    "a small {} at the top",
    "a large {} on a yellow background",
)
SCENES_OF_TWO = (
    "{} to the left of {}",
    "{} to the right of {}",
    "{} above {}",
    "{} below {}",
    "{} and {}",
    "a drawing of {} and {}",
    "{} and {} on a blue background",
    "{} and {} on a yellow background",
)


class EmojiSubjects(Customisation):
    """The card's option `subjects` lists what each placeholder stands for: `emoji` (code points) and `noun`."""

    def read_subjects(self) -> list[Subject]:
        found = []
        for placeholder, subject in zip(PLACEHOLDERS, self.card.options["subjects"], strict=False):
            views = _views(subject["emoji"])
            found.append(Subject(subject["noun"], f"a {placeholder} {subject['noun']}", views))
        return found

    def read_prompts(self) -> list[str]:
        named = [subject.prompt for subject in self.subjects]
        if len(named) == 2:
            return [scene.format(*named) for scene in SCENES_OF_TWO]
        bare = named[0].removeprefix("a ")
        return [scene.format(bare if scene.startswith(("a small", "a large")) else named[0]) for scene in SCENES]


def _views(codepoints: str) -> np.ndarray:
    """uint8 (5, 56, 56, 3): the emoji in each pose."""
    picture = emoji_pictures([codepoints])[codepoints]
    views = []
    for extent, angle, left, top, ground in POSES:
        colours, opacity = posed(picture, extent, angle, left, top)
        views.append(to_pixels(over(colours, opacity, np.full_like(colours, ground) / 255.0)))
    return np.stack(views)
