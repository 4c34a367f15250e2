"""The derived index: the same frame as the records give, made again when they change, and never in the way."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from peft_atlas.bench import index
from peft_atlas.bench.frame import COLUMNS, row
from peft_atlas.bench.records import DataFingerprints, ErrorReport, Primary, Record, Status, from_json, to_json
from peft_atlas.bench.registry import registry
from peft_atlas.bench.store import Store, choose, outdated

sys.path.insert(0, str(Path(__file__).parent / "planted"))
from planted_grid import cell, environment  # type: ignore[import-not-found]


def record(task: str = "some-task", seed: int = 0, attempt: int = 1, status: Status = "ok", **changes: Any) -> Record:
    one = cell(task, seed)
    facts: dict[str, Any] = {"environment": environment(), "started": "2026-01-01", "finished": "2026-01-01"}
    if status == "ok":
        facts |= {"primary": Primary(name="accuracy", value=0.5, higher_is_better=True), "metrics": {"accuracy": 0.5}}
    else:
        facts["error"] = ErrorReport(type="X", message="x", traceback="")
    return Record(key=one.key, attempt=attempt, status=status, phase="done", cell=one, **{**facts, **changes})


def from_records(store: Store) -> pd.DataFrame:
    """The frame without an index: every record read, the current attempts chosen one cell at a time."""
    by_key: dict[str, list[tuple[Path, Record]]] = {}
    for path, one in store.read():
        by_key.setdefault(one.key, []).append((path, one))
    rows = []
    for attempts in by_key.values():
        current = choose([one for _, one in attempts if not outdated(one)])
        rows += [row(one, path.relative_to(store.root)) for path, one in attempts if one is current]
    return pd.DataFrame(rows, columns=COLUMNS)


def same(store: Store) -> bool:
    """Whether the index gives what the records give, twice: as it is made and as it is read."""
    expected = from_records(store)
    for _ in range(2):
        pd.testing.assert_frame_equal(store.frame(), expected, check_dtype=False)
    return True


def filled(root: Path, cells: int = 40) -> Store:
    """Random attempts at cells of three tasks, one of them known, whose data are partly outdated."""
    store, draws = Store(root), np.random.default_rng(0)
    card = registry("tasks").card("smoke-text").fingerprints
    for number in range(cells):
        task = ("smoke-text", "b-task", "a-task")[number % 3]
        for attempt in range(1, int(draws.integers(2, 5))):
            train = card["train"] if draws.random() < 0.6 else "0" * 16
            data = DataFingerprints(train=train, test=None, matches_card=bool(draws.random() < 0.8))
            status: Status = ("ok", "error", "oom")[int(draws.integers(3))]
            store.add(record(task, number, attempt, status, data=data if draws.random() < 0.9 else None))
    return store


def aged(root: Path) -> None:
    """Folders that changed long ago, so that the index trusts their modification times."""
    for folder in sorted(root.rglob("*"), reverse=True):
        if folder.is_dir() and index.FOLDER not in folder.parts:
            os.utime(folder, ns=(10**18, 10**18))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records that were parsed, by their path."""
    seen: list[str] = []

    def counted(root: Path, part: tuple[str, str], entry: Any) -> dict[str, Any]:
        seen.append(f"{'/'.join(part)}/{entry.folder}/{entry.name}")
        return original(root, part, entry)

    original = index._row
    monkeypatch.setattr(index, "_row", counted)
    return seen


