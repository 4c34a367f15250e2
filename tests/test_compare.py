"""Comparisons: planted regressions are caught and named, clean re-runs raise no alarm, causes come before effects."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from peft_atlas.bench import compare as comparing
from peft_atlas.bench.cli import main
from peft_atlas.bench.compare import compare
from peft_atlas.bench.environment import environment
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.facts import COLUMNS, compact, digest
from peft_atlas.bench.findings import Comparison, Finding
from peft_atlas.bench.names import Name
from peft_atlas.bench.plan import design
from peft_atlas.bench.runner import Limits, Runner
from peft_atlas.bench.sides import Side, folder_side, side
from peft_atlas.bench.store import Store

sys.path.insert(0, str(Path(__file__).parent / "planted"))  # children import the planted cells by name

METHODS, TASKS = ("lora", "bitfit", "linear", "ln-tuning"), ("smoke-vision", "smoke-text")
LOSSES = [0.7, 0.65, 0.6]


# real cells with a planted regression ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Side]:
    """The smoke cells of some methods as a planted version of the code leaves them; `again` tells runs apart."""
    known: dict[tuple[object, ...], Side] = {}

    def planted(version: str, *methods: str, again: int = 0) -> Side:
        if (version, methods, again) not in known:
            folder = tmp_path_factory.mktemp(version)
            cells = design("smoke", [Name(name) for name in methods or METHODS], TASKS, [0]).cells
            target = f"planted_regressions:{version}"
            records = Runner(Store(folder), Limits(jobs=2), environment(1, 2), target=target).run(cells)
            assert {record.status for record in records} == {"ok"}, [record.error for record in records]
            known[version, methods, again] = folder_side(folder, str(folder))
        return known[version, methods, again]

    return planted


def failing(comparison: Comparison) -> list[Finding]:
    return [finding for finding in comparison.findings if finding.verdict in ("regression", "drift")]


def test_ten_clean_runs_raise_no_alarm(run: Callable[..., Side]) -> None:
    for number in range(10):
        again = compare(run("clean"), run("clean", "lora", "linear", again=number + 1))
        assert again.findings == [] and (again.pairs, again.exact) == (4, 4)


def test_a_halved_scale_is_training_drift_of_that_method_alone(run: Callable[..., Side]) -> None:
    found = compare(run("clean"), run("halved_scale", "lora", "linear"))
    training = [finding for finding in failing(found) if finding.kind == "training"]
    assert {finding.methods for finding in failing(found)} == {("lora",)}
    assert {task for finding in training for task in finding.tasks} == set(TASKS)
    assert all("training drift: the loss differs from step 1 on" in finding.text for finding in training)
    other = side_on(run("halved_scale", "lora", "linear"), "another machine")
    within = [finding for finding in failing(compare(run("clean"), other)) if finding.kind == "training"]
    assert {task for finding in within for task in finding.tasks} == set(TASKS), "beyond another machine's rounding"
    assert compare(run("clean"), side_on(run("clean", "lora", "linear", again=1), "another machine")).exit_code == 0


def test_a_leaked_norm_is_named(run: Callable[..., Side]) -> None:
    found = compare(run("clean"), run("leaked_norm", "lora"))
    text = " ".join(str(finding) for finding in failing(found) if finding.kind == "trained tensors")
    assert "lora: trains what it did not: backbone.blocks.*.norm*.bias, backbone.blocks.*.norm*.weight" in text
    assert any(finding.text.startswith("adapter parameters ") for finding in failing(found))
    assert {finding.methods for finding in failing(found)} == {("lora",)}


def test_permuted_labels_are_the_task_s_and_named(run: Callable[..., Side], monkeypatch: pytest.MonkeyPatch) -> None:
    from peft_atlas.bench.baseline import task_labels
    from peft_atlas.bench.registry import registry
    from planted_regressions import permute_labels  # type: ignore[import-not-found]

    before = replace(run("clean"), labels=task_labels(TASKS))
    task = registry("tasks").load("smoke-vision")
    monkeypatch.setattr(task, "build", task.build)
    permute_labels()
    after = replace(run("permuted_labels", "lora", "linear"), labels=task_labels(TASKS))
    (finding,) = failing(compare(before, after))
    assert (finding.kind, finding.methods, finding.tasks) == ("data", (), ("smoke-vision",))
    assert "training data" in finding.text and "labels of 2 of 64 items differ: 10, 11" in finding.text


def test_permuted_test_labels_show_in_the_predictions(run: Callable[..., Side]) -> None:
    (finding,) = failing(compare(run("clean"), run("permuted_test_labels", "lora")))
    assert (finding.kind, finding.methods, finding.tasks) == ("data", (), ("smoke-text",))
    assert "labels of at least 2 of 32 items differ: test-004, test-005" in finding.text


def test_a_result_evaluated_twice_is_named_with_both_methods(run: Callable[..., Side]) -> None:
    found = compare(run("clean"), run("evaluated_twice", "lora", "bitfit"))
    (twice,) = [finding for finding in failing(found) if finding.kind == "duplicate"]
    assert twice.methods == ("bitfit", "lora") and set(twice.tasks) == set(TASKS)
    assert not [
        f
        for f in compare(run("evaluated_twice", "lora", "bitfit"), run("evaluated_twice", "lora", "bitfit")).findings
        if f.kind == "duplicate"
    ]


def test_evaluation_drift_is_told_from_training_drift(run: Callable[..., Side]) -> None:
    found = failing(compare(run("clean"), run("shifted_evaluation", "lora")))
    assert {(finding.kind, finding.methods) for finding in found} == {("evaluation", ("lora",)), ("quality", ("lora",))}
    (drift,) = [finding for finding in found if finding.kind == "evaluation"]
    assert "evaluation drift: same training trace, other scores: accuracy " in drift.text


def test_what_moves_most_methods_is_drift_of_the_pipeline(run: Callable[..., Side]) -> None:
    found = failing(compare(run("clean"), run("other_loss")))
    training = [finding for finding in found if finding.kind == "training"]
    assert [(finding.verdict, finding.methods) for finding in training] == [("drift", ())]
    assert "training of 3 of 4 methods" in training[0].text and set(training[0].tasks) == set(TASKS)


# simulated sides ------------------------------------------------------------------------------------------------------


def row(method: str = "lora", task: str = "mnist", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A cell's facts; `losses` are given as a list."""
    losses = changes.pop("losses", LOSSES)
    facts: dict[str, Any] = dict.fromkeys(COLUMNS)
    facts |= {"protocol": "embedded", "task": task, "method_name": method, "seed": seed, "protocol_version": 1}
    facts |= {"protocol_hash": "a", "task_version": 1, "backbone": "b", "weights": "w", "method_version": 1}
    facts |= {"config": '{"lr":0.1}', "adapter_parameters": 10, "train_data": "t", "test_data": "u", "status": "ok"}
    facts |= {"metric": "accuracy", "value": 0.5, "higher_is_better": True, "metrics": '{"accuracy":0.5}'}
    facts |= {"machine": "m", "key": f"{method}/{task}/{seed}", "path": f"{method}/{task}/{seed}", "selection": False}
    facts |= {"losses": compact(losses), "loss_digest": digest([compact(losses)])}
    return {**facts, **changes}


