"""Open-vocabulary tasks: their data, the classes that compete, the harmonic mean and its interval, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench import api
from peft_atlas.bench.backbones.clip import ClipBackbone
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.names import parse
from peft_atlas.bench.plan import design
from peft_atlas.bench.profiler import measure
from peft_atlas.bench.profiling import subjects
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.contract import Predictions, Split
from peft_atlas.tasks.openvocab.few_shot import FewShot, FewShotBaseToNew, with_groups
from peft_atlas.tasks.openvocab.open_vocabulary import BaseToNew, harmonic_mean, linearised
from peft_atlas.tasks.openvocab.picture_sets import SETS, kept_shapes, unseen_emoji
from peft_atlas.tasks.partition import emoji_of
from peft_atlas.tasks.vision.clutter import CODEPOINTS
from torch.utils.flop_counter import FlopCounterMode

TASKS = registry("tasks")
OURS = [task for task in TASKS.ids() if TASKS.entry(task).file.parent.name == "openvocab"]
DRAWN = [task for task in OURS if not TASKS.card(task).assets]
NEED_ASSETS = [pytest.param(task, marks=pytest.mark.assets) for task in OURS if task not in DRAWN]


def load(name: str, **options: Any) -> Any:
    card = TASKS.card(name)
    return TASKS.load(name)(replace(card, options={**card.options, **options}))


@pytest.mark.parametrize("name", [*DRAWN, *NEED_ASSETS])
def test_splits_are_those_of_the_card_and_hold_the_shots(name: str) -> None:
    task, card = load(name), TASKS.card(name)
    train, test = task.build("train"), task.build("test")
    for split, built in (("train", train), ("test", test)):
        assert (len(built), built.fingerprint()) == (card.sizes[split], card.fingerprints[split])
        assert built.inputs["image"].shape[1:] == (56, 56, 3) and len(set(built.items)) == len(built)
    assert not set(train.items) & set(test.items)
    trained = np.flatnonzero(task.groups == 0)
    counts = np.bincount(train.labels, minlength=len(card.classes))
    assert (counts[trained] == card.options["shots"]).all() and counts.sum() == len(train)
    firsts = train.labels[: len(trained)]
    assert sorted(firsts.tolist()) == trained.tolist()  # a round: any prefix is nearly balanced
    for split in (train, test):
        if "group" in split.inputs:
            assert (split.inputs["group"] == task.groups[split.labels]).all()
    tested = set(np.bincount(test.labels, minlength=len(card.classes)).nonzero()[0].tolist())
    transfers = "source" in card.options
    assert tested == set(np.flatnonzero(task.groups == 1).tolist() if transfers else range(len(card.classes)))


@pytest.mark.parametrize(("few", "more"), [("shapes-1-shot", "shapes-2-shot"), ("shapes-4-shot", "shapes-16-shot")])
def test_fewer_shots_are_part_of_more(few: str, more: str) -> None:
    assert set(load(few).make("train").items) < set(load(more).make("train").items)


@pytest.mark.assets
def test_cards_name_the_classes_that_their_pictures_show() -> None:
    assert TASKS.card("names-1-shot").classes == tuple(name for name, _ in unseen_emoji())
    assert TASKS.card("shapes-1-shot").classes == tuple(f"{thing.colour} {thing.name}" for thing in kept_shapes())
    assert len(TASKS.card("clutter-1-shot").classes) == len(CODEPOINTS)
    for target in ("names", "digits", "shapes"):
        both = TASKS.card("clutter-1-shot").classes + TASKS.card(f"{target}-1-shot").classes
        assert TASKS.card(f"clutter-to-{target}").classes == both


@pytest.mark.assets
def test_nothing_that_a_clip_is_aligned_on_is_called_new() -> None:
    aligned = emoji_of("clip-align")
    shown = {codepoints for _, codepoints in unseen_emoji()} | set(CODEPOINTS)
    assert len(shown) == 68 + 20 and not shown & {emoji.codepoints for emoji in aligned}
    alike = {emoji.group for emoji in aligned}
    drawn = [emoji for share in ("clip-unseen", "vision") for emoji in emoji_of(share) if emoji.codepoints in shown]
    assert len(drawn) == len(shown) and not {emoji.group for emoji in drawn} & alike


@pytest.mark.assets
@pytest.mark.parametrize("shift", ["grey", "noise", "small"])
def test_a_shift_changes_pictures_and_nothing_else(shift: str) -> None:
    plain, shifted = SETS["clutter"]("test"), SETS[f"clutter-{shift}"]("test")
    assert (plain.labels == shifted.labels).all()
    assert shifted.items == tuple(f"clutter-{shift}/{item}" for item in plain.items)
    assert (plain.inputs["image"] != shifted.inputs["image"]).any((1, 2, 3)).all()
    if shift == "grey":
        assert (shifted.inputs["image"] == shifted.inputs["image"][..., :1]).all()


# the classes that compete --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base_to_new() -> FewShotBaseToNew:
    """Sixteen coloured shapes; items of the first eight are base."""
    return load("shapes-base-new")  # type: ignore[no-any-return]


@pytest.fixture
def backbone(base_to_new: FewShotBaseToNew) -> ClipBackbone:
    settings = load_protocol("smoke").families["clip"]
    card = registry("backbones").card(settings.backbone)
    made = ClipBackbone(card, settings.inputs)
    base_to_new.introduce(made)
    return made


def test_classes_of_the_other_group_do_not_compete(base_to_new: FewShotBaseToNew, backbone: ClipBackbone) -> None:
    test = base_to_new.build("test").take(np.arange(12))
    batch = backbone.batch(backbone.prepare(test), torch.arange(12))
    with torch.no_grad():
        logits = base_to_new.forward(backbone, None, batch)
        free = base_to_new.forward(backbone, None, {name: column for name, column in batch.items() if name != "group"})
    competing = torch.tensor(base_to_new.groups == test.inputs["group"][:, None])
    assert competing.sum(1).tolist() == [8] * 12 and 0 < test.inputs["group"].sum() < 12
    assert torch.equal(logits[competing], free[competing]) and torch.isneginf(logits[~competing]).all()
    assert torch.isfinite(base_to_new.loss(logits, batch))
    predictions = Predictions(test.items, base_to_new.predict(logits, batch))
    scores = base_to_new.score(predictions, test)
    assert all(np.isfinite(value) for value in scores.values())
    right = predictions.columns["logits"].argmax(1) == test.labels
    assert (
        scores["base"] == right[test.inputs["group"] == 0].mean()
        and scores["new"] == right[test.inputs["group"] == 1].mean()
    )


def test_training_on_base_gives_the_others_names_no_gradient(
    base_to_new: FewShotBaseToNew, backbone: ClipBackbone
) -> None:
    batch = backbone.batch(backbone.prepare(base_to_new.build("train")), torch.arange(16))
    assert backbone.anatomy.pair is not None
    shift = torch.nn.Parameter(torch.zeros(16, 24))
    backbone.anatomy.pair.classes.around(lambda next, images: next(images) + shift)
    base_to_new.loss(base_to_new.forward(backbone, None, batch), batch).backward()
    moved = shift.grad.abs().sum(1) > 0  # type: ignore[union-attr]
    assert moved.tolist() == [True] * 8 + [False] * 8


# the harmonic mean ---------------------------------------------------------------------------------------------------


def test_pseudo_values_have_the_harmonic_mean_and_the_bootstraps_deviation() -> None:
    """Against 20,000 resamplings of base and new items, each kind by itself."""
    draws = np.random.default_rng(0)
    is_new = np.arange(400) % 5 < 2
    hits = (draws.random(400) < np.where(is_new, 0.35, 0.8)).astype(np.float64)
    values = linearised(hits, is_new)
    base, new = hits[~is_new], hits[is_new]
    assert values.mean() == pytest.approx(harmonic_mean(base.mean(), new.mean()), abs=1e-12)
    resampled = [draws.choice(part, (20_000, len(part))).mean(1) for part in (base, new)]
    bootstrap = (2 * resampled[0] * resampled[1] / (resampled[0] + resampled[1])).std()
    assert values.std() / np.sqrt(len(values)) == pytest.approx(bootstrap, rel=0.03)
    naive = hits.std() / np.sqrt(len(hits))  # what plain hits would give, which is something else
    assert abs(naive / bootstrap - 1) > 0.1


@pytest.mark.parametrize(
    ("base", "new", "h"),
    [(0.5, 0.5, 0.5), (1.0, 0.5, 2 / 3), (0.9, 0.0, 0.0), (0.0, 0.0, 0.0), (0.8269, 0.6322, 0.7166)],
)
def test_harmonic_means(base: float, new: float, h: float) -> None:
    """The last: CoOp's average over eleven data sets, 82.69, 63.22 and 71.66 (Zhou et al. 2022b, table 1)."""
    assert harmonic_mean(base, new) == pytest.approx(h, abs=5e-5)


