"""What is true of a scene, in words."""

from __future__ import annotations

from .scenes import INVERSE, Scene, Thing

NUMBERS = ("one", "two", "three", "four", "five", "six")
PHRASES = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}


def sentences(scene: Scene) -> tuple[str, ...]:
    """Sentences that are true of a scene, the most detailed first.

    Two scenes that share a sentence agree in what it says: "a circle" is one circle, not one of several.
    """
    if scene.other is not None:
        return _of_a_pair(scene, scene.other)
    full = phrase(scene.thing, scene.count)
    found = [f"{full} on {article(scene.ground)} {scene.ground} background", full]
    if not scene.thing.codepoints:
        bare, any_shape = Thing(scene.thing.name), Thing("shape")
        found += [phrase(bare, scene.count), phrase(any_shape, scene.count), f"something {scene.thing.colour}"]
    return tuple(found)


def _of_a_pair(scene: Scene, other: Thing) -> tuple[str, ...]:
    assert scene.relation is not None
    thing = scene.thing
    found = []
    for one, two in ((thing, other), (Thing(thing.name), Thing(other.name))):
        found += [_related(one, scene.relation, two), _related(two, INVERSE[scene.relation], one)]
    return tuple(
        dict.fromkeys([*found, f"{phrase(thing)} and {phrase(other)}", f"{phrase(other)} and {phrase(thing)}"])
    )


def _related(one: Thing, relation: str, two: Thing) -> str:
    return f"{phrase(one)} {PHRASES[relation]} {phrase(two)}"


def phrase(thing: Thing, count: int = 1) -> str:
    """ "a red circle", "three red circles", "an egg", "three egg emoji"."""
    name = f"{thing.colour} {thing.name}".strip()
    if count == 1:
        return f"{article(name)} {name}"
    if thing.codepoints:
        return f"{NUMBERS[count - 1]} {name} emoji"
    return f"{NUMBERS[count - 1]} {name}{'es' if name.endswith('s') else 's'}"


def article(name: str) -> str:
    """ "a" or "an", by the first sound of an English name."""
    like_you = name.startswith(("eu", "uni"))
    return "an" if name[0] in "aeiou" and not like_you else "a"
