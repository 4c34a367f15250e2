"""Contributed records: true ones pass, and each way to bend one is found and named."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft_atlas as pa
import pytest
from peft_atlas.bench import record_checks
from peft_atlas.bench import validate_records as validating
from peft_atlas.bench.cli import main
from peft_atlas.bench.validate_records import validate_records

Bend = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "records"
    pa.run("lora,linear", "smoke-vision,smoke-text", protocol="smoke", results=folder, display="none")
    return folder


def record_of(folder: Path) -> Path:
    (file,) = folder.glob("smoke/smoke-vision/lora/*/1.json")
    return file


def raise_score(file: Path, record: dict[str, Any]) -> None:
    record["metrics"]["accuracy"] = record["primary"]["value"] = 0.999


def change_predictions(file: Path, record: dict[str, Any]) -> None:
    """With the hash and the score that belong to them: only the values of single items give it away."""
    with np.load(file.with_suffix(".npz")) as stored:
        arrays = dict(stored)
    arrays["per_item"] = 1 - arrays["per_item"]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    file.with_suffix(".npz").write_bytes(buffer.getvalue())
    record["predictions"]["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()


def lose_predictions(file: Path, record: dict[str, Any]) -> None:
    file.with_suffix(".npz").unlink()


def point_elsewhere(file: Path, record: dict[str, Any]) -> None:
    record["predictions"]["file"] = "../../../../other.npz"


def train_more(file: Path, record: dict[str, Any]) -> None:
    record["parameters"]["adapter"] += 1
    record["parameters"]["total_trainable"] += 1


def turn_time(file: Path, record: dict[str, Any]) -> None:
    record["finished"] = "2001-01-01T00:00:00+00:00"


def unknown_field(file: Path, record: dict[str, Any]) -> None:
    record["trust_me"] = True


BENDS: dict[str, Bend] = {
    "from its predictions": raise_score,
    "its values of the test items are not those of its predictions": change_predictions,
    "its predictions are missing": lose_predictions,
    "is no record: 1 validation error for Record predictions": point_elsewhere,
    "the method has": train_more,
    "it ended before it began": turn_time,
    "is no record": unknown_field,
}


def test_honest_records_pass_and_a_verifier_is_told_what_to_run(
    honest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = validate_records(honest)
    assert (found.records, found.faults, found.not_checked) == (4, (), ())
    assert len(found.self_reported) == 4
    assert [command.split("--tasks")[0] for command in found.rerun] == [
        "bench run --methods linear ",
        "bench run --methods lora ",
    ]
    assert main(["validate", str(honest)]) == 0
    assert "4 records" in capsys.readouterr().out


@pytest.mark.parametrize("text", BENDS)
def test_a_bent_record_is_found_and_named(honest: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "records"
    shutil.copytree(honest, folder)
    file = record_of(folder)
    record = json.loads(file.read_text(encoding="utf-8"))
    BENDS[text](file, record)
    file.write_text(json.dumps(record), encoding="utf-8")
    found = validate_records(folder)
    assert {fault.path for fault in found.faults} == {file.relative_to(folder).as_posix()}
    assert any(text in fault.text for fault in found.faults), found.faults
    assert len(found.self_reported) == 3 and found.exit_code == 1


def test_copies_wrong_places_and_sizes(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "records"
    shutil.copytree(honest, folder)
    shutil.move(record_of(folder).parent, record_of(folder).parents[1] / "elsewhere")
    monkeypatch.setattr(record_checks, "MAX_PREDICTIONS", 10)
    monkeypatch.setattr(validating, "MAX_FOLDER", 10)
    texts = [fault.text for fault in validate_records(folder).faults]
    assert sum("bytes; 10 are allowed" in text for text in texts) == 5
    assert sum("its cell belongs at smoke/smoke-vision/lora/" in text for text in texts) == 1
    assert main(["validate", str(folder)]) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert validate_records(empty).exit_code == 1
