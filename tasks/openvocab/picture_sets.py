"""Sets of pictures that open-vocabulary tasks are made from: uint8 (N, 56, 56, 3) with labels, train and test."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from ...bench.errors import UsageError, did_you_mean
from ...bench.registry import registry
from ..contract import Split, SplitName
from ..vision.clutter import CODEPOINTS
from ..vision.drawing import SIZE, SPLITS, generator, shuffled_labels, to_pixels
from ..vision.pictures import emoji_pictures, over, posed
from .casting import random_ground
from .emoji_names import emoji_names, named_emoji
from .scenes import MOST, Scene, Thing, coloured_shapes, draw, scene_generator

NAMES_SEED, PLAIN_SEED, SHIFT_SEED = 1201, 1202, 1203
EXTENT = (0.55, 0.95)  # of the picture's side
ANGLE = 25.0  # degrees to either side
SHOTS, TEST_ITEMS = 16, 500  # where pictures are drawn: of each class in train, and of all in test at most
SCENES = ("shapes", "counts")  # a set's place is the first index of its scenes
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
NOISE = 0.15  # deviation, of values in 0..1
SHRUNK = 34  # pixels of a side that had 56


@lru_cache(maxsize=2)  # the cards of one set follow one another
def picture_set(name: str, split: SplitName) -> Split:
    """A split of a set, the same on every machine. UsageError for an unknown name."""
    if name not in SETS:
        near = did_you_mean(name, SETS) or f" There are {', '.join(SETS)}."
        raise UsageError(f"unknown set of pictures {name!r}.{near}")
    return SETS[name](split)


def _of_task(task_id: str, split: SplitName) -> Split:
    """The pictures of a vision task."""
    tasks = registry("tasks")
    made: Split = tasks.load(task_id)(tasks.card(task_id)).build(split)
    return made


def _each_emoji_once(split: SplitName) -> Split:
    """The vision task `emoji`, without second showings of an emoji: a shot is a picture of its own."""
    shown = _of_task("emoji", split)
    return shown.take(np.array([i for i, item in enumerate(shown.items) if item.endswith("/0")]))


def unseen_emoji() -> tuple[tuple[str, str], ...]:
    """(name, code points) of each emoji in the partition's share that no CLIP is aligned on, in alphabetical order."""
    return tuple(sorted((emoji_names()[e.codepoints].name, e.codepoints) for e in named_emoji("clip-unseen")))


def _emoji_by_name(split: SplitName) -> Split:
    """Each unseen emoji in its own colours, turned, on a plain ground of any colour. Label i: `unseen_emoji()[i]`."""
    return _posed_emoji("names", [codepoints for _, codepoints in unseen_emoji()], NAMES_SEED, split)


def _plain_clutter(split: SplitName) -> Split:
    """The emoji of the vision task `clutter` in their own colours, on plain grounds: nothing is cluttered."""
    return _posed_emoji("clutter-plain", CODEPOINTS, PLAIN_SEED, split)


def _posed_emoji(name: str, codepoints: Sequence[str], seed: int, split: SplitName) -> Split:
    pictures = emoji_pictures(codepoints)

    def picture(rng: np.random.Generator, label: int) -> np.ndarray:
        extent, angle, ground = SIZE * rng.uniform(*EXTENT), rng.uniform(-ANGLE, ANGLE), rng.random(3)
        colours, opacity = posed(pictures[codepoints[label]], extent, angle, rng.random(), rng.random())
        return to_pixels(over(colours, opacity, ground))

    return _drawn(name, len(codepoints), split, partial(generator, seed, split), picture)


def _coloured_shapes(split: SplitName) -> Split:
    """One shape each, of the pairs of shape and colour that no CLIP is aligned on. Label i: `kept_shapes()[i]`."""
    things = kept_shapes()

    def picture(rng: np.random.Generator, label: int) -> np.ndarray:
        return draw(Scene(things[label], random_ground(rng, things[label])), rng)

    return _drawn("shapes", len(things), split, partial(_task_scene, "shapes", split), picture)


def _counts(split: SplitName) -> Split:
    """`label + 1` equal shapes, of the pairs of shape and colour that no CLIP is aligned on."""
    things = kept_shapes()

    def picture(rng: np.random.Generator, label: int) -> np.ndarray:
        thing = things[rng.integers(len(things))]
        return draw(Scene(thing, random_ground(rng, thing), count=label + 1), rng)

    return _drawn("counts", MOST, split, partial(_task_scene, "counts", split), picture)


def kept_shapes() -> list[Thing]:
    """Pairs of shape and colour that no CLIP is aligned on, in the order of their names."""
    return sorted(coloured_shapes(kept=True), key=lambda thing: (thing.name, thing.colour))


def _task_scene(name: str, split: SplitName, *index: int) -> np.random.Generator:
    return scene_generator("task", SCENES.index(name), SPLITS.index(split), *index)


def _drawn(
    name: str,
    classes: int,
    split: SplitName,
    stream: Callable[..., np.random.Generator],
    picture: Callable[[np.random.Generator, int], np.ndarray],
) -> Split:
    """As many pictures of each class, in shuffled rounds; `stream(i)` is item i's generator, `stream()` the order's."""
    rounds = SHOTS if split == "train" else TEST_ITEMS // classes
    labels = shuffled_labels(stream(), rounds * classes, classes)
    images = np.stack([picture(stream(item), int(label)) for item, label in enumerate(labels)])
    return Split({"image": images}, labels, tuple(f"{name}/{split}/{item}" for item in range(len(labels))))


def _shifted(name: str, change: Callable[[np.ndarray], np.ndarray], split: SplitName) -> Split:
    """The pictures of `clutter`, changed; items keep their names behind the shift's."""
    given = _of_task("clutter", split)
    images = np.stack([to_pixels(change(image / 255.0)) for image in given.inputs["image"]])
    return Split({"image": images}, given.labels, tuple(f"{name}/{item}" for item in given.items))


def grey(image: np.ndarray) -> np.ndarray:
    """Without colour: luma in all three channels."""
    return np.repeat((image @ np.array(LUMA))[..., None], 3, axis=2)


def noisy(image: np.ndarray) -> np.ndarray:
    """With normal noise, which the picture itself seeds."""
    seed = zlib.crc32(to_pixels(image).tobytes())
    return image + NOISE * np.random.Generator(np.random.PCG64([SHIFT_SEED, seed])).standard_normal(image.shape)


def small(image: np.ndarray) -> np.ndarray:
    """Shrunk to 34 pixels, in the middle of its own mean colour."""
    from PIL import Image

    inner = Image.fromarray(to_pixels(image)).resize((SHRUNK, SHRUNK), Image.Resampling.BOX)
    canvas = np.broadcast_to(image.mean((0, 1)), image.shape).copy()
    start = (SIZE - SHRUNK) // 2
    canvas[start : start + SHRUNK, start : start + SHRUNK] = np.asarray(inner) / 255.0
    return canvas


SETS: dict[str, Callable[[SplitName], Split]] = {
    "clutter": partial(_of_task, "clutter"),
    "clutter-grey": partial(_shifted, "clutter-grey", grey),
    "clutter-noise": partial(_shifted, "clutter-noise", noisy),
    "clutter-small": partial(_shifted, "clutter-small", small),
    "clutter-plain": _plain_clutter,
    "digits": partial(_of_task, "mnist"),
    "emoji": _each_emoji_once,
    "names": _emoji_by_name,
    "shapes": _coloured_shapes,
    "counts": _counts,
}