@pytest.mark.parametrize("right", ["none", "new only", "all"])
def test_pseudo_values_at_the_ends(right: str) -> None:
    is_new = np.array([False, False, True, True])
    hits = {"none": np.zeros(4), "new only": is_new.astype(float), "all": np.ones(4)}[right]
    values = linearised(hits, is_new)
    assert values.mean() == pytest.approx(1.0 if right == "all" else 0.0) and np.isfinite(values).all()


# what is refused -----------------------------------------------------------------------------------------------------


def test_what_makes_no_task_is_refused_by_name() -> None:
    card = TASKS.card("shapes-4-shot")
    with pytest.raises(UsageError, match="shapes-4-shot: two classes are called 'red ring'"):
        FewShot(replace(card, classes=(*card.classes[:-1], "red ring")))
    with pytest.raises(UsageError, match="shapes-4-shot: a split without shots"):
        load("shapes-4-shot", shots=0).make("train")
    with pytest.raises(UsageError, match=r"16 pictures of 'black circle' to train on, 17 shots asked for"):
        load("shapes-4-shot", shots=17).make("train")
    with pytest.raises(UsageError, match=r"unknown set of pictures 'shape'\. Did you mean shapes\?"):
        load("shapes-4-shot", pictures="shape").make("train")


def test_base_without_new_is_refused() -> None:
    task: BaseToNew = load("shapes-base-new")
    split = Split({"image": np.zeros((2, 56, 56, 3), np.uint8)}, np.array([0, 1]), ("a", "b"))
    predictions = Predictions(split.items, {"logits": np.zeros((2, 16), np.float32)})
    with pytest.raises(UsageError, match="items of base and of new classes"):
        task.score(predictions, with_groups(split, task.groups))


