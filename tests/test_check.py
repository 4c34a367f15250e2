"""The gate: a baseline is written, met, missed and refused; Markdown, JUnit XML and JSON say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from peft_atlas.bench.baseline import baseline_side, read_baseline
from peft_atlas.bench.cli import main
from peft_atlas.bench.compare import compare
from peft_atlas.bench.compare_report import as_markdown, as_text
from peft_atlas.bench.findings import Comparison, Finding, Incomplete
from peft_atlas.bench.junit import write_junit
from peft_atlas.bench.registry import registry

COMMITTED = Path(__file__).parent / "baselines" / "smoke.json"
Captured = pytest.CaptureFixture[str]
Edit = Callable[[list[dict[str, Any]]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two methods and the baseline that --update made of it."""
    folder = tmp_path_factory.mktemp("check")
    assert main(["check", *options(folder), "--tasks", "smoke", "--update"]) == 0
    return folder


def options(folder: Path, baseline: str = "smoke.json") -> list[str]:
    """The run of the fixture again: its records are there, so nothing is trained."""
    return ["--baseline", str(folder / baseline), "--methods", "lora,linear", "--results", str(folder / "results")]


def edited(folder: Path, edit: Edit) -> str:
    """Name of a copy of the baseline, its cells edited."""
    content = json.loads((folder / "smoke.json").read_text())
    edit(content["cells"])
    (folder / "edited.json").write_text(json.dumps(content))
    return "edited.json"


def of(cells: list[dict[str, Any]], method: str, task: str) -> dict[str, Any]:
    (one,) = [cell for cell in cells if (cell["method_name"], cell["task"]) == (method, task)]
    return one


def test_a_run_meets_its_own_baseline(made: Path, capsys: Captured) -> None:
    assert main(["check", *options(made)]) == 0
    printed = capsys.readouterr().out
    assert "5 cells of one machine class: loss traces and scores compared bit for bit" in printed
    assert printed.splitlines()[-1].startswith("no change in 5 cells of ")
    assert main(["compare", str(made / "smoke.json"), str(made / "results")]) == 0


def test_the_baseline_says_which_tasks_are_compared(made: Path, capsys: Captured) -> None:
    assert main(["check", *options(made), "--tasks", "smoke"]) == 2
    assert "--tasks goes with --update" in capsys.readouterr().err


def test_a_baseline_is_small_and_says_what_is_needed(made: Path) -> None:
    content = read_baseline(made / "smoke.json")
    lora = of(content["cells"], "lora", "smoke-text")
    assert (made / "smoke.json").stat().st_size < 5 * 2000 + 6000
    assert len(lora["per_item"]) == len(content["items"]["smoke-text"]) == 32
    assert len(content["labels"]["smoke-text"]["train"]) == 64 and "smoke-lm" not in content["labels"]
    assert len(json.loads(lora["losses"])) == 10 and lora["adapter_parameters"] == 2048