def simulated(*rows: dict[str, Any], name: str = "x", items: dict[str, np.ndarray] | None = None) -> Side:
    """A side of these cells; `items` are the per-item values by path."""

    def arrays(path: str) -> dict[str, np.ndarray] | None:
        values = (items or {}).get(path)
        return None if values is None else {"items": np.arange(len(values)).astype(str), "per_item": values}

    return Side(name, pd.DataFrame(list(rows), columns=COLUMNS), arrays)


def side_on(one: Side, machine: str) -> Side:
    return replace(one, cells=one.cells.assign(machine=machine))


def scored(draws: np.random.Generator, shift: dict[str, float], methods: list[str], tasks: list[str]) -> Side:
    """Methods on tasks of 500 items; accuracy 0.7 and `shift`, with a little noise from run to run."""
    rows, items = [], {}
    for task in tasks:
        for method in methods:
            common = np.random.default_rng([len(task), *method.encode()]).random(500)
            noise = 0.02 * draws.standard_normal(500)
            values = (common + noise < 0.7 + shift.get(method, 0.0)).astype(float)
            path = f"{method}/{task}"
            items[path] = values
            mean = float(values.mean())
            facts = {"value": mean, "metrics": compact({"accuracy": mean}), "path": path}
            rows.append(row(method, task, **facts, predictions=f"{draws.random()}", losses=[float(draws.random())]))
    return simulated(*rows, items=items)


def kinds(comparison: Comparison, *wanted: str) -> list[Finding]:
    return [finding for finding in comparison.findings if finding.kind in wanted]


EIGHT = ["mnist", "emoji", "clutter", "wafer", "spectro", "dsprites-location", "count", "azimuth"]


def test_quality_that_falls_is_named_per_cell_and_per_suite() -> None:
    draws = np.random.default_rng(0)
    methods = ["full", "lora", "vpt"]
    found = compare(scored(draws, {}, methods, EIGHT), scored(draws, {"lora": -0.06}, methods, EIGHT))
    cells = kinds(found, "quality")
    assert cells and {finding.methods for finding in cells} == {("lora",)}
    assert all(finding.verdict == "regression" and "accuracy -" in finding.text for finding in cells)
    (suite,) = kinds(found, "suite")
    assert suite.tasks == ("vtab-embedded",) and suite.methods == ("lora",) and suite.verdict == "regression"
    better = compare(scored(draws, {}, methods, EIGHT), scored(draws, {"lora": 0.06}, methods, EIGHT))
    assert {finding.verdict for finding in kinds(better, "quality", "suite")} == {"improvement"}