def test_a_backbone_of_one_tower_is_refused() -> None:
    vision = registry("backbones").load("tiny-vit")(registry("backbones").card("tiny-vit"), {})
    with pytest.raises(UsageError, match="tiny-vit does not bring images and texts together"):
        load("shapes-1-shot").introduce(vision)


# runs ----------------------------------------------------------------------------------------------------------------


def test_zero_shot_and_general_methods_run_on_both_towers(tmp_path: Path) -> None:
    names = ["zero-shot", "lora(targets=q+v)", "bitfit"]
    records = pa.run(names, "smoke-clip", protocol="smoke", seeds=[0, 1], results=tmp_path, display="none")
    found = {(record.cell.method.id, record.cell.seed): record for record in records}
    assert {key: record.status for key, record in found.items() if record.status != "ok"} == {}
    zero = [found["zero-shot", seed] for seed in (0, 1)]
    assert zero[0].metrics == zero[1].metrics and zero[0].parameters.total_trainable == 0  # type: ignore[union-attr]
    for method in ("lora", "bitfit"):
        record = found[method, 0]
        names_of_towers = ("vision", "text_") if method == "lora" else ("visual.trunk", "text.transformer")
        for tower in names_of_towers:
            assert any(tower in name for name in record.parameters.trained)  # type: ignore[union-attr]
        assert np.mean([point.loss for point in record.curve[-3:]]) < np.mean(
            [point.loss for point in record.curve[:3]]
        )
    with_head = api.plan("linear,lora", "smoke-clip", protocol="smoke", results=tmp_path).unsupported
    assert {(cell.method.id, reason) for cell, reason in with_head} == {
        ("linear", "smoke-clip has no task head to train")
    }
    headless = api.plan("zero-shot,lora", "smoke-vision", protocol="smoke", results=tmp_path).unsupported
    assert {(cell.method.id, reason) for cell, reason in headless} == {
        ("zero-shot", "tiny-vit: it does not bring images and texts together")
    }


def test_a_profile_pays_for_every_image(tmp_path: Path) -> None:
    """An image tower that is not touched runs all the same: features of an earlier pass are not taken for new ones."""
    protocol = load_protocol("smoke")
    cells = design(protocol.id, parse("zero-shot,lora"), ["smoke-clip"], [0]).cells
    found = [measure(subject, str(tmp_path), timed=False)["operations"] for subject in subjects(protocol, cells)]
    tower = registry("backbones").load("tiny-vit")(
        registry("backbones").card("tiny-vit"), protocol.families["clip"].inputs
    )
    with FlopCounterMode(display=False) as alone:
        tower.encode({"pixels": torch.zeros(1, 3, 28, 28)})
    assert all(operations.inference_per_item >= alone.get_total_flops() for operations in found)
    assert found[1].train_forward > 16 * alone.get_total_flops()
