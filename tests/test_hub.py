"""Sources on a hub, against a double on loopback that the real client libraries talk to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.registry import registry
from peft_atlas.bench.sources import DATA_ROOT, Source, SourceError, fetch_all, folder

sys.path.insert(0, str(Path(__file__).parent))
from hub_double import TOKEN, HubDouble, connected  # type: ignore[import-not-found]
from hub_repositories import (  # type: ignore[import-not-found]
    GLUE,
    TINY,
    clip_files,
    dataset_card,
    glue_files,
    roberta_files,
    timm_files,
)

HERE = Path(__file__).parent
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with connected(tmp_path / "hf", monkeypatch) as double:
        yield double


@pytest.fixture(scope="module")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files: dict[str, bytes] = roberta_files(tmp_path_factory.mktemp("roberta"))
    return files


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files: dict[str, bytes] = timm_files(tmp_path_factory.mktemp("vit"))
    return files


def a_source(**other: Any) -> Source:
    return Source(**{"path": "double/numbers", "files": ("*.bin",), "hub": "model", "revision": OLD, **other})


def reason(source: Source) -> str:
    """Why a source cannot be had: one line."""
    (line,) = fetch_all([source]).values()
    assert "\n" not in line and line.startswith(source.path)
    return line


def test_a_pinned_commit_is_fetched_once_and_without_what_is_not_needed(hub: HubDouble) -> None:
    hub.add("model", "double/numbers", OLD, {"one.bin": b"old" * 99, "README.md": b"words"})
    hub.add("model", "double/numbers", NEW, {"one.bin": b"new" * 99})
    assert fetch_all([a_source()]) == {}
    found = folder(a_source())
    assert (found / "one.bin").read_bytes() == b"old" * 99
    assert [path.name for path in found.iterdir()] == ["one.bin"]
    asked = list(hub.asked)
    assert fetch_all([a_source()]) == {}
    assert hub.asked == asked
    with pytest.raises(SourceError, match="not on this machine"):
        folder(a_source(revision=NEW))
    assert hub.asked == asked
    assert fetch_all([a_source(revision=NEW)]) == {}
    assert (folder(a_source(revision=NEW)) / "one.bin").read_bytes() == b"new" * 99


def test_a_branch_counts_only_while_it_is_at_the_known_commit(hub: HubDouble) -> None:
    hub.add("model", "double/numbers", OLD, {"one.bin": b"old"})
    assert fetch_all([a_source(revision="main", commit="aaaaaaa")]) == {}
    assert "main is at aaaa" in reason(a_source(revision="main", commit="bbbbbbb"))


def test_a_broken_download_goes_on_where_it_broke(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # what was received is kept in these
    content = np.random.default_rng(0).bytes(300_000)
    hub.add("model", "double/numbers", OLD, {"one.bin": content})
    hub.cut_after = 100_000
    assert fetch_all([a_source()]) == {}
    assert (folder(a_source()) / "one.bin").read_bytes() == content
    assert [asked.split()[-1] for asked in hub.asked if asked.startswith("GET /large/")][1:] == ["bytes=100000-"]


def test_a_link_that_stalls_is_tried_again(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    hub.add("model", "double/numbers", OLD, {"one.bin": content})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.pauses = [0.0, 1.0]
    assert fetch_all([a_source()]) == {}
    assert (folder(a_source()) / "one.bin").read_bytes() == content
    assert len([asked for asked in hub.asked if asked.startswith("GET /large/")]) == 2


def test_a_busy_hub_is_asked_again_and_at_last_given_up(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.add("model", "double/numbers", OLD, {"one.bin": b"old"})
    hub.too_many = 1000
    assert "answered 429" in reason(a_source())
    hub.too_many = 2
    assert fetch_all([a_source()]) == {}


def test_gated_and_missing_repositories_say_what_to_do(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("model", "double/numbers", OLD, {"one.bin": b"old"}, gated=True)
    line = reason(a_source())
    assert f"is gated: accept its terms at {hub.url}/double/numbers and set HF_TOKEN" in line
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch_all([a_source()]) == {}
    assert f"has no commit {NEW}" in reason(a_source(revision=NEW))
    assert "is not at" in reason(a_source(path="double/nothing"))
    assert "holds no *.txt" in reason(a_source(files=("*.txt",)))


def test_a_hub_out_of_reach_is_asked_once_and_a_folder_replaces_it(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    others = [a_source(path="double/others"), Source("mine/pictures", ("*.bin",), how="take them yourself")]
    far, other, mine = fetch_all([a_source(), *others]).values()
    assert "http://127.0.0.1:9 cannot be reached; `hf download double/numbers --revision aaaa" in far
    assert "no hub was asked" in other and "--data-root DIR" in other
    assert mine.startswith("mine/pictures is on no hub: take them yourself; put its files into DIR/mine/pictures")
    monkeypatch.setenv(DATA_ROOT, str(tmp_path / "data"))
    (tmp_path / "data/double/numbers").mkdir(parents=True)
    assert "holds no *.bin" in reason(a_source())
    (tmp_path / "data/double/numbers/one.bin").write_bytes(b"mine")
    assert fetch_all([a_source()]) == {}
    assert (folder(a_source()) / "one.bin").read_bytes() == b"mine"


def test_the_libraries_own_ways_to_a_hub(
    hub: HubDouble, tmp_path: Path, tiny_roberta: dict[str, bytes], tiny_vit: dict[str, bytes]
) -> None:
    """from_pretrained, load_dataset, and the hub names of timm and open_clip, in a fresh process."""
    from safetensors.torch import load

    rte = glue_files("rte", {"train": 8, "validation": 4}, 2)
    hub.add("dataset", "nyu-mll/glue", GLUE, {**rte, "README.md": dataset_card("rte", ["train", "validation"])})
    hub.add("model", "double/tiny-roberta", TINY, tiny_roberta)
    hub.add("model", "double/tiny-roberta", NEW, {"config.json": b"{}"})
    hub.add("model", "double/tiny-vit", TINY, tiny_vit)
    clip = clip_files(tmp_path)
    hub.add("model", "double/tiny-clip", TINY, clip)
    done = subprocess.run(
        [sys.executable, str(HERE / "hub_clients.py"), GLUE, TINY],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read = json.loads(done.stdout.splitlines()[-1])
    weights, patches = load(tiny_roberta["model.safetensors"]), load(tiny_vit["model.safetensors"])
    assert read["embedding"] == pytest.approx(float(weights["roberta.embeddings.word_embeddings.weight"].sum()))
    assert read["patches"] == pytest.approx(float(patches["patch_embed.proj.weight"].sum()))
    projection = load(clip["open_clip_model.safetensors"])["text_projection"]
    assert read["projection"] == pytest.approx(float(projection.sum()))
    assert read["ids"][0] == 0 and read["ids"].count(2) == 3
    assert (read["rows"], read["classes"]) == ({"train": 8, "validation": 4}, 5)
    assert set(read["first"]) == {"sentence1", "sentence2", "label", "idx"}


def test_protocols_that_need_no_hub_name_nothing_from_one() -> None:
    for name in ("embedded", "embedded-random", "smoke"):
        rules = load_protocol(name)
        tasks = [registry("tasks").card(task) for suite in rules.suites.values() for task in suite.tasks]
        backbones = [registry("backbones").card(settings.backbone) for settings in rules.families.values()]
        assert not any(card.sources for card in [*tasks, *backbones])


def test_every_source_is_pinned_and_weights_are_named_by_their_commit() -> None:
    cards = [*registry("tasks").cards(), *registry("backbones").cards()]
    sources = [(card, source) for card in cards for source in card.sources]
    assert len({source.path for _, source in sources}) >= 5
    for card, source in sources:
        assert source.files
        if source.hub is None:
            assert source.how
        else:
            assert len(source.revision) == 40 or source.commit
        if card in registry("backbones").cards():
            assert card.weights and (source.commit or source.revision).startswith(card.weights)
