"""Joining the results of several machines: nothing lost, nothing doubled, everything told."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench import profiling
from peft_atlas.bench.cli import main
from peft_atlas.bench.costs import CostProfile, Subject
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.merge import digest, merge, origins
from peft_atlas.bench.records import ErrorReport, Origin, Primary, Record
from peft_atlas.bench.store import Store

sys.path.insert(0, str(Path(__file__).parent / "planted"))
from planted_grid import cell, environment  # type: ignore[import-not-found]


def record(task: str, value: float | None, hour: int, attempt: int = 1, seed: int = 0) -> Record:
    """An ok record with this accuracy, or a failed one."""
    one = cell(task, seed)
    facts: dict[str, Any] = {
        "status": "error",
        "phase": "fit",
        "error": ErrorReport(type="X", message="x", traceback=""),
    }
    if value is not None:
        primary = Primary(name="accuracy", value=value, higher_is_better=True)
        facts = {"status": "ok", "phase": "done", "metrics": {"accuracy": value}, "primary": primary}
    times = {"started": f"2026-01-01T{hour - 1:02}", "finished": f"2026-01-01T{hour:02}"}
    return Record(key=one.key, attempt=attempt, cell=one, environment=environment(), **facts, **times)


def keep(folder: Path, one: Record, column: float | None = None) -> Path:
    """Put a record into a folder, with a predictions file where a number for it is given."""
    arrays = None if column is None else {"per_item": np.full(3, column)}
    return Store(folder).add(one, arrays)


def content(folder: Path) -> list[tuple[str, int, str | None, int | None]]:
    """(task, attempt, where it came from, attempt there), and whether all predictions are the records'."""
    store = Store(folder)
    for one in store.records():
        assert one.predictions is None or store.predictions(one) is not None
    return [
        (one.cell.task.id, one.attempt, *(("", 0) if one.origin is None else (one.origin.results, one.origin.attempt)))
        for one in store.records()
    ]


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    """Three machines: both `a` and `b` ran one task, with other outcomes; `b` failed first; `c` has a copy of `a`."""
    a, b, c = (tmp_path / name for name in "abc")
    keep(a, record("both", 0.5, hour=5), 0.5)
    keep(a, record("mine", 0.25, hour=6), 0.25)
    keep(b, record("both", None, hour=3))
    keep(b, record("both", 0.75, hour=9, attempt=2), 0.75)
    keep(b, record("both", 0.5, hour=4, seed=1))
    shutil.copytree(a, c)
    keep(c, record("mine", 0.25, hour=7, attempt=2), 0.25)
    return [a, b, c]


def test_a_union_in_the_order_in_which_attempts_ended(machines: list[Path], tmp_path: Path) -> None:
    merged = merge(machines, tmp_path / "all")
    assert (merged.added, merged.same, merged.repeated, merged.left_out) == (6, 2, 1, [])
    both = [("both", 1, "b", 1), ("both", 2, "a", 1), ("both", 3, "b", 2)]
    mine = [("mine", 1, "a", 1), ("mine", 2, "c", 2)]
    assert sorted(content(tmp_path / "all")) == sorted([*both, ("both", 1, "b", 1), *mine])
    (rival,) = merged.rivals
    assert rival.cell == "planted x both x seed 0" and rival.key == cell("both").key
    assert [(one["attempt"], one["value"]) for one in rival.records] == [(2, 0.5), (3, 0.75)]
    current = Store(tmp_path / "all").current(cell("both"))
    assert current is not None and current.metrics == {"accuracy": 0.75}


def test_the_order_of_the_sources_and_how_often_they_are_merged_do_not_matter(
    machines: list[Path], tmp_path: Path
) -> None:
    found = set()
    for number, order in enumerate(permutations(machines)):
        target = tmp_path / f"all-{number}"
        merge(order, target)
        again = merge(order, target)
        assert (again.added, again.same) == (0, 8)
        found.add(tuple((task, attempt, digest(one)) for (task, attempt, *_), one in _rows(target)))
    assert len(found) == 1
    step = tmp_path / "in-steps"
    for machine in machines:
        merge([machine], step)
    assert {digest(one) for _, one in _rows(step)} == {entry[2] for entry in next(iter(found))}
    merge([step], tmp_path / "all-0")
    assert len(list(Store(tmp_path / "all-0").records())) == 6, "merged records are known again elsewhere"


