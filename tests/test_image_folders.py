"""VTAB-1k and FGVC from folders that a user has: layouts, splits, what is refused, and what the protocols fix."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench.cli import main
from peft_atlas.bench.errors import AssetError
from peft_atlas.bench.names import Name
from peft_atlas.bench.needs import obtain
from peft_atlas.bench.plan import design
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.registry import registry
from peft_atlas.bench.sources import DATA_ROOT
from peft_atlas.tasks.image_files import read_images
from PIL import Image

VTAB = ("vtab1k", "vtab1k-half", "vtab1k-augreg", "vtab1k-augreg-half")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_ROOT, str(tmp_path))
    return tmp_path


def paint(file: Path, shade: int, size: tuple[int, int] = (20, 12)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 2 * shade, 0)).save(file)


def task(name: str, **changes: Any) -> Any:
    card = registry("tasks").card(name)
    return registry("tasks").load(name)(replace(card, **changes))


def test_vtab_lists_are_read_in_the_order_that_tuning_cuts(root: Path) -> None:
    """As NOAH's script writes them: a folder of pictures and a list for each of train800, val200, test."""
    folder, sizes = root / "vtab-1k/kitti", {"train800": 8, "val200": 2, "test": 3}
    for name, number in sizes.items():
        lines = [f"images/{name}/{i:06d}.png {i % 4}" for i in range(number)]
        for i, line in enumerate(lines):
            paint(folder / line.split()[0], 10 * i + (1 if name == "val200" else 0))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    small = {"sizes": {"train": 10, "test": 3}, "options": {"size": 16}}
    train, test = (task("vtab1k-kitti", **small).build(split) for split in ("train", "test"))
    assert train.inputs["image"].shape == (10, 16, 16, 3) and len(test) == 3
    assert train.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    shades = train.inputs["image"][:, 8, 8, 0].tolist()
    assert shades == [0, 10, 20, 30, 40, 50, 60, 70, 1, 11]
    selection = load_protocol("vtab1k").tuning.selection
    held_out = train.items[len(train) - round(selection * len(train)) :]
    assert held_out == ("vtab1k-kitti/val200/0", "vtab1k-kitti/val200/1")
    with pytest.raises(AssetError, match=r"train has 10 items, the card of vtab1k-kitti says 1000"):
        task("vtab1k-kitti").build("train")
    with pytest.raises(AssetError, match=r"class 3 of train is none of vtab1k-kitti's 2"):
        task("vtab1k-kitti", class_count=2, **small).build("train")
    (folder / "images/test/000001.png").write_bytes(b"no picture")
    with pytest.raises(AssetError, match=r"images/test/000001.png cannot be read"):
        task("vtab1k-kitti", **small).build("test")


def test_fgvc_annotations_give_classes_in_the_order_of_their_numbers(root: Path) -> None:
    """VPT's layout: class numbers from 1, pictures in a folder of their own."""
    folder = root / "fgvc/CUB_200_2011"
    train = {f"{number:03d}.bird/{i}.png": number for number in (7, 3, 150) for i in range(4)}
    test = {f"{number:03d}.bird/t.png": number for number in (150, 3)}
    for name, number in {**train, **test}.items():
        paint(folder / "images" / name, number // 2)
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "test.json").write_text(json.dumps(test))
    small = {"sizes": {"train": 12, "test": 2}, "class_count": 3}
    seen = task("fgvc-cub", **small).build("train")
    assert Counter(seen.labels.tolist()) == {0: 4, 1: 4, 2: 4}
    for item, label, image in zip(seen.items, seen.labels, seen.inputs["image"], strict=True):
        assert int(item.split("/")[1][:3]) == (3, 7, 150)[label] and image[0, 0, 0] == (3, 7, 150)[label] // 2
    assert [item.split("/", 1)[1] for item in seen.items] != list(train)
    assert task("fgvc-cub", **small).build("test").labels.tolist() == [2, 0]
    (folder / "test.json").write_text(json.dumps({"003.bird/t.png": 3, "150.bird/t.png": 4}))
    with pytest.raises(AssetError, match="class 4 of test is in no training picture"):
        task("fgvc-cub", **small).build("test")


def test_pictures_are_squeezed_whole_or_cut_from_the_middle(tmp_path: Path) -> None:
    """A wide picture with red at the left and right quarters: the cut shows none of it, the squeeze half of it."""
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, :20, 0] = pixels[:, 60:, 0] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (squeezed,), (cut,) = (read_images([tmp_path / "wide.png"], 32, shorter) for shorter in (None, 40))
    assert squeezed.shape == cut.shape == (32, 32, 3)
    assert (squeezed[..., 0] > 100).mean() == pytest.approx(0.5, abs=0.05) and not cut.any()


def test_vtab_protocols_differ_in_weights_and_normalisation_alone() -> None:
    found = {}
    for name in VTAB:
        rules = load_protocol(name)
        settings = rules.families["vision"]
        found[settings.backbone, settings.inputs["normalisation"]] = settings.model_copy(
            update={"backbone": "", "inputs": {**settings.inputs, "normalisation": ""}}
        )
        assert settings.steps == -(-100 * 1000 // settings.batch)
        assert (rules.optimizer, rules.tuning) == (load_protocol("vtab1k").optimizer, load_protocol("vtab1k").tuning)
        groups = Counter(registry("tasks").card(task).group for task in rules.suites["vtab"].tasks)
        assert groups == {"natural": 7, "specialized": 4, "structured": 8}
    assert len(found) == 4 and len({str(settings) for settings in found.values()}) == 1
    assert len({load_protocol(name).suites["vtab"].name for name in VTAB}) == 4


def test_fgvc_trains_for_a_hundred_epochs() -> None:
    rules = load_protocol("fgvc")
    assert set(rules.tasks) == set(rules.suites["fgvc"].tasks)
    for name in rules.tasks:
        card = registry("tasks").card(name)
        assert rules.family(card).steps == -(-100 * card.sizes["train"] // 64)


def test_a_folder_that_is_missing_blocks_its_cells_with_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_ATLAS_OFFLINE", "1")
    cells = design("vtab1k", [Name("lora")], ["vtab1k-kitti"], [0]).cells
    (reasons,) = obtain(cells).values()
    assert len(reasons) == 2 and not any("\n" in reason for reason in reasons)
    assert reasons[0].startswith(
        "vtab-1k/kitti is on no hub: data/vtab-source/get_vtab1k.py of github.com/ZhangYuanhan-AI"
    )
    assert reasons[1].startswith("timm/vit_base_patch16_224.orig_in21k is not on this machine")


def test_a_data_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--methods", "lora", "--tasks", "vtab1k-kitti", "--protocol", "vtab1k", "--results", str(tmp_path)]
    assert main([*words, "--data-root", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"bench: the data folder {tmp_path / 'nowhere'} does not exist\n"