def test_a_regression_fails_in_every_form(made: Path, capsys: Captured, tmp_path: Path) -> None:
    def edit(cells: list[dict[str, Any]]) -> None:
        of(cells, "lora", "smoke-text")["adapter_parameters"] = 896
        of(cells, "linear", "smoke-vision")["metrics"] = '{"accuracy":0.25,"nll":1.5}'

    words = [
        "check",
        *options(made, edited(made, edit)),
        "--markdown",
        str(tmp_path / "m"),
        "--junit",
        str(tmp_path / "j"),
    ]
    assert main([*words, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 1 and told["pairs"] == 5
    assert {(f["kind"], *f["methods"], *f["tasks"]) for f in told["findings"]} == {
        ("parameters", "lora", "smoke-text"),
        ("score", "linear", "smoke-vision"),
    }
    markdown = (tmp_path / "m").read_text()
    assert markdown.startswith("### 2 regressions in 5 cells of ")
    assert "| regression | adapter parameters 896 -&gt; 2,048 | lora | smoke-text |" in markdown
    root = ElementTree.parse(tmp_path / "j").getroot()
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures")) == ("6", "2"), "five cells and the pipeline"
    failed = {(case.get("classname"), case.get("name")) for case in suite if case.find("failure") is not None}
    assert failed == {("smoke.smoke-text", "lora"), ("smoke.smoke-vision", "linear")}


def test_memory_operations_and_bytes_are_held_exactly(made: Path, capsys: Captured) -> None:
    """Counted anew for each method on each backbone; an older baseline without costs is read, and compares none."""
    content = json.loads((made / "smoke.json").read_text())
    rows = {(row["method_name"], row["backbone"]): row for row in content["costs"]}
    assert len(rows) == 5 and all(not row["times"] for row in rows.values())
    exact = rows["lora", "tiny-bert"]["exact"]
    assert exact["operations, train backward"] > exact["operations, train forward"] / 2 > 0
    exact["ledger, activations"] -= 4
    (made / "costs.json").write_text(json.dumps(content))
    assert main(["check", *options(made, "costs.json")]) == 1
    assert re.search(r"regression: lora: ledger, activations [\d,]+ -> [\d,]+ \(tiny-bert\)", capsys.readouterr().out)
    del content["costs"]
    (made / "costs.json").write_text(json.dumps({**content, "schema_version": 1}))
    assert main(["check", *options(made, "costs.json")]) == 0


def test_a_method_that_the_baseline_lacks_is_new_and_one_that_is_gone_fails(made: Path, capsys: Captured) -> None:
    def without_lora(cells: list[dict[str, Any]]) -> None:
        cells[:] = [cell for cell in cells if cell["method_name"] != "lora"]

    def with_another(cells: list[dict[str, Any]]) -> None:
        cells.append({**of(cells, "lora", "smoke-lm"), "seed": 7, "path": "x", "key": "x"})

    assert main(["check", *options(made, edited(made, without_lora))]) == 0
    assert "new in this run: lora x smoke-lm x seed 0" in capsys.readouterr().out
    assert main(["check", *options(made, edited(made, with_another))]) == 1
    assert "regression: lora: no record any more (smoke-lm)" in capsys.readouterr().out


def test_another_machine_is_compared_within_rounding(made: Path, capsys: Captured) -> None:
    def elsewhere(cells: list[dict[str, Any]], by: float) -> None:
        for cell in cells:
            cell["machine"] = "another"
            if "losses" in cell:
                losses = [loss * (1 + by) for loss in json.loads(cell["losses"])]
                cell |= {"losses": json.dumps(losses), "loss_digest": "other", "predictions": "other"}

    assert main(["check", *options(made, edited(made, lambda cells: elsewhere(cells, 1e-6)))]) == 0
    assert "5 cells of different machines or versions: loss traces compared within 1e-05" in capsys.readouterr().out
    assert main(["check", *options(made, edited(made, lambda cells: elsewhere(cells, 1e-4)))]) == 1
    assert "training drift: the loss differs from step 0 on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "No such file or directory; `bench check --update` writes one"),
        ("not JSON", "Expecting value"),
        ("[]", "it has no schema_version"),
        ('{"schema_version": 3}', "schema_version 3 is newer; this release reads up to 2"),
        ('{"schema_version": 1, "protocol": "smoke"}', "it has no 'items'"),
        (
            '{"schema_version": 1, "protocol": "embedded", "items": {}, "labels": {}, "cells": []}',
            "is of protocol embedded, not smoke",
        ),
    ],
)
def test_bad_baselines_are_one_line(text: str | None, part: str, tmp_path: Path, capsys: Captured) -> None:
    if text is not None:
        (tmp_path / "b.json").write_text(text)
    assert main(["check", "--baseline", str(tmp_path / "b.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: baseline ") and part in line


def test_the_committed_baseline_is_of_the_present_cells() -> None:
    """Each cell's versions and data are those of the cards; else `bench check --update` was forgotten."""
    content = read_baseline(COMMITTED)
    found = compare(baseline_side(content, "a"), baseline_side(content, "b"), complete=True)
    assert found.findings == [] and found.pairs == len(content["cells"])
    methods, tasks = registry("methods"), registry("tasks")
    for cell in content["cells"]:
        assert cell["method_version"] == methods.card(cell["method_name"]).version, cell["method_name"]
        assert cell["train_data"] == tasks.card(cell["task"]).fingerprints["train"]


# forms ----------------------------------------------------------------------------------------------------------------


def comparison(*findings: Finding) -> Comparison:
    lacking = [Incomplete("vtab", "lora", ("a", "b")), Incomplete("vtab", "vpt", ("a", "b"))]
    places = [("smoke", "t", "lora"), ("smoke", "t", "vpt")]
    return Comparison("x", "y", list(findings), places, 2, 1, 1, ["lora x u x seed 0"], [], lacking)


def test_text_says_how_it_was_compared_and_what_is_missing() -> None:
    assert as_text(comparison(Finding("training", "drift", "most moved", ("t",)))).splitlines() == [
        "drift: pipeline: most moved (t)",
        "1 cell of one machine class: loss traces and scores compared bit for bit",
        "1 cell of different machines or versions: loss traces compared within 1e-05",
        "only in x: lora x u x seed 0",
        "vtab is not compared for lora, vpt: without a, b",
        "1 drift of the pipeline in 2 cells of x and y",
    ]


def test_markdown_cannot_be_broken_by_a_message() -> None:
    nasty = "a | b\n| x | <img src=x onerror=1> [l](http://x) `c` @all"
    text = as_markdown(comparison(Finding("status", "regression", nasty, ("t",), ("lora",))))
    (row,) = [line for line in text.splitlines() if line.startswith("| regression")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert "<" not in row and not re.search(r"(?<!\\)[`\[@]", row)


def test_junit_survives_what_xml_forbids(tmp_path: Path) -> None:
    bad = Finding("status", "regression", "a\x00b <&>\x1b", ("t",), ("lora",))
    pipeline = Finding("training", "drift", "moved", ("t",))
    write_junit(comparison(bad, pipeline), tmp_path / "j.xml")
    (suite,) = ElementTree.parse(tmp_path / "j.xml").getroot()
    failures = {case.get("name"): case.find("failure") for case in suite}
    assert failures["vpt"] is None and failures["pipeline"] is not None
    assert (
        failures["lora"] is not None
        and failures["lora"].get("message") == "a\N{REPLACEMENT CHARACTER}b <&>\N{REPLACEMENT CHARACTER}"
    )
