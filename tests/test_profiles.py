"""Cost profiles through the command line, and their figures against what theory says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft_atlas.bench import profiling
from peft_atlas.bench.cli import main
from peft_atlas.bench.costs import CostProfile, from_json, to_json
from peft_atlas.bench.other_load import OtherLoad, Usage, usage

FLOAT = 4  # bytes
METHODS = "lora(targets=q+v),full,linear,prefix,vpt"


def profile(results: Path, *arguments: str) -> int:
    return main(["profile", "--protocol", "smoke", "--results", str(results), *arguments])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], CostProfile]:
    results = tmp_path_factory.mktemp("profiles")
    assert profile(results, "--methods", METHODS, "--tasks", "smoke", "--json") == 0
    return {(p.subject.method.id, p.subject.family): p for p in profiling.read(results)}


def test_every_supported_pair_has_a_profile(found: Any) -> None:
    assert len(found) == 5 * 3 - 1, "linear has nothing to train on the language model"
    assert all(p.status == "ok" for p in found.values())
    assert all(from_json(to_json(p)) == p for p in found.values())


def test_ledger_of_weights_gradients_and_adamw(found: Any) -> None:
    for (method, _), p in found.items():
        if method == "linear":
            assert p.training == () and "no gradient descent" in " ".join(p.notes)
            continue
        tensors = sum(group.tensors for group in p.parameters.trained.values())
        for ledger in p.training:
            trained = FLOAT * p.parameters.total_trainable
            assert ledger.trained_weights == ledger.gradients == trained
            assert ledger.optimizer_state == 2 * trained + FLOAT * tensors, "two moments, and a step count a tensor"
            assert ledger.activations > 0 and ledger.weight_copies == 0
            assert ledger.peak >= sum(
                getattr(ledger, name) for name in ("frozen_weights", "trained_weights", "gradients", "optimizer_state")
            )
        assert [ledger.form for ledger in p.training] == ["canonical", "native"]


def test_lora_stores_and_computes_less_than_full(found: Any) -> None:
    for family in ("vision", "text", "lm"):
        lora, full = found["lora", family], found["full", family]
        assert lora.training[0].activations < full.training[0].activations
        assert lora.operations.train_backward < full.operations.train_backward
        assert lora.adapter_file_bytes < full.adapter_file_bytes
        assert full.parameters.adapter == full.parameters.backbone


def test_operations_are_those_of_the_matrices(found: Any) -> None:
    """A merged method costs what the backbone costs; beside it, LoRA adds 2 r (d_in + d_out) a token and matrix."""
    bare = found["linear", "text"].operations.inference_per_item
    lora = found["lora", "text"]
    assert lora.operations.inference_per_item_merged == bare
    a = lora.parameters.adapter  # sum of r (d_in + d_out) over the matrices
    assert lora.operations.inference_per_item - bare == 2 * a * lora.tokens_per_item
    full = found["full", "text"].operations
    assert 1.8 < full.train_backward / full.train_forward <= 2, "two products a matrix, and none for the first input"


def test_conditions_are_named_and_complete(found: Any) -> None:
    lora, prefix = found["lora", "vision"], found["prefix", "vision"]
    assert {(t.batch, t.merged) for t in lora.timings if t.what == "inference"} == {
        (batch, merged) for batch in (1, 32) for merged in (None, False, True)
    }
    assert prefix.timing("inference", 1, True) is None
    assert "not merged" in " ".join(prefix.notes)
    for p in found.values():
        for timing in p.timings:
            assert timing.n >= 5 and 0 < timing.p10 <= timing.median <= timing.p90
    assert {t.what for t in lora.timings} == {"train step", "inference", "load adapter", "switch adapter"}
    assert lora.peak.train_rss_above_baseline is None or lora.peak.train_rss_above_baseline > 0


def test_the_canonical_ledger_is_the_same_again_and_a_profile_is_not_repeated(
    tmp_path: Path, found: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--methods", "lora(targets=q+v)", "--tasks", "smoke-text")
    assert profile(tmp_path, *asked) == 0
    (again,) = profiling.read(tmp_path)
    first = found["lora", "text"]
    assert again.training == first.training
    assert again.operations == first.operations and again.inference == first.inference
    assert again.adapter_file_bytes == first.adapter_file_bytes
    assert profile(tmp_path, *asked) == 0
    printed = capsys.readouterr()
    assert "0 to measure, 1 measured already" in printed.err
    assert "lora(targets=q+v)" in printed.out
    assert profile(tmp_path, *asked, "--again") == 0
    assert len(list(profiling.read(tmp_path))) == 2
    frame = profiling.frame(tmp_path)
    assert len(frame) == 1 and frame["tokens_per_second"][0] > 0


def test_a_profile_that_fails_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile(tmp_path, "--methods", "lora(r=4000)", "--tasks", "smoke-text") == 1
    (failed,) = profiling.read(tmp_path)
    assert failed.status == "error" and "r=4000" in failed.error.message
    assert "error" in capsys.readouterr().out


def test_other_files_are_skipped_by_name(tmp_path: Path, found: Any, caplog: pytest.LogCaptureFixture) -> None:
    good = profiling.write(tmp_path, found["lora", "text"])
    newer = json.loads(good.read_text()) | {"schema_version": 99}
    good.with_name("profile-2.json").write_text(json.dumps(newer))
    good.with_name("profile-3.json").write_text("{")
    assert len(list(profiling.read(tmp_path))) == 1
    assert "schema_version 99 is newer" in caplog.text and "profile-3.json" in caplog.text


def test_own_work_is_no_load_and_others_is() -> None:
    readings = iter([Usage(100.0, 5000.0, 40.0), Usage(110.0, 5013.0, 49.0), Usage(120.0, 5020.0, 60.0)])
    watch = OtherLoad(lambda: next(readings))
    assert watch.mean() == pytest.approx(0.4)
    assert watch.mean() == 0.0, "clocks of unlike grain may say less than nothing"


def test_what_this_process_works_is_known_as_its_own() -> None:
    before = usage()
    while (after := usage()).own - before.own < 0.2:
        sum(range(100_000))
    assert after.machine - before.machine >= after.own - before.own - 0.05, "the machine's share holds it, by ticks"
    assert after.clock > before.clock


@pytest.mark.parametrize(
    ("average", "other", "busy"), [(3.0, 0.1, False), (0.0, 1.5, True), (3.0, None, True), (None, None, False)]
)
def test_a_machine_is_busy_by_what_others_do(
    found: Any, average: float | None, other: float | None, busy: bool
) -> None:
    measured = found["lora", "text"]
    assert measured.other_load is not None
    profile = measured.model_copy(update={"load_average": average, "other_load": other})
    assert ("the machine was busy" in profiling.table([profile])) == busy


def test_a_profile_of_the_first_version_is_read(found: Any) -> None:
    content = json.loads(to_json(found["lora", "text"])) | {"schema_version": 1, "load_average": 2.0}
    del content["other_load"]
    old = from_json(json.dumps(content))
    assert old.other_load is None and old.busy
