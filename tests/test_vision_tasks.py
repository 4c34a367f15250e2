"""The eight vision tasks and the Twemoji partition: what the data are, and what they must not give away."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.contract import Split
from peft_atlas.tasks.partition import FILE, SHARES, partition
from peft_atlas.tasks.partition.build import base_of, group_of, make
from peft_atlas.tasks.partition.dealing import deal, deal_by_category
from peft_atlas.tasks.partition.families import MEMBER_FAMILIES
from peft_atlas.tasks.vision.clutter import CODEPOINTS, halves
from peft_atlas.tasks.vision.emoji import PARTS, UNICODE_GROUPS, emoji_of_part
from peft_atlas.tasks.vision.pictures import emoji_pictures
from peft_atlas.tasks.vision.solids import box, camera, prism, render

FROM_ASSETS = ("mnist", "emoji", "clutter")
RENDERED = ("wafer", "spectro", "dsprites-location", "count", "azimuth")
TASKS = [pytest.param(name, marks=pytest.mark.assets) for name in FROM_ASSETS] + list(RENDERED)
TUNING_TRAIN = 800


def load(name: str) -> Any:
    tasks = registry("tasks")
    return tasks.load(name)(tasks.card(name))


@cache
def drawn(name: str, split: str) -> Split:
    """The split as its code draws it now, whatever the cache folder holds."""
    task = load(name)
    made: Split = getattr(task, "make", task.build)(split)
    return made


@pytest.mark.parametrize("name", TASKS)
def test_data_are_those_of_the_card(name: str) -> None:
    card = load(name).card
    assert card.group in ("natural", "specialized", "structured")
    assert len(set(card.classes)) == len(card.classes)
    for split in ("train", "test"):
        data = drawn(name, split)
        image, labels = data.inputs["image"], data.labels
        assert image.shape == (card.sizes[split], 56, 56, 3) and image.dtype == np.uint8
        assert labels is not None and labels.dtype == np.int64
        assert len(set(data.items)) == len(data) == len(labels)
        assert data.fingerprint() == card.fingerprints[split]
    assert card.sizes["train"] == 1000
    assert not set(drawn(name, "train").items) & set(drawn(name, "test").items)


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_balanced_also_where_tuning_cuts(name: str) -> None:
    classes = len(load(name).card.classes)
    train, test = drawn(name, "train").labels, drawn(name, "test").labels
    assert train is not None and test is not None
    for labels in (train, train[:TUNING_TRAIN], test):
        counts = np.bincount(labels, minlength=classes)
        assert len(counts) == classes
        if name == "emoji":  # Unicode's groups differ in size; no class may be rare or a majority
            assert counts.min() > 0.05 * len(labels) and counts.max() < 0.25 * len(labels)
        else:
            assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", TASKS)
def test_no_near_duplicates_across_the_cuts(name: str) -> None:
    """Nearest pictures across a cut stay further apart than a small share of what two pictures usually are."""
    train, test = (_small(drawn(name, split)) for split in ("train", "test"))
    across = _distances(train, test)
    usual = np.median(across)
    assert across.min() > 0.05 * usual
    assert _distances(train[:TUNING_TRAIN], train[TUNING_TRAIN:]).min() > 0.05 * usual


def _small(split: Split) -> np.ndarray:
    """(N, 28 * 28 * 3): each picture at half its size."""
    image = split.inputs["image"]
    halved: np.ndarray = image.reshape(len(image), 28, 2, 28, 2, 3).mean(axis=(2, 4)).reshape(len(image), -1)
    return halved


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0.0))


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_items_depend_on_nothing_else(name: str) -> None:
    """A shorter split is the beginning of a longer one: each item has its own generator."""
    task = load(name)
    shorter = type(task)(replace(task.card, sizes={"train": 12, "test": 12}, fingerprints={}))
    for split in ("train", "test"):
        again, before = shorter.build(split), drawn(name, split).take(np.arange(12))
        assert again.fingerprint() == before.fingerprint()


def test_a_kept_split_is_read_back_and_a_damaged_one_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path))
    task = load("dsprites-location")
    calls: list[str] = []

    def counting(split: str) -> Split:
        calls.append(split)
        return drawn("dsprites-location", split)

    monkeypatch.setattr(task, "make", counting)
    stated = task.card.fingerprints["test"]
    assert task.build("test").fingerprint() == task.build("test").fingerprint() == stated
    assert calls == ["test"]
    (file,) = (tmp_path / "splits").iterdir()
    file.write_bytes(file.read_bytes()[:5000])
    assert task.build("test").fingerprint() == stated
    assert calls == ["test", "test"]
    other = drawn("dsprites-location", "train")
    np.savez(file, image=other.inputs["image"], labels=other.labels, items=np.array(other.items))
    assert task.build("test").fingerprint() == stated


def test_location_label_is_the_bin_of_the_centre_of_ink() -> None:
    data = drawn("dsprites-location", "test")
    image = data.inputs["image"][..., 0].astype(np.float64)
    ink = image - image[:, :1, :1]
    centre = (ink.sum(axis=1) * (np.arange(56) + 0.5)).sum(axis=1) / ink.sum(axis=(1, 2)) * 64 / 56
    bins = (centre - 10.0) / (64 - 20.0) * 16
    assert np.abs(bins - (data.labels + 0.5)).max() < 1.0  # a heart's centre of ink is not its centre exactly
    assert ink[:, [0, -1]].max() == 0.0 and ink[:, :, [0, -1]].max() == 0.0


def test_count_label_is_the_number_of_connected_objects_and_area_is_no_cue() -> None:
    from scipy.ndimage import label as connected

    data = drawn("count", "test")
    assert data.labels is not None
    area, found = [], []
    for image in data.inputs["image"]:
        covered = (image.astype(int) != image[0, 0]).any(axis=2)
        area.append(covered.mean())  # with the anti-aliased rims, which add a little to many small objects
        found.append(connected(covered, structure=np.ones((3, 3)))[1])
    assert found == (data.labels + 1).tolist()
    inner = [np.mean(np.array(area)[data.labels == label]) for label in range(8)]
    assert max(inner) - min(inner) < 0.06


def test_azimuth_faces_and_depth() -> None:
    """A red box before a blue one hides it from the front, and is hidden from the back."""
    red, blue = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    solids = [box((1, 0, 0), (0.5, 1, 1), red), box((-1, 0, 0), (0.5, 1, 1), blue)]
    light, ground = np.array([0.0, 0.0, 1.0]), np.full((112, 112, 3), 0.5)
    for azimuth, near in ((0.0, red), (np.pi, blue)):
        image = render(solids, camera(azimuth, 0.0), light, 0.3, ground, 0.8)
        assert image[56, 56] == pytest.approx(near)
        painted = (image != 0.5).any(axis=2)
        assert painted.sum() == pytest.approx((0.8 * 112) ** 2, rel=0.03)
    turned = render([box((0, 0, 0), (1, 1, 1), red)], camera(np.pi / 4, 0.0), light, 0.0, ground, 0.8)
    assert turned[56, 30, 0] == pytest.approx(np.sqrt(0.5))  # a face at 45 degrees to the light


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("direction", [1, -1])
def test_prism_faces_look_outward(axis: str, direction: int) -> None:
    profile = np.array([[0.0, 0.0], [2.0, 0.0], [2.5, 1.5], [0.0, 1.0]])[::direction]
    solid = prism(profile, axis, -1.0, 2.0, np.ones(3), taper=0.5)
    middle = solid.corners.mean(axis=0)
    for face in solid.faces:
        a, b, c = solid.corners[list(face[:3])]
        assert np.cross(b - a, c - b) @ (a - middle) > 0


@pytest.mark.assets
def test_emoji_parts_share_no_group_and_come_from_the_vision_share() -> None:
    groups: dict[str, set[str]] = {part: {emoji.group for emoji in emoji_of_part(part)} for part in PARTS}
    assert not groups["fit"] & groups["validation"]
    assert not groups["test"] & (groups["fit"] | groups["validation"])
    rows = {emoji.codepoints: emoji for emoji in partition()}
    train, test = drawn("emoji", "train"), drawn("emoji", "test")
    shown = {part: {item.split("/")[1] for item in items} for part, items in _cut(train, test)}
    for part, codepoints in shown.items():
        assert {rows[code].group for code in codepoints} <= groups[part]
        assert {rows[code].share for code in codepoints} == {"vision"}
    assert len(shown["test"]) == len(test)  # each emoji once
    assert train.labels is not None
    for item, label in zip(train.items, train.labels, strict=True):
        assert rows[item.split("/")[1]].category == UNICODE_GROUPS[label]


def _cut(train: Split, test: Split) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "fit", train.items[:TUNING_TRAIN]
    yield "validation", train.items[TUNING_TRAIN:]
    yield "test", test.items


def test_clutter_classes_are_vision_emoji_of_different_groups_on_disjoint_halves() -> None:
    rows = {emoji.codepoints: emoji for emoji in partition()}
    assert {rows[code].share for code in CODEPOINTS} == {"vision"}
    assert len({rows[code].group for code in CODEPOINTS}) == len(CODEPOINTS) == len(load("clutter").card.classes)
    for left, right in zip(halves("train"), halves("test"), strict=True):
        assert left.width + right.width == 640 and left.height == right.height == 427
        assert left.tobytes() != right.tobytes()


@pytest.mark.assets
def test_the_committed_partition_is_what_the_script_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == make()


def test_every_picture_has_one_share_and_no_group_straddles() -> None:
    rows = list(csv.DictReader(io.StringIO(FILE.read_text(encoding="utf-8"))))
    assert len({row["codepoints"] for row in rows}) == len(rows) == len(partition()) == 4009
    shares_of_group: dict[str, set[str]] = defaultdict(set)
    group_of_base: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        shares_of_group[row["group"]].add(row["share"])
        group_of_base[row["base"]].add(row["group"])
    assert all(len(shares) == 1 for shares in shares_of_group.values())
    assert all(len(groups) == 1 for groups in group_of_base.values())
    assert Counter(row["share"] for row in rows).keys() == set(SHARES)


def test_every_share_has_every_category_that_is_not_wholly_given_to_diffusion() -> None:
    seen = {(emoji.share, emoji.category) for emoji in partition()}
    assert {(share, category) for share in SHARES for category in UNICODE_GROUPS} <= seen
    assert {emoji.share for emoji in partition() if emoji.category == "Flags"} == {"diffusion-pretrain"}


@pytest.mark.parametrize(
    ("codepoints", "base", "group"),
    [
        ("1f44d-1f3fd", "1f44d", "thumbs"),
        ("1f469-1f3fb-200d-1f680", "1f9d1-200d-1f680", "1f9d1-200d-1f680"),
        ("1f468-200d-1f680", "1f9d1-200d-1f680", "1f9d1-200d-1f680"),
        ("1f9cf-1f3ff-200d-2640-fe0f", "1f9cf", "1f9cf"),
        ("1f468-1f3fb-200d-1f9b0", "1f9d1-200d-1f9b0", "adults"),
        ("1f6b6-200d-2642-fe0f-200d-27a1-fe0f", "1f6b6", "walkers"),
        ("1f469-200d-2764-fe0f-200d-1f468", "1f469-200d-2764-200d-1f468", "couples"),
        ("1f468-1f3fb-200d-1f430-200d-1f468-1f3fe", "1f46f", "1f46f"),
        ("1f408-200d-2b1b", "1f408-200d-2b1b", "cats"),
        ("2764-fe0f-200d-1f525", "2764-200d-1f525", "hearts"),
        ("1f1e6-1f1e8", "1f1e6-1f1e8", "flags"),
        ("1f3fd", "1f3fd", "plain-shapes"),
        ("1f55c", "1f55c", "clock-faces"),
        ("30-20e3", "30-20e3", "keycaps"),
    ],
)
def test_variants_and_look_alikes_find_their_group(codepoints: str, base: str, group: str) -> None:
    subcategories = {"2764": "heart", "1f3fd": "skin-tone", "30-20e3": "keycap"}
    assert base_of(codepoints) == base
    assert group_of(base, subcategories) == group
    assert {(emoji.base, emoji.group) for emoji in partition() if emoji.codepoints == codepoints} == {(base, group)}


def test_no_emoji_is_in_two_families() -> None:
    members = [code for codes in MEMBER_FAMILIES.values() for code in codes.split()]
    assert [code for code, times in Counter(members).items() if times > 1] == []
    assert set(members) <= {emoji.codepoints for emoji in partition()}


@pytest.mark.assets
def test_emoji_of_different_groups_do_not_look_alike() -> None:
    """Mean RGB difference over the inked area at 18 x 18 pixels, of all named single-code-point emoji."""
    from scipy.spatial.distance import pdist

    rows = [emoji for emoji in partition() if "-" not in emoji.codepoints and emoji.category in UNICODE_GROUPS]
    pictures = emoji_pictures(emoji.codepoints for emoji in rows)
    values = np.stack([np.asarray(pictures[emoji.codepoints], dtype=np.float32) for emoji in rows])
    opacity = values[..., 3:] / 255
    on_white = (values[..., :3] * opacity + 255 * (1 - opacity)).reshape(-1, 18, 4, 18, 4, 3).mean(axis=(2, 4))
    ink = opacity[..., 0].reshape(-1, 18, 4, 18, 4).mean(axis=(2, 4)).reshape(len(rows), -1)
    both = pdist(ink, "cityblock")
    total = ink.sum(axis=1)
    first, second = np.triu_indices(len(rows), k=1)
    union = (total[first] + total[second] + both) / 2  # sum of max(a, b)
    difference = pdist(on_white.reshape(len(rows), -1), "cityblock") / 3 / union
    groups = np.array([emoji.group for emoji in rows])
    alike = np.flatnonzero((difference < 10.0) & (groups[first] != groups[second]))
    assert [(rows[first[pair]].codepoints, rows[second[pair]].codepoints) for pair in alike] == []


def test_deal_fills_parts_and_keeps_big_groups_out_of_small_ones() -> None:
    sizes = {f"g{i}": 1 for i in range(180)} | {"big": 20}
    dealt = deal(sizes, {"a": 0.6, "b": 0.35, "c": 0.05}, "salt")
    filled = Counter[str]()
    for group, use in dealt.items():
        filled[use] += sizes[group]
    assert filled == {"a": 120, "b": 70, "c": 10}
    assert dealt["big"] != "c"
    assert dealt == deal(dict(reversed(sizes.items())), {"a": 0.6, "b": 0.35, "c": 0.05}, "salt")


def test_a_group_of_two_categories_is_dealt_once() -> None:
    members = [("hearts", "smileys")] * 3 + [("hearts", "activities")] * 4 + [("ball", "activities")]
    dealt = deal_by_category(members, {"train": 0.5, "test": 0.5}, "salt")
    assert dealt.keys() == {"hearts", "ball"}
    assert dealt["hearts"] != dealt["ball"]
