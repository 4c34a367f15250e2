"""The leaderboard: what may be compared, the same numbers as the tables, and what each format holds."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.names import Name
from peft_atlas.bench.plan import design, make_plan
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.statistics import Estimate
from peft_atlas.bench.tables import result_table, value_text
from peft_atlas.leaderboard import command, data, rankings, selection
from peft_atlas.leaderboard.board import Board
from peft_atlas.leaderboard.data import build, to_json
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parent))
from leaderboard_results import Results, entry, files, filled_results, suite


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return filled_results(tmp_path_factory.mktemp("filled") / "results")


# the board ------------------------------------------------------------------------------------------------------------


def test_every_cell_has_its_status_reason_and_evidence(filled: Results) -> None:
    board = filled.board()
    ok = entry(board, "lora", "smoke-vision")
    assert (ok.status, [score.seed for score in ok.scores], ok.same_cell) == ("ok", [0, 1], True)
    assert ok.interval is not None and ok.interval.mean == pytest.approx(np.mean([s.value for s in ok.scores]))
    for score in ok.scores:
        record = json.loads((filled.store.root / score.record).read_text(encoding="utf-8"))
        assert score.value == pytest.approx(100 * record["primary"]["value"])
        assert score.predictions is not None and (filled.store.root / score.predictions).is_file()
    assert (
        ok.command == "bench run --methods lora --tasks smoke-vision --seeds 0,1 --protocol smoke --results my-results"
    )
    lr = next(setting for setting in ok.settings if setting.name == "lr")
    assert lr.layer is not None and lr.source
    part = entry(board, "bitfit", "smoke-text")
    assert (part.status, part.reason) == ("partial", "seed 1: oom: can't allocate | 3 GB")
    impossible = entry(board, "linear", "smoke-lm")
    assert (impossible.status, impossible.reason) == ("unsupported", "smoke-lm has no task head to train")
    assert entry(board, "lora", "smoke-lm").status == "missing"


def test_intervals_are_those_of_the_result_table(filled: Results) -> None:

    names, tasks = [Name("lora"), Name("linear")], ["smoke-vision", "smoke-text"]
    plan = make_plan(load_protocol("smoke"), names, tasks, design("smoke", names, tasks, [0, 1]), filled.store, "never")
    table = dict(result_table(plan, filled.store).columns)
    board = filled.board()
    for place, name in enumerate(("lora", "linear")):
        for task in tasks:
            found = entry(board, name, task).interval
            assert found is not None
            assert table[task][place].strip() == value_text(Estimate(found.mean, found.half_width), "accuracy")


def test_rankings_share_ranks_and_keep_compute_classes_apart(filled: Results) -> None:
    rankings = {ranking.compute: ranking for ranking in suite(filled.board()).rankings}
    assert set(rankings) == {"equal-steps", "own-budget"}
    assert [(s.name, s.rank) for s in rankings["own-budget"].standings] == [("linear", 1)]
    equal = rankings["equal-steps"]
    assert equal.standings[0].name == "lora" and equal.lacking == ("smoke-lm",)
    flagged = {standing.name: standing.imputed for standing in equal.standings}
    assert flagged == {"lora": (), "bitfit": ("smoke-text",), "vpt": ("smoke-text",)}
    assert equal.standings[0].means["mean"] is not None
    assert all(standing.means["mean"] is None for standing in equal.standings if standing.imputed)
    (tradeoff,) = equal.tradeoffs
    assert [point.name for point in tradeoff.points] == ["lora"] and set(tradeoff.lacking) == {"bitfit", "vpt"}


def test_budgets_are_ranked_among_themselves(results: Results) -> None:
    for name in ("lora", "bitfit"):
        results.add(name, "smoke-vision", 0.7)
        results.add(name, "smoke-vision", 0.6, name=f'{name}(budget="0.5%")', config={"lr": 0.125})
    found = [(r.budget, {s.name for s in r.standings}) for r in suite(results.board(), "vtab-smoke").rankings]
    assert found == [(None, {"lora", "bitfit"}), ("0.5%", {'lora(budget="0.5%")', 'bitfit(budget="0.5%")'})]


@pytest.mark.parametrize("other", [{"cpu": "another cpu"}, {"version": 7}], ids=["machine", "protocol"])
def test_machines_and_protocols_never_share_a_ranking(results: Results, other: dict[str, Any]) -> None:
    results.add("lora", "smoke-vision", 0.8)
    results.add("bitfit", "smoke-vision", 0.7)
    results.add("vpt", "smoke-vision", 0.9, **other)
    board = results.board()
    together = [{s.name for s in ranking.standings} for one in board.suites for ranking in one.rankings]
    assert {"lora", "bitfit"} in together and {"vpt"} in together
    assert not any("vpt" in names and len(names) > 1 for names in together)
    assert len({one.id for one in board.suites}) == len(board.suites)


def test_a_record_that_vanishes_meanwhile_is_left_out_by_name(
    results: Results, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results.add("lora", "smoke-vision", 0.8)
    gone = results.store.path((lost := results.add("bitfit", "smoke-vision", 0.7)).cell, lost.attempt)

    def read_then_lose(root: Path) -> Any:
        rows = selection.read(root)
        gone.unlink(missing_ok=True)
        return rows

    monkeypatch.setattr(data, "read", read_then_lose)
    board = results.board()
    assert {c.name for c in suite(board).contenders if c.entries[0].scores} == {"lora"} and board.records == 1
    assert str(gone) in caplog.text and "cannot be read" in caplog.text


def test_other_test_items_mean_no_ranking_and_any_other_fault_is_one(
    results: Results, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results.add("lora", "smoke-vision", 0.8)
    forged = results.add("bitfit", "smoke-vision", 0.7)
    results.store.add(forged.model_copy(update={"attempt": 2}), {"per_item": np.full(7, 0.7)})
    assert suite(results.board()).rankings == ()
    assert "different numbers of items" in caplog.text

    def broken(*arguments: Any) -> None:
        raise ValueError("a fault of the program")

    monkeypatch.setattr(rankings, "rank_suite", broken)
    with pytest.raises(ValueError, match="a fault of the program"):
        results.board()


def test_an_earlier_configuration_is_set_aside_by_name(results: Results) -> None:
    results.add("lora", "smoke-vision", 0.9, config={"lr": 0.5})
    results.add("lora", "smoke-vision", 0.7, finished="2026-02-01")
    board = results.board()
    (kept,) = entry(board, "lora", "smoke-vision").scores
    assert kept.value == pytest.approx(70, abs=6)
    assert "lora on smoke-vision: 1 record of an earlier configuration" in suite(board).set_aside[0]


def test_a_cell_that_the_recipe_no_longer_gives_says_so(results: Results) -> None:
    results.add("lora", "smoke-vision", 0.9, config={"lr": 0.5})
    found = entry(results.board(), "lora", "smoke-vision")
    assert found.same_cell is False
    assert next(s for s in found.settings if s.name == "lr").source is None
    assert next(s for s in found.settings if s.name == "r").source is not None
    assert "has changed since on smoke-vision" in files(results, ["md"])["methods/lora/README.md"]


def test_published_numbers_stand_beside_and_are_never_ranked(results: Results) -> None:
    for name in ("lora", "full", "linear"):
        results.add(name, "smoke-vision", 0.8)
    board = results.board()
    (table,) = board.published
    assert (len(table.rows), len(table.tasks)) == (20, 19)
    assert next(row for row in table.rows if row.method == "lora").mean == 72.25
    for row in table.rows:  # no digit was lost on the way: the printed mean is that of the tasks
        assert row.mean == pytest.approx(np.mean(list(row.values.values())), abs=0.006)
    labels = {row.label for row in table.rows}
    assert not labels & {standing.name for one in board.suites for r in one.rankings for standing in r.standings}
    page = files(results, ["md"])["suites/vtab-smoke.md"]
    assert re.search(r"\| LoRA \| 72.25 \| 0.29M \| \[`lora`\]", page)
    assert table.caveat in page and "V-PETL Bench" in page


def test_the_same_records_give_the_same_text(filled: Results, tmp_path: Path) -> None:
    shutil.copytree(filled.store.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".index", "leaderboard"))
    text = to_json(filled.board())
    assert to_json(build(tmp_path / "copy")) == text
    assert Board.model_validate_json(text) == filled.board()


# formats --------------------------------------------------------------------------------------------------------------


def test_links_of_the_pages_lead_to_files(filled: Results) -> None:
    root, out = filled.store.root, filled.store.root / "leaderboard"
    pages = files(filled)
    for path, text in pages.items():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    links = [(out / path).parent / link.partition("#")[0] for path, text in pages.items() if path.endswith(".md")
             for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", text)]  # fmt: skip
    assert len(links) > 30 and [str(link) for link in links if not link.exists()] == []
    assert any(link.suffix == ".json" and link.resolve().is_relative_to(root / "smoke") for link in links)


def test_columns_of_a_method_keep_their_order(filled: Results) -> None:
    page = files(filled, ["md"])["methods/lora/README.md"]
    head = next(line for line in page.splitlines() if line.startswith("| name |"))
    order = ["backbone", "protocol", "trainable", "shipped", "ledger peak", "peak RSS", "step", "latency, batch 1"]
    assert [name.strip() for name in head.strip("|").split("|")][2:] == [
        *(*order, "score", "drift", "config", "record", "log", "mark")
    ]
    assert "not measured" in page and "arXiv:2106.09685" in page and "HF PEFT LoRA" in page


def test_csv_holds_the_numbers_unrounded(filled: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(files(filled, ["csv"])["csv/results.csv"])))
    board = filled.board()
    (row,) = [r for r in rows if (r["suite"], r["name"], r["task"]) == ("smoke", "lora", "smoke-text")]
    interval = entry(board, "lora", "smoke-text").interval
    assert interval is not None and float(row["score"]) == interval.mean
    assert {r["status"] for r in rows} == {"ok", "partial", "unsupported", "missing"}


def test_metafiles_are_in_the_grammar_of_model_index(filled: Results) -> None:
    made = files(filled, ["metafile"])
    root = YAML(typ="safe").load(made["model-index.yml"])
    assert set(root) == {"Import"} and set(root["Import"]) == set(made) - {"model-index.yml"}
    for path in root["Import"]:
        content = YAML(typ="safe").load(made[path])
        (collection,) = content["Collections"]
        assert {"Name", "Metadata", "README"} <= set(collection)
        for model in content["Models"]:
            assert model["In Collection"] == collection["Name"]
            assert isinstance(model["Metadata"], dict)
            for result in model["Results"]:
                assert set(result) == {"Task", "Dataset", "Metrics"} and result["Metrics"]
    lora = YAML(typ="safe").load(made["methods/lora/metafile.yml"])
    assert lora["Collections"][0]["Paper"]["URL"] == "https://arxiv.org/abs/2106.09685"


def test_an_empty_folder_gives_pages_that_say_so(results: Results, tmp_path: Path) -> None:
    results.store.root.mkdir()
    made = files(results)
    assert "holds no records yet" in made["README.md"]
    assert json.loads(made["board.json"])["suites"] == []
    assert made["csv/results.csv"].count("\n") == 1
    with pytest.raises(UsageError, match="does not exist"):
        command.leaderboard_command(tmp_path / "absent", tmp_path / "out", "md", check=False, freeze=None)