def _rows(folder: Path) -> list[tuple[tuple[str, int, str | None, int | None], Record]]:
    return list(zip(content(folder), Store(folder).records(), strict=True))


def test_what_is_there_keeps_its_place(machines: list[Path], tmp_path: Path) -> None:
    here = tmp_path / "here"
    path = keep(here, record("both", 0.125, hour=1), 0.125)
    before = path.read_bytes()
    merge(machines, here)
    assert path.read_bytes() == before
    rows = [row[1:] for row in content(here) if row[0] == "both"]
    assert rows[:4] == [(1, "", 0), (2, "b", 1), (3, "a", 1), (4, "b", 2)]


def test_what_cannot_be_taken_is_named_and_the_rest_is_merged(
    machines: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, _ = machines
    (b / cell("both").folder / "1.json").write_text("{")
    (a / cell("mine").folder / "1.npz").write_bytes(b"damaged")
    lock = Store(tmp_path / "all").lock(cell("both", 1))
    assert lock is not None
    assert main(["merge", str(a), str(b), "--results", str(tmp_path / "all"), "--json"]) == 1
    lock.release()
    report = json.loads(capsys.readouterr().out)
    assert report["added"] == 2 and len(report["left_out"]) == 3
    told = " | ".join(report["left_out"])
    assert f"b: planted/both/planted/{cell('both').key}/1.json: " in told
    assert "a: planted x mine x seed 0, attempt 1: its predictions are not there" in told
    assert "planted x both x seed 1: a run is working on it" in told
    assert main(["merge", str(b), "--results", str(tmp_path / "all")]) == 1
    shown = capsys.readouterr()
    assert "records: 1 added, 1 were there" in shown.out and "differ: planted x both x seed 0" in shown.out
    assert shown.err.count("left out: ") == 1


def test_wrong_folders_are_refused(machines: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the results folder .*nowhere does not exist"):
        merge([tmp_path / "nowhere"], tmp_path / "all")
    with pytest.raises(UsageError, match="cannot be merged into itself"):
        merge([machines[0]], machines[0])
    assert not (tmp_path / "all").exists()


def test_sources_get_the_shortest_names_that_tell_them_apart() -> None:
    folders = [Path("/x/lab/results"), Path("/x/cloud/results"), Path("/x/other")]
    assert list(origins(folders).values()) == ["lab/results", "cloud/results", "x/other"]
    assert list(origins([Path("/home/someone/results")]).values()) == ["results"]


def test_an_origin_is_where_a_record_was_written(machines: list[Path], tmp_path: Path) -> None:
    merge(machines[:1], tmp_path / "first")
    merge([tmp_path / "first"], tmp_path / "second")
    assert {one.origin for one in Store(tmp_path / "second").records()} == {Origin(results="a", attempt=1)}


def profile(started: str) -> CostProfile:
    one = cell("t")
    subject = Subject(
        method=one.method, backbone=one.backbone, family="vision", inputs={}, batch=4, classes=10, optimizer={},
        dtype="float32", device="cpu", threads=1,
    )  # fmt: skip
    facts = {"environment": environment(), "started": started, "finished": started}
    return CostProfile(key=subject.key, status="ok", subject=subject, **facts)


def test_profiles_are_joined_alike(tmp_path: Path) -> None:
    for machine, hours in {"a": ("1", "2"), "b": ("2", "3")}.items():
        for hour in hours:
            profiling.write(tmp_path / machine, profile(hour))
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert (merged.added_profiles, merged.same_profiles) == (3, 1)
    assert [one.started for one in profiling.read(tmp_path / "all")] == ["1", "2", "3"]
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all").added_profiles == 0
