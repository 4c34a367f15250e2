"""Tuning: one budget for all, only the training split, recipes rewritten in place."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import pytest
from peft_atlas.bench.cards import read_yaml
from peft_atlas.bench.contest import Contest, judge, trial_values
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.names import Name
from peft_atlas.bench.recipe_layer import write_layer
from peft_atlas.bench.records import ErrorReport, Primary, Record
from peft_atlas.bench.registry import registry
from peft_atlas.bench.store import Store
from peft_atlas.bench.tune import tune, verdict_text

sys.path.insert(0, str(Path(__file__).parent / "planted"))
from planted_grid import cell, environment  # type: ignore[import-not-found]

LRS = (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"lr": [1e-4, 1e-2]}, [{"lr": v} for v in (1e-4, 2.5e-4, 6.3e-4, 1.6e-3, 4e-3, 1e-2)]),
        ({"c": [1, 2, 3, 4, 5, 6]}, [{"c": v} for v in (1, 2, 3, 4, 5, 6)]),
        ({"c": list(range(1, 12))}, [{"c": v} for v in (1, 3, 5, 7, 9, 11)]),
        ({"r": [4, 8], "lr": [1e-3, 1e-1]}, [{"r": r, "lr": v} for r in (4, 8) for v in (1e-3, 1e-2, 1e-1)]),
    ],
)
def test_every_space_gives_the_same_number_of_trials(space: dict[str, list[float]], expected: object) -> None:
    assert trial_values("x", space, 6) == expected


@pytest.mark.parametrize("space", [{}, {"c": [1, 2, 3]}, {"r": [4, 8, 16, 32], "lr": [1e-4, 1e-2]}])
def test_a_space_with_another_budget_is_refused(space: dict[str, list[float]]) -> None:
    with pytest.raises(UsageError, match="does not make 6 trials"):
        trial_values("x", space, 6)


def test_every_recipe_has_the_protocols_budget() -> None:
    cards = registry("methods").cards()
    assert {len(trial_values(card.id, card.tuning, 6)) for card in cards} == {6}


def contest(store: Store, *scores: tuple[float | None, ...], higher: bool = True) -> Contest:
    """Trials with these scores a task; None: the trial failed."""
    cells = []
    for lr, row in zip(LRS, scores, strict=True):
        method = cell("x").method.model_copy(update={"config": {"lr": lr}})
        cells.append(tuple(cell(f"task-{i}", method=method, selection=True) for i in range(len(row))))
        for one, score in zip(cells[-1], row, strict=True):
            failed = ErrorReport(type="X", message="x", traceback="")
            store.add(
                Record(
                    key=one.key,
                    attempt=1,
                    status="nan" if score is None else "ok",
                    phase="done",
                    error=failed if score is None else None,
                    cell=one,
                    primary=None if score is None else Primary(name="m", value=score, higher_is_better=higher),
                    environment=environment(),
                    started="",
                    finished="",
                )
            )
    tasks = tuple(f"task-{i}" for i in range(len(scores[0])))
    return Contest(Name("planted"), "vision", "none", tasks, tuple({"lr": lr} for lr in LRS), tuple(cells))


def test_the_best_mean_wins_and_ties_go_to_the_smaller_value(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    verdict = judge(contest(store, (0.25, 0.75), (0.5, 0.5), (0.75, 0.25)), store)
    assert verdict.means == (0.5, 0.5, 0.5) and verdict.values == {"lr": 0.1}
    store = Store(tmp_path / "b")
    verdict = judge(contest(store, (0.5, 0.5), (0.9, 0.6), (0.6, 0.61)), store)
    assert verdict.means[1] == 0.75 and verdict.values == {"lr": 0.2}, "by mean rank it would be a draw"
    assert "best" in verdict_text(verdict)


def test_lower_scores_win_where_lower_is_better_and_failures_never_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    verdict = judge(contest(store, (None,), (2.0,), (1.5,), higher=False), store)
    assert verdict.means == (None, 2.0, 1.5) and verdict.values == {"lr": 0.3}
    assert "lr wins at the edge of its range" in verdict_text(verdict)


def test_there_is_no_winner_while_a_trial_is_missing_or_when_all_failed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert judge(contest(store, (None,), (None,), (None,)), store).winner is None
    asked = contest(Store(tmp_path / "other"), (0.5,), (0.6,), (0.7,))
    (tmp_path / "empty").mkdir()
    assert judge(asked, Store(tmp_path / "empty")).winner is None


def test_tuning_spends_the_same_on_every_method_and_never_builds_the_test_split(tmp_path: Path) -> None:
    outcome = tune("lora,linear,bitfit", ["vision", "lm"], protocol="smoke", results=tmp_path, display="none")
    assert outcome.exit_code == 0
    assert sorted((str(v.contest.name), v.contest.family) for v in outcome.verdicts) == [
        ("bitfit", "vision"),
        ("linear", "vision"),
        ("lora", "lm"),
        ("lora", "vision"),
    ]
    assert {line.split(":")[0] for line in outcome.unsupported} == {"linear x lm", "bitfit x lm"}
    records = list(Store(tmp_path).records())
    assert len(records) == 4 * 2
    for record in records:
        assert record.status == "ok" and record.cell.selection
        assert record.data is not None and record.data.test is None
        assert record.cell.steps == 4 and len(record.curve) in (4, 0)
    assert {path.parts[-5] for path, _ in Store(tmp_path).read()} == {"smoke-tuning"}
    again = tune("lora", ["vision"], protocol="smoke", results=tmp_path, display="none")
    assert len(list(Store(tmp_path).records())) == 8, "trials with a record do not run again"
    assert again.verdicts[0].winner is not None


def test_winners_are_written_and_the_rest_of_the_recipe_stays_as_it_was(tmp_path: Path) -> None:
    for method in registry("methods").ids():
        source = registry("methods").entry(method).file
        recipe = tmp_path / source.name
        before = source.read_text(encoding="utf-8")
        recipe.write_text("# a comment to keep\n" + before, encoding="utf-8")
        write_layer(recipe, "a-backbone", {"lr": 0.0025}, "bench tune, 6 trials")
        write_layer(recipe, "a-backbone", {"lr": 0.001}, "bench tune, 6 trials")
        after = recipe.read_text(encoding="utf-8")
        changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[:1] in "+-"]
        assert not [line for line in changed if line.startswith("-")], f"{method}: {changed}"
        assert changed[0] == "+ # a comment to keep" and len(changed) <= 4
        content = read_yaml(recipe)
        leaf = content["hyperparameters"]["backbone"]["a-backbone"]["lr"]
        assert leaf == {"value": 0.001, "source": "bench tune, 6 trials"}


def test_wrong_families_and_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tunes no family 'visio'. Did you mean vision( or \w+)*\?"):
        tune("lora", ["visio"], protocol="smoke", results=tmp_path, display="none")
    with pytest.raises(UsageError, match=r"not lora\(r=4\)"):
        tune("lora(r=4)", protocol="smoke", results=tmp_path, write=True, display="none")
