"""Records and the store: strict, immutable, whole or absent."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench import records
from peft_atlas.bench.api import load_results
from peft_atlas.bench.records import (
    DataFingerprints,
    ErrorReport,
    Primary,
    Record,
    Status,
    from_json,
    json_schema,
    to_json,
)
from peft_atlas.bench.registry import registry
from peft_atlas.bench.store import TEMPORARY, Store, StoreError

sys.path.insert(0, str(Path(__file__).parent / "planted"))
from planted_grid import cell, environment  # type: ignore[import-not-found]


def record(attempt: int = 1, status: Status = "ok", value: float = 0.5, seed: int = 0, **changes: Any) -> Record:
    one = cell("some-task", seed)
    facts: dict[str, Any] = {"environment": environment(), "started": "2026-01-01", "finished": "2026-01-01"}
    if status == "ok":
        facts["primary"] = Primary(name="accuracy", value=value, higher_is_better=True)
        facts["metrics"] = {"accuracy": value}
    else:
        facts["error"] = ErrorReport(type="X", message="x", traceback="")
    return Record(key=one.key, attempt=attempt, status=status, phase="done", cell=one, **{**facts, **changes})


def test_a_record_survives_its_json() -> None:
    assert from_json(to_json(record())) == record()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused_in_both_directions(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        record(value=value)
    with pytest.raises(ValueError, match="is not JSON"):
        from_json(to_json(record()).replace("0.5", "Infinity"))


def test_the_key_is_the_identity_and_nothing_else() -> None:
    base = cell("t")
    renamed = base.model_copy(update={"method": base.method.model_copy(update={"name": "planted(lr=0.1)"})})
    assert renamed.key == base.key
    others = [
        cell("t", 1),
        cell("u"),
        cell("t", selection=True),
        cell("t", steps=3),
        cell("t", protocol=base.protocol.model_copy(update={"hash": "1" * 16})),
        cell("t", backbone=base.backbone.model_copy(update={"weights": "0" * 16})),
        cell("t", method=base.method.model_copy(update={"config": {"lr": 0.2}})),
        cell("t", method=base.method.model_copy(update={"version": 2})),
    ]
    assert len({base.key, *(other.key for other in others)}) == len(others) + 1
    assert base.key == cell("t").key == "dd7feb00c0a70c41", "keys name folders of published records"


def test_a_record_whose_cell_was_edited_is_refused() -> None:
    data = json.loads(to_json(record()))
    data["cell"]["seed"] = 5
    with pytest.raises(ValueError, match="is not the key of its cell"):
        from_json(json.dumps(data))


def test_older_records_are_upgraded_and_newer_ones_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_v0(data: dict[str, Any]) -> dict[str, Any]:
        outcome = data.pop("outcome")
        return {**data, "status": outcome}

    monkeypatch.setitem(records.UPGRADES, 0, from_v0)
    data = json.loads(to_json(record()))
    old = {**data, "schema_version": 0, "outcome": data["status"]}
    del old["status"]
    assert from_json(json.dumps(old)) == record()
    with pytest.raises(ValueError, match="schema_version 7 is newer"):
        from_json(json.dumps({**data, "schema_version": 7}))


def test_records_from_before_a_protocol_could_choose_were_computed_plainly() -> None:
    data = {**json.loads(to_json(record())), "schema_version": 2}
    for later in ("computation", "origin"):
        del data[later]
    upgraded = from_json(json.dumps(data))
    assert upgraded.computation is not None and upgraded.computation.model_dump() == records.PLAIN
    assert upgraded.model_copy(update={"computation": None}) == record()


def test_the_schema_defines_every_number() -> None:
    schema = json_schema()
    definitions = [schema, *schema["$defs"].values()]
    numbers = {
        (definition["title"], name): field
        for definition in definitions
        for name, field in definition["properties"].items()
        if {"number", "integer"} & {field.get("type"), *(kind.get("type") for kind in field.get("anyOf", []))}
    }
    plain = {"version", "seed", "attempt", "schema_version", "value", "step", "median", "p10", "p90"}
    missing = [place for place, field in numbers.items() if "description" not in field and place[1] not in plain]
    assert len(numbers) > 20 and not missing


def test_the_newest_ok_attempt_counts_else_the_newest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.current(cell("some-task")) is None and store.next_attempt(cell("some-task")) == 1
    store.add(record(1, "error"))
    store.add(record(2, "oom"))
    assert store.current(cell("some-task")) == record(2, "oom")
    store.add(record(3, "ok"))
    store.add(record(4, "timeout"))
    assert store.current(cell("some-task")) == record(3, "ok")
    assert store.next_attempt(cell("some-task")) == 5


def test_records_of_other_data_than_the_card_s_do_not_count(tmp_path: Path) -> None:
    store, one = Store(tmp_path), cell("smoke-text")
    now = dict(registry("tasks").card("smoke-text").fingerprints)

    def attempt(number: int, train: str, matches: bool) -> Record:
        data = DataFingerprints(train=train, test=now["test"], matches_card=matches)
        return record(number, data=data).model_copy(update={"cell": one, "key": one.key})

    store.add(attempt(1, "0" * 16, True))  # the card has changed since
    assert store.current(one) is None and store.frame().empty
    store.add(attempt(2, "0" * 16, False))  # never was the card's: another machine's rounding
    assert store.current(one) is not None
    store.add(attempt(3, now["train"], True))
    current = store.current(one)
    assert current is not None and current.attempt == 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.add(record(value=0.25))
    with pytest.raises(StoreError, match="never overwritten"):
        store.add(record(value=0.75))
    assert from_json(path.read_text()).metrics == {"accuracy": 0.25}
    assert [file.name for file in path.parent.iterdir()] == ["1.json"]


def test_corrupt_records_are_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    good = store.add(record(1))
    (good.parent / "2.json").write_text(good.read_text()[:300])
    (good.parent / "3.json").write_bytes(b"\xff\xfe")
    (good.parent / "4.json").write_text("[]")
    (good.parent / f"{TEMPORARY}9-5.json").write_text(good.read_text())
    with caplog.at_level(logging.WARNING):
        assert list(store.records()) == [record(1)]
        assert len(load_results(tmp_path)) == 1
    told = " ".join(caplog.messages)
    assert all(f"{number}.json" in told for number in (2, 3, 4))
    assert store.next_attempt(cell("some-task")) == 5, "a corrupt attempt keeps its number"


def test_predictions_that_are_not_the_records_are_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    arrays = {"items": np.array(["a", "b"]), "logits": np.array([[1.5, 2.5]], dtype=np.float32)}
    path = store.add(record(), arrays)
    kept = store.predictions(from_json(path.read_text()))
    assert kept is not None and kept["items"].tolist() == ["a", "b"]
    assert kept["logits"].dtype == np.float32 and kept["logits"].tolist() == [[1.5, 2.5]]
    path.with_suffix(".npz").write_bytes(b"other")
    assert store.predictions(from_json(path.read_text())) is None
    assert "1.npz" in caplog.text
    with pytest.raises(TypeError, match="pickle"):
        store.add(record(2), {"bad": np.array([object()])})


@pytest.mark.parametrize("file", ["../1.npz", "/tmp/1.npz", "1.npz/..", "1.json", "x.npz"])
def test_predictions_lie_beside_their_record(file: str) -> None:
    with pytest.raises(ValueError, match="predictions"):
        from_json(
            to_json(record()).replace('"predictions": null', f'"predictions": {{"file": "{file}", "sha256": "0"}}')
        )


def test_a_cell_that_another_run_holds_cannot_be_locked(tmp_path: Path) -> None:
    mine = Store(tmp_path).lock(cell("some-task"))
    assert mine is not None
    assert Store(tmp_path).lock(cell("some-task")) is None
    assert Store(tmp_path).lock(cell("some-task", 1)) is not None
    mine.release()
    assert Store(tmp_path).lock(cell("some-task")) is not None


def test_results_load_as_one_tidy_row_a_cell(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(record(1, "error"))
    store.add(record(2, value=0.25))
    store.add(record(1, "oom", seed=1))
    frame = load_results(tmp_path).set_index("seed")
    assert frame["status"].to_dict() == {0: "ok", 1: "oom"}
    assert frame.loc[0, "value"] == 0.25 and frame.loc[0, "attempt"] == 2
    assert json.loads(frame.loc[0, "config"]) == {"lr": 0.1}
    assert (tmp_path / frame.loc[0, "path"]).is_file()
    assert frame.loc[1, ["value", "error"]].tolist()[1] == "x"