def test_noise_of_quality_raises_no_alarm() -> None:
    """320 cells that differ by noise alone: Holm keeps the chance of any alarm below 5%."""
    draws, methods = np.random.default_rng(1), [f"method-{number}" for number in range(40)]
    found = compare(scored(draws, {}, methods, EIGHT), scored(draws, {}, methods, EIGHT))
    assert found.pairs == 320 and not kinds(found, "quality", "suite")


def test_a_shift_of_all_methods_is_drift_and_only_more_than_that_is_a_regression() -> None:
    draws = np.random.default_rng(2)
    methods = ["full", "lora", "vpt", "bitfit", "linear"]
    shift = dict.fromkeys(methods, -0.08)
    found = compare(scored(draws, {}, methods, ["mnist"]), scored(draws, shift, methods, ["mnist"]))
    (drift,) = kinds(found, "quality")
    assert drift.verdict == "drift" and drift.methods == () and "common shift of most of 5 methods" in drift.text
    found = compare(scored(draws, {}, methods, ["mnist"]), scored(draws, {**shift, "vpt": -0.3}, methods, ["mnist"]))
    more, drift = kinds(found, "quality")
    assert drift.verdict == "drift" and more.methods == ("vpt",) and "beyond the common shift" in more.text


def test_one_method_of_many_that_did_not_move_is_no_common_shift() -> None:
    methods = ["full", "lora", "vpt", "bitfit", "linear"]
    before = scored(np.random.default_rng(3), {}, methods, ["mnist"])
    after = scored(np.random.default_rng(3), {"vpt": -0.3}, methods, ["mnist"])
    unmoved = before.cells["method_name"].ne("vpt")
    cells = pd.concat([before.cells[unmoved], after.cells[~unmoved]])
    (finding,) = kinds(compare(before, Side("y", cells, after.arrays)), "quality")
    assert finding.methods == ("vpt",) and finding.verdict == "regression"


def test_significance_alone_and_effect_alone_are_no_change() -> None:
    ones = np.ones(100_000)
    small = ones.copy()
    small[:500] = 0.0  # half a point, p far below any level
    few = np.array([1.0, 1.0, 1.0, 0.0])  # 25 points, no significance

    def one(values: np.ndarray) -> Side:
        mean = float(values.mean())
        facts = {"value": mean, "metrics": compact({"accuracy": mean}), "predictions": str(mean), "losses": [mean]}
        return simulated(row(**facts), items={"lora/mnist/0": values})

    assert not kinds(compare(one(ones), one(small)), "quality")
    assert not kinds(compare(one(np.ones(4)), one(few)), "quality")


def test_without_items_seeds_are_compared_and_a_single_seed_is_said_to_be_untestable() -> None:
    before = simulated(*(row(seed=seed, value=0.9 + 0.001 * seed, losses=[seed]) for seed in range(5)))
    after = simulated(*(row(seed=seed, value=0.8 + 0.002 * seed, losses=[seed + 9]) for seed in range(5)))
    (finding,) = kinds(compare(before, after), "quality")
    assert finding.verdict == "regression" and "accuracy -9.8 ± 0.2 points" in finding.text
    (note,) = kinds(compare(simulated(row(value=0.9)), simulated(row(value=0.8))), "quality", "untested")
    assert note.verdict == "note" and "cannot be tested, one seed and no stored items" in note.text


def test_other_settings_are_left_out_and_named() -> None:
    found = compare(simulated(row(), row("vpt")), simulated(row(protocol_hash="z", value=0.1), row("vpt")))
    (finding,) = found.findings
    assert finding.text == "not comparable: protocol settings a -> z" and finding.methods == ("lora",)
    assert found.exit_code == 0


def test_seeds_of_different_machines_are_never_averaged() -> None:
    before = simulated(*(row(seed=seed, value=0.9 + 0.01 * seed) for seed in range(4)))
    after = [row(seed=seed, value=0.5 + 0.01 * seed, machine="m" if seed < 2 else "n") for seed in range(4)]
    found = compare(before, simulated(*after))
    texts = [finding.text for finding in kinds(found, "quality", "untested")]
    assert len(texts) in (1, 2) and (found.exact, found.rounded) == (2, 2)
    suites = [row(task=task, machine="n" if task == "mnist" else "m") for task in EIGHT]
    (incomplete,) = compare(simulated(*(row(task=task) for task in EIGHT)), simulated(*suites)).incomplete
    assert str(incomplete) == "vtab-embedded: lora: its tasks ran on different machines"


