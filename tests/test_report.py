"""`bench report`: planted records give sentences with the planted facts, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from peft_atlas.bench.cli import main
from peft_atlas.bench.records import ErrorReport
from peft_atlas.leaderboard.board import Board, Trial, Tuning
from peft_atlas.leaderboard.entries import Evidence
from peft_atlas.leaderboard.report import report
from peft_atlas.leaderboard.report_costs import cost_blocks
from peft_atlas.leaderboard.report_rankings import ranking_blocks
from peft_atlas.leaderboard.sensitivity import sensitivities
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from leaderboard_results import Results
from simulated_board import Simulation
from test_leaderboard_names import UGLY, _live

PUBLISHED = {  # means of V-PETL Bench's VTAB-1k table
    "ssf": 73.10,
    "adaptformer": 72.32,
    "lora": 72.25,
    "vpt": 69.43,
    "full": 65.57,
    "bitfit": 62.05,
    "linear": 52.94,
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def text_of(results: Results) -> str:
    return report(results.board(), Evidence(results.store.root))


def section(text: str, title: str) -> str:
    """From a heading to the next of its level."""
    (mark,) = re.findall(rf"^(#+) {re.escape(title)}$", text, re.M)[:1]
    return re.split(rf"^#{{1,{len(mark)}}} ", text.split(f"{mark} {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def test_planted_records_give_sentences_with_the_planted_facts(results: Results) -> None:
    for method, mean in (("lora", 0.8), ("ia3", 0.8), ("bitfit", 0.7), ("linear", 0.5)):
        for seed in (0, 1, 2):
            for task in ("smoke-vision", "smoke-text"):
                results.add(method, task, mean, seed)
    results.add("vpt", "smoke-vision", 0.6)
    error = ErrorReport(type="MemoryError", message="can't allocate | 3 GB\nmore", traceback="")
    results.add("vpt", "smoke-text", 0.0, status="oom", phase="fit", error=error)
    suite = section(text_of(results), "smoke")
    equal = section(suite, "Equal steps")
    assert re.search(
        r"`(lora|ia3)` ranks first and is told apart from 2 of 3 others; not told apart from it: `(lora|ia3)`", equal
    )
    assert "Pairs told apart: 5 of 6. Not told apart:" in equal and "(accuracy" not in equal
    visible = re.search(r"a true difference of (0\.\d\d) points would be found in 80%", equal)
    assert visible is not None and 0.1 < float(visible[1]) < 2, "items scatter by 2.8 points, over 240 of them"
    against = section(suite, "Against the baseline `linear`")
    gains = dict(re.findall(r"\| `(\w+)` \| accuracy \| \+([\d.]+) ± ", against))
    assert {name: round(float(gain)) for name, gain in gains.items()} == {
        "lora": 30,
        "ia3": 30,
        "bitfit": 20,
        "vpt": 10,
    }
    assert "Of 4 comparisons" in against and "4 are better than `linear`, 0 are worse" in against
    assert re.search(r"\| `vpt` .* \| 1 of 3 \|", against), "only the tasks that both have"
    missing = section(suite, "Failures and missing cells")
    assert "| oom | 1 | seed 0: oom: can't allocate \\| 3 GB | vpt | smoke-text |" in missing
    assert "| unsupported | 1 | smoke-lm has no task head to train | linear | smoke-lm |" in missing
    assert "0 of 5 methods have a cost profile" in suite and "not measured" in section(suite, "What each method costs")


def test_the_order_is_compared_with_the_published_one(results: Results) -> None:
    planted = {name: mean / 100 for name, mean in PUBLISHED.items()} | {"full": 0.90}
    for name, mean in planted.items():
        results.add(name, "smoke-vision", mean)
    found = section(text_of(results), "Beside VTAB-1k in V-PETL Bench")
    scores = {c.name: c.entries[0].scores[0].value or 0.0 for s in results.board().suites[:1] for c in s.contenders}
    both = [[scores[name] for name in PUBLISHED], list(PUBLISHED.values())]
    assert "7 methods are in both" in found and "`vpt-shallow`" in found
    assert f"tau-b is {stats.kendalltau(*both).statistic:.2f} (95% interval" in found
    assert f"rho {stats.spearmanr(*both).statistic:.2f} (95% interval" in found
    contrary = re.search(r"(\d+) in the contrary one \((.*?)\), and", found)
    assert contrary is not None and contrary[1] == "4"
    assert set(contrary[2].split("; ")) == {f"`full` above `{name}`" for name in ("ssf", "adaptformer", "lora", "vpt")}


def test_three_methods_conclude_nothing_about_published_orders(results: Results) -> None:
    for name in ("ssf", "lora", "linear"):
        results.add(name, "smoke-vision", PUBLISHED[name] / 100)
    found = section(text_of(results), "Beside VTAB-1k in V-PETL Bench")
    assert "Nothing can be concluded from 3 methods in both" in found and "tau" not in found


def test_a_wrong_learning_rate_costs_what_the_trials_lost(results: Results) -> None:
    results.add("lora", "smoke-vision", 0.8)
    scores = {1e-4: 30.0, 3e-4: 62.0, 1e-3: 70.0, 3e-3: None}
    board = _tuned(results.board(), "lora", scores, "lr")
    board = board.model_copy(
        update={"tuning": (*board.tuning, *_tuned(board, "linear", {0.1: 50.0, 1.0: 60.0}, "c").tuning)}
    )
    (found,), others = sensitivities(board, "smoke", 1)
    assert (found.best, found.score, found.at_end, others) == (1e-3, 70.0, False, ["linear"])
    assert found.lower is not None and found.lower.loss == pytest.approx(8) and found.lower.factor == pytest.approx(0.3)
    assert found.higher is not None and found.higher.loss is None
    text = report(board, Evidence(results.store.root))
    assert "| `lora` | 0.001 | 70.0 | 8.0 (x0.3) | failed (x3) |" in text
    assert "A lower rate costs 8.00 points in the median of 1 method" in text


def _tuned(board: Board, name: str, scores: dict[float, float | None], varied: str) -> Board:
    trials = tuple(
        Trial(values={varied: rate}, score=score, status="nan" if score is None else "ok", record="x", chosen=False)
        for rate, score in scores.items()
    )
    where = {"protocol": "smoke", "protocol_version": 1, "machine": "one cpu", "backbone": "tiny"}
    tuning = Tuning(name=name, method=name, task="smoke-vision", trials=trials, **where)
    return board.model_copy(update={"tuning": (tuning,)})


def test_equal_budgets_have_a_ranking_of_their_own(results: Results) -> None:
    for name, mean in (("lora", 0.7), ("bitfit", 0.5)):
        results.add(name, "smoke-vision", mean)
    assert "No cells at an equal budget" in section(text_of(results), "vtab-smoke")
    for name, mean in (("lora", 0.6), ("bitfit", 0.7)):
        results.add(name, "smoke-vision", mean, name=f'{name}(budget="0.5%")', config={"lr": 0.125})
    found = section(text_of(results), "vtab-smoke")
    assert "No cells at an equal budget" not in found
    assert '`bitfit(budget="0.5%")` ranks first' in section(found, "Equal steps, every method at a budget of 0.5%")
    assert "`lora` ranks first" in section(found, "Equal steps")


def test_measured_costs_stand_in_the_table_and_on_the_front() -> None:
    board = Simulation().board()
    costs = "\n".join(cost_blocks(board, board.suites[0]))
    assert "13 of 13 methods have a cost profile" in costs
    assert len(re.findall(r"\| 300\.0 MiB \| 120\.0 ms \|$", costs, re.M)) == 13
    assert "measured on Intel Xeon, 2 cores" in costs
    ranking = board.suites[0].rankings[0]
    front = [point.name for point in ranking.tradeoffs[0].points if point.on_front]
    (line,) = re.findall(
        r"Quality against trainable parameters: (.*)", "\n".join(ranking_blocks(board, board.suites[0], ranking))
    )
    assert front and re.findall(r"`(\w+)` \(", line) == front


def test_an_empty_folder_says_so_and_check_finds_what_differs(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    root = results.store.root
    assert main(["report", "--results", str(root / "absent")]) == 2
    root.mkdir(exist_ok=True)
    line = ["report", "--results", str(root)]
    assert main([*line, "--check"]) == 1
    assert main(line) == 0
    assert "holds no records yet" in (root / "report.md").read_text(encoding="utf-8")
    results.add("lora", "smoke-vision", 0.8)
    assert main([*line, "--check"]) == 1
    assert main([*line, "--protocol", "smoke"]) == 0
    assert main([*line, "--protocol", "smoke", "--check"]) == 0
    capsys.readouterr()
    assert main([*line, "--protocol", "smok"]) == 2
    assert "Did you mean smoke" in capsys.readouterr().err


def test_hostile_names_are_inert(results: Results) -> None:
    for place, name in enumerate(UGLY):
        error = ErrorReport(type="X", message=name, traceback="")
        results.add("lora", "smoke-vision", 0.5 + 0.1 * place, name=name)
        results.add("bitfit", "smoke-vision", 0.8, name=name + "2", status="error", phase="fit", error=error)
    results.add("linear", "smoke-vision", 0.4)
    text = text_of(results)
    assert not any(ord(c) < 32 or c in "\u202e\u2028" for c in text.replace("\n", ""))
    assert list(_live(text)) == []
