"""Customisation tasks: what is trained on, what is asked and how it is scored; subjects in folders; contact sheets."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.attempt import Attempt
from peft_atlas.bench.cell import run_cell
from peft_atlas.bench.errors import AssetError
from peft_atlas.bench.merge import merge
from peft_atlas.bench.names import Name
from peft_atlas.bench.plan import design
from peft_atlas.bench.profiler import measure
from peft_atlas.bench.profiling import subjects
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.record_checks import checks
from peft_atlas.bench.records import Cell, Record
from peft_atlas.bench.registry import registry
from peft_atlas.bench.sources import DATA_ROOT
from peft_atlas.bench.store import Store
from peft_atlas.tasks.contract import Predictions
from peft_atlas.tasks.diffusion import customisation
from peft_atlas.tasks.diffusion.prompts import plain, readable
from peft_atlas.tasks.diffusion.sheet import contact_sheet
from peft_atlas.tasks.partition import emoji_of
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "planted"))
from planted_grid import environment  # type: ignore[import-not-found]

VOCABULARY = 256  # of tiny-bert


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No image of a class is there yet; assets stay where they are."""
    monkeypatch.setattr("peft_atlas.tasks.diffusion.class_images.cache_folder", lambda: tmp_path / "cache")


def task(name: str = "smoke-diffusion", **changes: Any) -> Any:
    card = registry("tasks").card(name)
    return registry("tasks").load(name)(replace(card, **changes))


def generator() -> Any:
    card = registry("backbones").card("tiny-diffusion")
    return registry("backbones").load(card.id)(card, {})


def smoke_cell(method: str) -> Cell:
    (cell,) = design("smoke", [Name(method)], ["smoke-diffusion"], [0]).cells
    return cell


# training ----------------------------------------------------------------------------------------------------------


def test_half_of_the_items_are_views_and_the_mean_loss_is_theirs_plus_the_weighted_class_loss() -> None:
    options = dict(task().card.options)
    own = task(options={**options, "prior": {"images": 4, "weight": 0.5}})
    backbone, train = generator(), own.build("train")
    whole = own.complete(train, backbone)
    text, weights = whole.inputs["text"], torch.tensor(whole.inputs["weight"])
    views = torch.tensor(["<new1>" in words for words in text])
    assert len(set(whole.items)) == len(text) == 10 and views.sum() == 6 and set(text) == {"a <new1> disc", "a disc"}
    assert np.array_equal(whole.inputs["image"][:6], np.concatenate([train.inputs["image"]] * 2))
    errors = torch.rand(10)
    loss = own.loss(errors, {"weight": weights})
    assert torch.allclose(loss, errors[views].mean() + 0.5 * errors[~views].mean())
    assert not np.array_equal(whole.inputs["image"][6], whole.inputs["image"][7]), "each image has its own seed"
    backbone.sample = None  # drawn once, then read
    again = own.complete(train, backbone)
    assert again.fingerprint() == whole.fingerprint()
    without = task(options={**options, "prior": {"images": 0, "weight": 1.0}})
    assert without.complete(train, backbone).fingerprint() == train.fingerprint()


def test_a_placeholder_is_a_rare_word_until_a_method_brings_an_embedding() -> None:
    own, backbone = task(), generator()
    own.complete(own.build("train"), backbone)
    batch = backbone.tokens(["a <new1> disc"])
    assert (batch["input_ids"] == VOCABULARY).sum() == 1
    rare = backbone.tokenizer.library.get_vocab()["[unused1]"]
    read = readable(backbone, batch)["input_ids"]
    assert torch.equal(read, batch["input_ids"].masked_fill(batch["input_ids"] == VOCABULARY, rare))
    backbone.anatomy.vocabularies[0].rows(1)
    assert readable(backbone, batch) is batch
    assert plain("a <new1> animal and a small <new2> pot") == "an animal and a small pot"


# evaluation --------------------------------------------------------------------------------------------------------