def test_a_suite_with_missing_cells_says_which() -> None:
    before = simulated(*(row(task=task) for task in EIGHT))
    after = simulated(*(row(task=task) for task in EIGHT if task not in ("wafer", "count")))
    found = compare(before, after)
    assert [str(one) for one in found.incomplete] == ["vtab-embedded: lora: lacks wafer, count"]
    assert found.only_a == ["lora x count x seed 0", "lora x wafer x seed 0"] and found.exit_code == 0
    assert {finding.text for finding in compare(before, after, complete=True).findings} == {"no record any more"}


def test_a_declared_change_is_no_regression() -> None:
    after = row(method_version=2, config='{"lr":0.2}', adapter_parameters=20, losses=[0.1])
    (finding,) = compare(simulated(row()), simulated(after)).findings
    assert (finding.verdict, finding.text) == ("declared", "version 1 -> 2, lr 0.1 -> 0.2")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"adapter_parameters": 1792}, "adapter parameters 10 -> 1,792"),
        ({"status": "oom", "phase": "fit", "error": "no memory"}, "status ok -> oom in fit: no memory"),
        ({"losses": [0.7, 0.65, 0.61]}, "training drift: the loss differs from step 2 on"),
        ({"loss_digest": "later"}, "training drift: the loss differs after step 9"),
        ({"metrics": '{"accuracy":0.5,"nll":1.5}'}, "the same predictions score differently: nll 1 -> 1.5"),
        ({"test_data": "v"}, "test data u -> v"),
    ],
)
def test_one_fact_one_finding(changes: dict[str, Any], text: str) -> None:
    before = row(metrics='{"accuracy":0.5,"nll":1.0}', predictions="p")
    after = row(**{"metrics": before["metrics"], "predictions": "p", **changes})
    (finding,) = compare(simulated(before), simulated(after)).findings
    assert finding.text == text and finding.verdict == "regression"


def test_losses_of_other_machines_are_compared_within_rounding() -> None:
    def moved(by: float) -> Side:
        losses = [loss * (1 + by) for loss in LOSSES]
        return simulated(row(losses=losses, machine="n"))

    assert compare(simulated(row()), moved(0.5 * comparing.ROUNDING)).findings == []
    (finding,) = compare(simulated(row()), moved(2 * comparing.ROUNDING)).findings
    assert finding.kind == "training"


def test_another_machine_of_the_same_name_is_recognised() -> None:
    methods = ["full", "lora", "vpt", "bitfit"]
    little = [loss * (1 + 1e-7) for loss in LOSSES]
    far = [LOSSES[0], 0.6, 0.5]
    after = [row(method, losses=far if method == "vpt" else little) for method in methods]
    note, finding = sorted(compare(simulated(*map(row, methods)), simulated(*after)).findings, key=lambda f: f.verdict)
    assert note.verdict == "note" and "another machine of the same name" in note.text
    assert finding.methods == ("vpt",) and finding.verdict == "regression"


def test_a_score_that_its_own_predictions_do_not_give_is_named() -> None:
    items = {"lora/mnist/0": np.array([1.0, 0.0])}
    after = simulated(row(value=0.9, metrics='{"accuracy":0.9}', predictions="q"), items=items)
    found = compare(simulated(row(predictions="p"), items=items), after)
    assert "accuracy 0.9 is not that of its stored predictions, 0.5" in [finding.text for finding in found.findings]


# what can be compared -------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_commits_and_tags_stand_for_the_results_they_hold(
    tmp_path: Path, run: Callable[..., Side], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {version: Path(run(version, "lora", "linear").name) for version in ("clean", "halved_scale")}
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q")
    shutil.copytree(sources["clean"], tmp_path / "results")
    git(tmp_path, "add", "results")
    git(tmp_path, "commit", "-q", "-m", "clean")
    git(tmp_path, "tag", "v1")
    shutil.rmtree(tmp_path / "results")
    shutil.copytree(sources["halved_scale"], tmp_path / "results")
    assert main(["compare", "v1", "results", "--json", "--junit", "j.xml", "--markdown", "m.md"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] == 4 and {tuple(f["methods"]) for f in told["findings"]} == {("lora",)}
    assert main(["compare", "v1", "HEAD"]) == 0
    assert "no change in 4 cells of v1 and HEAD" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["v9", "--output=x", "nowhere/results"])
def test_what_is_neither_folder_nor_commit_is_told(name: str, tmp_path: Path) -> None:
    expected = pytest.raises(UsageError, match="is neither a results folder, a baseline file, nor a commit or tag")
    with expected, side(name, tmp_path):
        pass


def test_folders_without_a_common_cell_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "have no cell in common; they hold no records and no records" in capsys.readouterr().err
