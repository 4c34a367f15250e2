"""Marks of contributed records: self-reported until somebody verified these very bytes."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from peft_atlas.bench.errors import UsageError
from peft_atlas.leaderboard.contributions import marks

sys.path.insert(0, str(Path(__file__).parent))
from leaderboard_results import Results, entry, files


def test_a_verification_holds_for_the_bytes_it_names(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    for method in ("lora", "bitfit", "full"):
        results.add(method, "smoke-vision", 0.8)
    root = results.store.root
    paths = {path.parts[-3]: path for path in root.glob("smoke/*/*/*/1.json")}
    lines = {
        paths[method].relative_to(root).as_posix(): {
            "contributor": "A. Person",
            "sha256": hashlib.sha256(paths[method].read_bytes()).hexdigest(),
            "verified_by": verifier,
        }
        for method, verifier in (("lora", "B. Other"), ("bitfit", None))
    }
    (root / "contributions.json").write_text(json.dumps({"records": lines}), encoding="utf-8")
    board = results.board()
    found = {name: entry(board, name, "smoke-vision").scores[0].mark for name in ("lora", "bitfit", "full")}
    assert found == {"lora": "verified", "bitfit": "self-reported", "full": "maintainers"}
    assert "| self-reported |" in files(results, ["md"])["methods/bitfit/README.md"]
    paths["lora"].write_text(paths["lora"].read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert marks(root)[paths["lora"].relative_to(root).as_posix()] == "self-reported"


@pytest.mark.parametrize("text", ["{", "[]", '{"records": {"x": {"contributor": "A"}}}', '{"records": {}, "more": 1}'])
def test_a_malformed_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "contributions.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"contributions\.json"):
        marks(tmp_path)