def test_the_scores_are_the_means_that_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of an image are its mean colour here, so that every number can be worked out by hand."""
    own = task()
    monkeypatch.setattr(customisation, "image_features", lambda scorer, images: _colours(images))
    monkeypatch.setattr(customisation, "text_features", lambda scorer, texts: np.eye(3, dtype=np.float32)[: len(texts)])
    split = own.build("test")
    images = np.zeros((4, 2, 16, 16, 3), dtype=np.uint8)
    for i, (colour, of_class) in enumerate([(0, 1), (0, 0), (1, 2), (2, 0)]):
        images[i, 0, ..., colour], images[i, 1, ..., of_class] = 200, 100
    batch = {name: torch.from_numpy(split.inputs[name]) for name in ("prompt", "compared", "seed")}
    parts = [own.predict(torch.from_numpy(images[i]), {k: v[i] for k, v in batch.items()}) for i in ([0, 1], [2, 3])]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    predictions = Predictions(split.items, columns)
    views = _colours(own.subjects[0].views)
    dino = [views[:, colour].mean() for colour in (0, 0, 1, 2)]
    found = own.score(predictions, split)
    assert np.allclose(own.per_item(predictions, split), dino) and np.isclose(found["dino"], np.mean(dino))
    assert np.isclose(found["clip_i"], np.mean(dino)) and np.isclose(found["clip_t"], (1 + 0 + 0 + 0) / 4)
    assert np.isclose(found["pres"], (views[:, 1].mean() + views[:, 2].mean()) / 2)
    assert np.isclose(found["div"], (0 + 1) / 2)
    with pytest.raises(ValueError, match="different items"):
        own.score(Predictions(split.items[::-1], columns), split)


def test_held_out_views_are_compared_with_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customisation, "image_features", lambda scorer, images: _colours(images))
    own, backbone = task(options={**task().card.options, "scorers": {"image": {}}}), generator()
    own.complete(own.build("train"), backbone)
    held_out = own.build("train").take(np.array([2]))
    batch = backbone.batch(backbone.prepare(held_out), torch.tensor([0]))
    view = torch.from_numpy(held_out.inputs["image"])
    columns = own.predict(torch.stack([view, torch.zeros_like(view)], dim=1), batch)
    assert np.allclose(columns["dino"], 1)
    found = own.score(Predictions(held_out.items, columns), held_out)
    assert found.keys() == {"dino"} and np.isclose(found["dino"], 1)


def _colours(images: np.ndarray) -> np.ndarray:
    means = images.reshape(len(images), -1, 3).astype(np.float32).mean(axis=1)
    unit: np.ndarray = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def test_images_depend_on_prompt_and_seed_and_class_images_share_the_noise() -> None:
    own, backbone = task(), generator()
    own.complete(own.build("train"), backbone)
    prepared = backbone.prepare(own.build("test"))
    whole = own.respond(backbone, None, backbone.batch(prepared, torch.arange(4)))
    one = own.respond(backbone, None, backbone.batch(prepared, torch.tensor([2])))
    assert whole.shape == (4, 2, 16, 16, 3) and whole.dtype == torch.uint8
    assert (whole[2].int() - one[0].int()).abs().max() <= 1
    asked = backbone.sample(backbone.tokens(["a small disc"]), [0], 4, 3.0)
    assert (whole[2, 1].int() - asked[0].int()).abs().max() <= 1
    assert not whole[1, 1].any() and not torch.equal(whole[0, 0], whole[1, 0])


def test_a_cell_samples_scores_and_leaves_a_sheet(tmp_path: Path) -> None:
    attempt = Attempt(smoke_cell("textual-inversion"), lambda message: None)
    run_cell(attempt)
    assert attempt.metrics.keys() == {"dino", "clip_i", "clip_t", "pres", "div"}
    assert attempt.arrays is not None and attempt.parameters is not None and attempt.drift is not None
    assert attempt.parameters.adapter == 32 and attempt.drift.value == pytest.approx(0, abs=1e-6), "no other word moved"
    assert {"images", "class_images"}.isdisjoint(attempt.arrays) and attempt.arrays["features"].shape == (4, 32)
    assert np.isclose(attempt.arrays["per_item"].mean(), attempt.metrics["dino"])
    assert attempt.sheet is not None and Image.open(io.BytesIO(attempt.sheet)).size[0] >= 3 * 96


def test_a_profile_is_of_one_denoising_pass_for_each_item(tmp_path: Path) -> None:
    (subject,) = subjects(load_protocol("smoke"), [smoke_cell("lora")])
    found = measure(subject, str(tmp_path), timed=False)
    adapter = found["parameters"].adapter
    assert adapter == 6656 and found["training"][0].gradients == 4 * adapter
    forward, item = found["operations"].train_forward / subject.batch, found["operations"].inference_per_item
    assert 0.5 < item / forward < 2 and found["operations"].train_backward > 0


def record_of(cell: Cell, **metrics: float) -> Record:
    return Record(key=cell.key, attempt=1, status="ok", phase="done", cell=cell, environment=environment(),
                  started="", finished="", metrics=metrics)  # fmt: skip


def test_a_sheet_is_kept_beside_its_record_and_merged_with_it(tmp_path: Path) -> None:
    cell, sheet = smoke_cell("lora"), contact_sheet([("a", np.zeros((1, 8, 8, 3), dtype=np.uint8))])
    Store(tmp_path / "here").add(record_of(cell), {"items": np.array(["a"])}, sheet)
    merge([tmp_path / "here"], tmp_path / "there")
    (merged,) = Store(tmp_path / "there").records()
    assert Store(tmp_path / "there").sheet(merged) == sheet
    files = {file.name for file in Store(tmp_path / "here").path(cell, 1).parent.iterdir()}
    assert files == {"1.json", "1.npz", "1.png"}


def test_a_cosine_below_zero_is_plausible(tmp_path: Path) -> None:
    record = record_of(smoke_cell("lora"), clip_t=-0.1, dino=1.2, div=-0.2)
    told = [fault for fault in checks(tmp_path, "", record) if fault.partition(" ")[0] in record.metrics]
    assert told == ["dino is 1.2, outside -1..1", "div is -0.2, below 0"]


def test_sheets_are_small_whatever_is_on_them() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    rows = [(f"prompt {i}", noise) for i in range(25)]
    sheet = contact_sheet(rows)
    assert len(sheet) <= 200_000 and 8 * 16 < Image.open(io.BytesIO(sheet)).size[0] < 8 * 96
    with pytest.raises(ValueError, match="200 pictures do not fit into 1,000 bytes"):
        contact_sheet(rows, 1000)


# subjects ----------------------------------------------------------------------------------------------------------


def test_embedded_subjects_are_emoji_that_no_generator_saw() -> None:
    cards = [card for card in registry("tasks").cards() if card.target.startswith("emoji_subjects")]
    unseen = {emoji.codepoints for emoji in emoji_of("diffusion-subject")}
    assert sorted(len(card.options["subjects"]) for card in cards) == [1] * 12 + [2] * 2
    for card in cards:
        own = task(card.id)
        assert {subject["emoji"] for subject in card.options["subjects"]} <= unseen
        for name in ("train", "test"):
            split = own.build(name)
            assert len(split) == card.sizes[name] and split.fingerprint() == card.fingerprints[name], card.id
        views = own.build("train").inputs["image"]
        assert len({view.tobytes() for view in views}) == len(views)
        assert all(prompt.count("<new") == len(own.subjects) for prompt in own.build("test").inputs["text"])


def paint(file: Path, shade: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 40), (shade, 0, 255 - shade)).save(file)


CLASSES = "Classes\n\nsubject_name,class\nteapot,teapot\ndog6,dog\n\nPrompts\n\nObject Prompts\n\nprompt_list = [\n"


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A part of github.com/google/dreambooth."""
    monkeypatch.setenv(DATA_ROOT, str(tmp_path))
    folder = tmp_path / "google/dreambooth/dataset"
    for i in range(4):
        paint(folder / f"teapot/{i:02d}.jpg", 50 * i)
        paint(folder / f"dog6/{i:02d}.jpg", 10 * i)
    line = "'a {{0}} {{1}} {}'.format(unique_token, class_token),\n"
    objects = line.format("in the snow") + "'a red {0} {1}'.format(unique_token, class_token)\n]\n"
    live = "\nLive Subject Prompts\n\nprompt_list = [\n" + line.format("wearing a red hat") + "]\n"
    (folder / "prompts_and_classes.txt").write_text(CLASSES + objects + live)
    return folder


