"""Real clips from folders: three layouts, which frames are seen, and what is refused. The clips are written here."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench.errors import AssetError
from peft_atlas.bench.registry import registry
from peft_atlas.bench.sources import DATA_ROOT
from peft_atlas.tasks.video.clip_files import middles, read_clips

av = pytest.importorskip("av", reason="the extra `video` is not installed: no clip can be written or read")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_ROOT, str(tmp_path))
    return tmp_path


def film(file: Path, shades: list[int], size: tuple[int, int] = (48, 32)) -> None:
    """A clip of plain frames, one for each shade of grey."""
    file.parent.mkdir(parents=True, exist_ok=True)
    wide, high = size
    with av.open(str(file), "w") as container:
        codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(file.suffix, "mpeg4")
        stream = container.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        for shade in shades:
            picture = np.full((high, wide, 3), shade, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def task(name: str, classes: int, per_class: dict[str, int], **options: Any) -> Any:
    """The task of a card for a small folder: fewer classes, fewer clips, smaller frames."""
    card = registry("tasks").card(name)
    small = {**card.options, "frames": 4, "size": 16, "shorter": 20, "per_class": per_class, **options}
    return registry("tasks").load(name)(replace(card, class_count=classes, options=small))


def shades(split: Any) -> list[int]:
    """The first frame's shade of each item, to the nearest ten, which compression does not move."""
    return [round(int(clip[0, 8, 8, 0]) / 10) * 10 for clip in split.inputs["clip"]]


def test_class_folders(root: Path) -> None:
    folder = root / "video/kinetics400"
    for part, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(("air drumming", "zumba")):
            for number in range(count):
                film(folder / part / name / f"{part}{number}_000001_000011.mp4", [50 + 100 * label] * 3)
    (folder / "train/zumba/readme.txt").write_text("no clip")
    reader = task("kinetics400-small", 2, {"train": 4, "test": 2})
    train, test = reader.build("train"), reader.build("test")
    assert train.inputs["clip"].shape == (8, 4, 16, 16, 3) and len(test) == 4
    assert Counter(train.labels.tolist()) == {0: 4, 1: 4} and Counter(test.labels.tolist()) == {0: 2, 1: 2}
    for split in (train, test):
        assert shades(split) == [50 + 100 * label for label in split.labels]
        assert [("zumba" in item) == label for item, label in zip(split.items, split.labels, strict=True)]
    assert train.items[0].startswith("kinetics400-small/train/")
    assert train.labels.tolist() != sorted(train.labels.tolist())  # tuning holds out the last ones
    assert reader.build("train").fingerprint() == train.fingerprint()
    with pytest.raises(AssetError, match=r"class 'air drumming' has 5 clips to train on, not 6"):
        task("kinetics400-small", 2, {"train": 6, "test": 2}).build("train")
    with pytest.raises(AssetError, match=r"has 2 classes, the card of kinetics400-small says 3"):
        task("kinetics400-small", 3, {"train": 1, "test": 1}).build("train")
    (folder / "train/Air_drumming").mkdir()
    with pytest.raises(AssetError, match="classes come twice: 'Air_drumming' and 'air drumming'"):
        reader.build("train")


def test_lists_of_hmdb51(root: Path) -> None:
    folder = root / "video/hmdb51"
    for label, name in enumerate(("brush_hair", "wave")):
        marks = [1, 2, 0, 1, 1]
        lines = [f"{name}_{number}.avi {mark} " for number, mark in enumerate(marks)]
        (folder / "splits").mkdir(parents=True, exist_ok=True)
        (folder / f"splits/{name}_test_split1.txt").write_text("\n".join(lines) + "\n")
        for number, mark in enumerate(marks):
            film(folder / f"videos/{name}/{name}_{number}.avi", [60 * mark + 30 * label + 20] * 5)
    reader = task("hmdb51", 2, {"train": 3, "test": 1})
    train, test = reader.build("train"), reader.build("test")
    assert shades(train) == [80 + 30 * label for label in train.labels] and len(train) == 6
    assert sorted(test.items) == ["hmdb51/videos/brush_hair/brush_hair_1.avi", "hmdb51/videos/wave/wave_1.avi"]
    assert shades(test) == [140 + 30 * label for label in test.labels]
    (folder / "splits/wave_test_split1.txt").write_text("wave_0.avi 1\nwave_0.avi 2\n")
    with pytest.raises(AssetError, match=r"wave_test_split1.txt: the clip wave_0.avi comes twice"):
        reader.build("train")


LABELS = {"Pushing something": "1", "Holding something next to something": "0"}


def test_json_labels_of_something_something(root: Path) -> None:
    folder = root / "video/ssv2"
    templates = ["Pushing [something]", "Holding [something] next to [something]"]
    for part, start in (("train", 10), ("validation", 20)):
        clips = [{"id": str(start + i), "label": "...", "template": templates[i % 2]} for i in range(4)]
        for i, clip in enumerate(clips):
            film(folder / f"videos/{clip['id']}.webm", [90 + 60 * (i % 2)] * 4)
        (folder / f"something-something-v2-{part}.json").write_text(json.dumps(clips))
    labels = folder / "something-something-v2-labels.json"
    labels.write_text(json.dumps(LABELS))
    reader = task("ssv2-small", 2, {"train": 2, "test": 2})
    for split in (reader.build("train"), reader.build("test")):
        assert len(split) == 4
        assert shades(split) == [150 - 60 * label for label in split.labels]  # "Holding ..." has the number 0
    labels.write_text('{"Pushing something": "0", "Pushing something": "1"}')
    with pytest.raises(AssetError, match=r"labels.json: classes come twice: 'Pushing something' twice"):
        reader.build("train")
    labels.write_text(json.dumps({**LABELS, "Lifting something": "1"}))
    with pytest.raises(AssetError, match="numbers of classes come twice: '1' twice"):
        reader.build("train")
    labels.write_text(json.dumps({"Pushing something": "0", "Lifting something": "1"}))
    with pytest.raises(AssetError, match=r"clip 11 is of the class 'Holding something next to something'"):
        reader.build("train")


def test_frames_come_from_the_middle_of_equal_parts(tmp_path: Path) -> None:
    """Of twelve frames in four parts of three, the second of each; the picture is cut from the middle."""
    film(tmp_path / "clip.mp4", [20 * i + 10 for i in range(12)])
    (clip,) = read_clips([tmp_path / "clip.mp4"], frames=4, size=16, shorter=16)
    assert [round((int(frame[8, 8, 0]) - 10) / 20) for frame in clip] == [1, 4, 7, 10]
    assert middles(12, 4).tolist() == [1, 4, 7, 10]
    assert middles(8, 8).tolist() == list(range(8)) and middles(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


def test_clips_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> np.ndarray:
        return read_clips([tmp_path / name], frames=2, size=16, shorter=16)

    (tmp_path / "text.mp4").write_text("no clip at all")
    (tmp_path / "empty.avi").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    for name, message in (
        ("text.mp4", "cannot be read"),
        ("empty.avi", "cannot be read"),
        ("nowhere.mp4", "cannot be read"),
        ("sound.mp4", "holds no video"),
    ):
        with pytest.raises(AssetError, match=f"{name} {message}"):
            read(name)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AssetError, match="install the extra `video`"):
        read("text.mp4")
