"""`bench leaderboard`: pages and pictures are checked against the records, releases never change."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from peft_atlas.bench.cli import main
from peft_atlas.leaderboard import command
from peft_atlas.leaderboard.board import Board
from peft_atlas.leaderboard.data import build
from peft_atlas.leaderboard.plots import digest_of
from peft_atlas.leaderboard.releases import changes

sys.path.insert(0, str(Path(__file__).parent))
from leaderboard_results import TEXTS, Results, filled_results


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return filled_results(tmp_path_factory.mktemp("filled") / "results")


def test_check_fails_when_pages_and_records_differ(
    filled: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "results", tmp_path / "results" / "leaderboard"
    shutil.copytree(filled.store.root, root, ignore=shutil.ignore_patterns(".index", "leaderboard"))
    line = ["leaderboard", "--results", str(root), "--formats", ",".join(TEXTS)]
    assert main([*line, "--check"]) == 1
    assert main(line) == 0
    assert main([*line, "--check"]) == 0
    page = out / "methods" / "lora" / "README.md"
    page.write_text(page.read_text(encoding="utf-8").replace("| 8", "| 9", 1), encoding="utf-8")
    (out / "csv" / "pairs.csv").unlink()
    capsys.readouterr()
    assert main([*line, "--check"]) == 1
    assert set(capsys.readouterr().out.splitlines()) == {f"differs: {page}", f"missing: {out / 'csv' / 'pairs.csv'}"}
    assert main([*line[:-1], "md,cvs"]) == 2
    assert "Did you mean csv" in capsys.readouterr().err


def test_pictures_are_drawn_and_checked_by_what_they_show(filled: Results, tmp_path: Path) -> None:
    root, out = filled.store.root, tmp_path / "out"
    made = command.made(filled.board(), out, root, ["plots"])
    names = {path.partition("/")[2].rpartition("-")[0] for path in made if path.endswith("-light.png")}
    assert {"smoke-pareto-trainable", "smoke-heat-map", "smoke-seeds", "smoke-ranks-equal-steps"} <= names
    assert {path[-4:] for path in made} == {".png", ".svg"}
    assert all(digest_of(content) for content in made.values())
    assert b"oom" not in made["plots/smoke-heat-map.svg"]  # text is drawn as paths, so that a paper needs no font
    for path, content in made.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content[:-8] + b"otherlib" if path.endswith(".svg") else content)
    assert command.differences(made, out, ["plots"]) == []
    path = "plots/smoke-heat-map.svg"
    (out / path).write_bytes(made[path].replace(str(digest_of(made[path])).encode(), b"0" * 16))
    assert command.differences(made, out, ["plots"]) == [f"differs: {out / path}"]


def test_a_release_is_dated_archived_and_never_changed(filled: Results, tmp_path: Path) -> None:

    root = tmp_path / "results"
    shutil.copytree(filled.store.root, root, ignore=shutil.ignore_patterns(".index", "leaderboard"))
    line = ["leaderboard", "--results", str(root), "--freeze"]
    assert main([*line, "0.1"]) == 0
    folder = root / "releases" / "0.1"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main([*line, "0.1"]) == 2 and main([*line, "../up"]) == 2
    more = Results(root)
    more.add("full", "smoke-vision", 0.95)
    more.add("full", "smoke-text", 0.95)
    assert main([*line, "0.2"]) == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    first, second = build(root).releases
    assert (first.name, second.name, second.records) == ("0.1", "0.2", first.records + 2)
    assert first.changes == () and "new: full in smoke (equal-steps), rank 1" in second.changes
    assert hashlib.sha256(before["records.tar.gz"]).hexdigest() == first.archive_sha256
    with tarfile.open(folder / "records.tar.gz") as archive:
        archive.extractall(tmp_path / "again", filter="data")
    again = build(tmp_path / "again")
    assert again.digest == first.digest == json.loads(before["board.json"])["digest"]
    assert list(changes(again, Board.model_validate_json(before["board.json"]))) == []