def test_the_frame_is_the_one_of_the_records(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert same(store) and 0 < len(store.frame()) < sum(1 for _ in store.records())
    for one in store.frame().itertuples():
        found = from_json((tmp_path / one.path).read_text())
        assert store.current(found.cell) == found


def test_an_absent_folder_and_an_empty_one_give_an_empty_frame_and_no_index(tmp_path: Path) -> None:
    for root in (tmp_path / "absent", tmp_path):
        frame = Store(root).frame()
        assert frame.empty and list(frame.columns) == COLUMNS
    assert list(tmp_path.iterdir()) == []


def test_only_what_changed_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    store = filled(tmp_path)
    aged(tmp_path)
    store.frame()
    count = len(reads)
    assert count == sum(1 for _ in store.records())
    store.frame()
    assert len(reads) == count, "nothing changed"
    path = store.add(record("a-task", 100))
    store.frame()
    assert reads[count:] == [path.relative_to(tmp_path).as_posix()]
    assert same(store)


def test_a_second_attempt_an_edited_and_a_deleted_record_are_seen(tmp_path: Path) -> None:
    store = filled(tmp_path)
    aged(tmp_path)
    assert same(store)
    first, second, *_ = (path for path, _ in store.read())
    one = from_json(first.read_text())
    number = store.next_attempt(one.cell)
    store.add(one.model_copy(update={"attempt": number, "status": "ok", "finished": "2027"}))
    assert same(store) and "2027" in set(store.frame()["finished"])
    aged(tmp_path)
    assert same(store)
    edited = json.loads(second.read_text())
    second.write_text(json.dumps({**edited, "finished": "2028-01-01"}))
    assert "2028-01-01" in set(pd.DataFrame(index.attempts(tmp_path, ["finished"]).to_pandas())["finished"])
    assert same(store)
    first.unlink()
    assert same(store)
    shutil.rmtree(tmp_path / "planted" / "a-task")
    assert same(store) and "a-task" not in set(store.frame()["task"])
    for path, _ in list(store.read()):
        path.unlink()
    assert store.frame().empty


def test_a_record_added_within_one_tick_of_the_file_system_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.add(record()).parent
    before = folder.stat()
    store.frame()
    store.add(record(attempt=2, finished="2027"))
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.frame()["attempt"].tolist() == [2]


@pytest.mark.parametrize("damage", [b"", b"PAR1 but no more", None])
def test_a_corrupt_index_is_made_again_and_nothing_is_said(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    store = filled(tmp_path, 6)
    aged(tmp_path)
    store.frame()
    for file in (tmp_path / index.FOLDER).glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    assert same(store) and not caplog.messages


def test_an_index_made_by_other_code_is_made_again(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, 6)
    aged(tmp_path)
    store.frame()
    count = len(reads)
    monkeypatch.setattr(index, "_code", lambda: b"other")
    store.frame()
    assert len(reads) == 2 * count


def test_corrupt_records_are_named_each_time_and_read_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reads: list[str]
) -> None:
    store = Store(tmp_path)
    good = store.add(record())
    (good.parent / "2.json").write_text(
        to_json(record(attempt=2)).replace('"schema_version": 3', '"schema_version": 9')
    )
    (good.parent / "3.json").write_bytes(b"\xff\xfe")
    aged(tmp_path)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert store.frame()["attempt"].tolist() == [1]
        told = " ".join(caplog.messages)
        assert "2.json is skipped: schema_version 9 is newer" in told and "3.json is skipped" in told
    assert len(reads) == 3


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 6)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(index.os, "replace", refuse)
    assert same(store) and list((tmp_path / index.FOLDER).iterdir()) == [tmp_path / index.FOLDER / ".gitignore"]


def test_stored_predictions_are_found_by_path_without_parsing_a_record(tmp_path: Path, reads: list[str]) -> None:
    store = Store(tmp_path)
    values = {"per_item": np.array([0.0, 1.0, 1.0])}
    paths = [
        store.add(record("a-task", 0), values),
        store.add(record("a-task", 1)),
        store.add(record("a-task", 2), values),
    ]
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    aged(tmp_path)
    store.frame()
    reads.clear()
    find = store.stored_arrays()
    paths[2].with_suffix(".npz").write_bytes(b"another file")
    found = [find(name) for name in (*names, "no/such/path.json")]
    assert found[0] is not None and np.array_equal(found[0]["per_item"], values["per_item"])
    assert found[1:] == [None, None, None] and not reads