def test_dreambooth_folders(google: Path) -> None:
    teapot, dog = task("dreambooth-teapot"), task("dreambooth-dog6")
    assert teapot.prompts == ["a <new1> teapot in the snow", "a red <new1> teapot", "a <new1> teapot"]
    assert dog.prompts == ["a <new1> dog wearing a red hat", "a <new1> dog"]
    size = teapot.card.options["size"]
    assert teapot.build("train").inputs["image"].shape == (4, size, size, 3)
    assert len(teapot.build("test")) == 2 * teapot.card.options["samples"]
    names = {card.options["subject"] for card in registry("tasks").cards() if card.id.startswith("dreambooth-")}
    assert len(names) == 30 and {"poop_emoji", "grey_sloth_plushie"} < names


def test_faulty_folders_are_refused_before_training(google: Path) -> None:
    for file in (google / "dog6").iterdir():
        file.unlink()
    with pytest.raises(AssetError, match=r"dreambooth-dog6: the folder .*dog6 holds no picture"):
        task("dreambooth-dog6").build("train")
    with pytest.raises(AssetError, match="no class of the subject 'vase'"):
        task("dreambooth-vase").build("train")
    prompts = google / "prompts_and_classes.txt"
    prompts.write_text(prompts.read_text().replace("a red {0} {1}", "a red {1}"))
    with pytest.raises(AssetError, match=r"dreambooth-teapot: the prompt 'a red teapot' lacks the placeholder <new1>"):
        task("dreambooth-teapot").build("train")
    (google / "teapot/02.jpg").write_bytes(b"no picture")
    with pytest.raises(AssetError, match=r"teapot/02.jpg cannot be read"):
        task("dreambooth-teapot").build("train")


