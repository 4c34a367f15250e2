"""Plans that are shared out: files of cells, shards, single cells, and two machines that write into one folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import peft_atlas as pa
import pytest
from peft_atlas.bench import api, publish, store
from peft_atlas.bench.cli import main
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.plan_file import read_plan, shard_of
from peft_atlas.bench.records import Primary, Record, from_json
from peft_atlas.bench.store import Store, TakenError

sys.path.insert(0, str(Path(__file__).parent / "planted"))
from planted_grid import cell, environment  # type: ignore[import-not-found]

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def plan_file(tmp_path: Path, capsys: Captured) -> Path:
    """Three cells of the smoke protocol: two methods on one task, one method on another."""
    words = ["plan", "--methods", "lora,bitfit", "--tasks", "smoke-text,smoke-lm", "--protocol", "smoke", "--jsonl"]
    assert main([*words, "--results", str(tmp_path / "results")]) == 0
    shown = capsys.readouterr()
    file = tmp_path / "plan.jsonl"
    file.write_text(shown.out)
    assert "3 to run, 0 cached, 1 unsupported" in shown.err
    return file


def test_one_cell_of_a_plan_runs_once_however_often_it_is_asked_for(
    plan_file: Path, tmp_path: Path, capsys: Captured
) -> None:
    results = tmp_path / "results"
    key = json.loads(plan_file.read_text().splitlines()[1])["key"]
    command = ["run", "--plan", str(plan_file), "--only", key, "--results", str(results)]
    for _ in range(2):
        assert main(command) == 0
    (record,) = Store(results).records()
    assert (record.key, record.status, record.attempt) == (key, "ok", 1)
    assert record.computation is not None and record.computation.dtype == "float32"
    assert "1 cached" in capsys.readouterr().out
    rest = api.plan(plan_file=plan_file, results=results)
    assert len(rest.run) == 2 and [one.key for one, _ in rest.cached] == [key]


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_shards_are_a_partition_whatever_has_run(plan_file: Path, tmp_path: Path, parts: int) -> None:
    cells = read_plan(plan_file)
    shards = [
        [one.key for one in api.plan(plan_file=plan_file, shard=f"{i}/{parts}", results=tmp_path).cells]
        for i in range(1, parts + 1)
    ]
    assert sorted(key for shard in shards for key in shard) == sorted(one.key for one in cells)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("wrong", ["3", "0/3", "4/3", "a/b", "1/0", "-1/2"])
def test_a_wrong_shard_is_named(wrong: str) -> None:
    with pytest.raises(UsageError, match="the third of eight parts, not"):
        shard_of([], wrong)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda line: line | {"key": "0" * 16}, ":2: its key 0{16} is not the key of its cell"),
        (lambda line: {"cells": []}, ":2: this is no line of `bench plan --jsonl`"),
        (lambda line: _edited(line, "method", id="lorra"), ":2: unknown method 'lorra'. Did you mean lora"),
        (lambda line: _edited(line, "method", version=99), "planned with another method: 99, here it is"),
        (lambda line: _edited(line, "backbone", weights="f" * 16), "planned with another weights: f{16}, here it is"),
        (lambda line: _edited(line, "protocol", hash="e" * 16), "planned with another protocol: e{16}, here it is"),
        (lambda line: _edited(line, "protocol", id="embedded"), "no settings|another protocol|several protocols"),
    ],
)
def test_a_cell_that_would_be_another_one_here_is_refused(plan_file: Path, edit: object, message: str) -> None:
    lines = [json.loads(line) for line in plan_file.read_text().splitlines()]
    lines[1] = edit(lines[1])  # type: ignore[operator]
    plan_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match=message):
        read_plan(plan_file)


def _edited(line: dict[str, dict[str, dict[str, object]]], part: str, **changes: object) -> dict[str, object]:
    from peft_atlas.bench.records import Cell

    content = line["cell"] | {part: line["cell"][part] | changes}
    return {"key": Cell.model_validate(content).key, "cell": content}


def test_a_plan_file_says_which_cells_and_nothing_else_does(plan_file: Path, capsys: Captured) -> None:
    assert main(["run", "--plan", str(plan_file), "--methods", "lora"]) == 2
    assert "give no methods, tasks, seeds or budget beside it" in capsys.readouterr().err
    assert main(["run", "--tasks", "smoke"]) == 2
    assert "Missing option '--methods'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no cell has the key"):
        pa.run(plan_file=plan_file, only="0123", display="none")
    with pytest.raises(UsageError, match=r"the plan .*nowhere.* cannot be read"):
        pa.run(plan_file="nowhere", display="none")


# one folder, several machines --------------------------------------------------------------------------------------


def record(value: float, attempt: int = 1) -> Record:
    return Record(
        key=cell("shared").key,
        attempt=attempt,
        status="ok",
        phase="done",
        cell=cell("shared"),
        metrics={"accuracy": value},
        primary=Primary(name="accuracy", value=value, higher_is_better=True),
        environment=environment(),
        started="",
        finished="",
    )


def test_two_machines_whose_locks_do_not_meet_keep_both_attempts_and_their_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found the cell without a record; the folder's listing of the slower one is old, as NFS may have it."""
    here, there = Store(tmp_path), Store(tmp_path)
    monkeypatch.setattr(there, "_numbers", lambda cell: set())
    here.append(record(0.25), b"first")
    path = there.append(record(0.75), b"second")
    assert path.name == "2.json"
    assert [(one.attempt, one.metrics["accuracy"]) for one in here.records()] == [(1, 0.25), (2, 0.75)]
    for one, content in zip(here.records(), (b"first", b"second"), strict=True):
        assert one.predictions is not None
        assert (path.parent / one.predictions.file).read_bytes() == content
    with pytest.raises(TakenError):
        here.add(record(0.5), b"third")
    assert {file.name for file in path.parent.iterdir()} == {"1.json", "1.npz", "2.json", "2.npz"}


def test_a_machine_sweeps_what_it_left_itself_and_not_what_another_is_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Store(tmp_path).add(record(0.5)).parent
    (folder / f"{publish.TEMPORARY}{publish.HOST}@1-2.json").write_text("mine, left by a killed process")
    (folder / f"{publish.TEMPORARY}elsewhere@1-2.json").write_text("being written")
    Store(tmp_path).sweep(cell("shared"))
    assert sorted(file.name for file in folder.iterdir()) == [f"{publish.TEMPORARY}elsewhere@1-2.json", "1.json"]
    monkeypatch.setattr(publish, "STALE", -1)
    Store(tmp_path).sweep(cell("shared"))
    assert [file.name for file in folder.iterdir()] == ["1.json"]


def test_a_link_whose_answer_was_lost_is_no_collision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = publish.os.link

    def linked_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)  # what an NFS client does that got no answer

    monkeypatch.setattr(publish.os, "link", linked_twice)
    path = store.Store(tmp_path).add(record(0.5))
    assert from_json(path.read_text()).metrics == {"accuracy": 0.5}