@pytest.fixture
def concepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A part of CustomConcept101."""
    monkeypatch.setenv(DATA_ROOT, str(tmp_path))
    root = tmp_path / "customconcept101"
    entries = []
    for number, (folder, noun) in enumerate([("pet_cat1", "cat"), ("furniture_chair1", "chair")], 1):
        for i in range(3):
            paint(root / f"benchmark_dataset/{folder}/{i}.jpeg", 80 * i)
        prompt = f"photo of a <new{number}> {noun}"
        entries.append({"instance_prompt": prompt, "class_prompt": noun,
                        "instance_data_dir": f"./benchmark_dataset/{folder}",
                        "prompt_filename": f"prompts/{noun}.txt"})  # fmt: skip
    (root / "prompts").mkdir()
    (root / "prompts/cat.txt").write_text("{}, on a boat.\n\nA toy {}\n")
    (root / "prompts/both.txt").write_text("{0} on the {1}\n")
    (root / "dataset.json").write_text(json.dumps(entries[:1]))
    (root / "dataset_multiconcept.json").write_text(
        json.dumps([[*entries, {"prompt_filename_compose": "prompts/both.txt"}]])
    )
    return root


def custom(*folders: str) -> Any:
    card = registry("tasks").card("customconcept101-pet-cat1")
    return registry("tasks").load(card.id)(replace(card, options={**card.options, "concepts": list(folders)}))


def test_custom_concepts_alone_and_in_pairs(concepts: Path) -> None:
    cat = custom("pet_cat1")
    assert cat.prompts == ["<new1> cat, on a boat.", "A toy <new1> cat", "photo of a <new1> cat"]
    both = custom("pet_cat1", "furniture_chair1")
    assert both.prompts[0] == "<new1> cat on the <new2> chair" and len(both.build("train")) == 6
    assert [subject.noun for subject in both.subjects] == ["cat", "chair"]
    with pytest.raises(AssetError, match="no entry for pet_dog1"):
        custom("pet_dog1").build("train")
    (concepts / "prompts/cat.txt").write_text("{} on a boat\na cat on the moon\n")
    with pytest.raises(AssetError, match=r"cat.txt:2: the prompt 'a cat on the moon' has no place for the concept"):
        custom("pet_cat1").build("train")
